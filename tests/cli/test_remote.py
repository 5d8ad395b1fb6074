"""Commands on images in an S3 server, a real one on loopback; expected is what the Linux kernel saw of the fixtures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pseudomount import open_backup
from pseudomount.errors import AccessDeniedError, ObjectChangedError, ObjectNotFoundError, UsageError
from tests.cli.support import pm, pm_process
from tests.support.fixtures import fixture_header, fixture_image, fixture_manifest
from tests.support.s3 import Bucket
from tests.support.web import WebServer, web_server


@pytest.fixture
def url(bucket: Bucket) -> str:
    return bucket.put(bucket.new(), "backups/gpt disk.img", fixture_image("gpt"))


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as made:
        yield made


def flags(options: dict[str, str]) -> list[str]:
    return [part for key, value in options.items() for part in ("--store-option", f"{key}={value}")]


def test_listing_and_reading(bucket: Bucket, url: str, tmp_path: Path) -> None:
    options = flags(bucket.options)
    rows = {row["path"]: row for row in fixture_manifest("gpt", "disk0p1")}
    listed = pm("ls", url, "disk0p1:/", *options)
    assert listed.status == 0
    assert sorted(listed.lines) == sorted(path for path in rows if path and "/" not in path)
    got = pm("cat", url, "disk0p1:/etc/fstab", *options)
    assert got.status == 0
    assert hashlib.sha256(got.out).hexdigest() == rows["etc/fstab"]["sha256"]
    assert pm("get", url, "disk0p1:/this is disk0p1", "--to", tmp_path, *options).status == 0
    content = (tmp_path / "this is disk0p1").read_bytes()
    assert hashlib.sha256(content).hexdigest() == rows["this is disk0p1"]["sha256"]
    counted = pm("ls", url, "disk0p1:/etc", "--counters", *options)
    assert "requests" in counted.err


def test_the_environment_is_enough(bucket: Bucket, url: str) -> None:
    environment = {
        "AWS_ENDPOINT_URL": bucket.options["endpoint"],
        "AWS_ACCESS_KEY_ID": "anyone",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_REGION": "us-east-1",
    }
    ran = pm_process("info", url, "--json", env=environment)
    assert ran.status == 0
    assert ran.objects()
    assert ran.err == ""


def test_every_file_of_an_image_in_s3_has_the_sum_that_the_kernel_saw(bucket: Bucket) -> None:
    url = bucket.put(bucket.new(), "ext2.img", fixture_image("ext2-1k"))
    assert fixture_header("ext2-1k")["sha256"] == hashlib.sha256(fixture_image("ext2-1k")).hexdigest()
    checked = 0
    with open_backup(url, store_options=bucket.options) as backup:
        volume = backup.browsable()[0]
        for row in fixture_manifest("ext2-1k"):
            if row.get("sha256") and row["size"] < 1 << 20:
                data = (volume.root / row["path"]).read_bytes()
                assert hashlib.sha256(data).hexdigest() == row["sha256"], row["path"]
                checked += 1
    assert checked > 20


def test_an_image_that_is_replaced_or_removed_meanwhile(bucket: Bucket) -> None:
    name = bucket.new()
    url = bucket.put(name, "ext4.img", fixture_image("ext4"))
    with open_backup(url, store_options=bucket.options) as backup:
        list(backup.browsable()[0].root.iterdir())
        bucket.put(name, "ext4.img", bytes(len(fixture_image("ext4"))))
        with pytest.raises(ObjectChangedError, match=r"s3://.*/ext4\.img has changed"):
            backup.disks["disk0"].read(10 << 20, 4096)
        bucket.delete(name, "ext4.img")
        with pytest.raises(ObjectNotFoundError, match="no longer there"):
            backup.disks["disk0"].read(10 << 20, 4096)


def test_what_is_not_there_and_what_is_refused(bucket: Bucket, url: str, server: WebServer) -> None:
    options = flags(bucket.options)
    ran = pm("ls", url + "x", *options)
    assert ran.status == 1
    assert "no such file" in ran.err
    ran = pm("ls", "s3://no-such-bucket/vm.img", *options)
    assert ran.status == 1
    anonymous = flags({"endpoint": bucket.options["endpoint"], "anonymous": "true"})
    ran = pm("ls", url, *anonymous, "--json")
    assert ran.status == 3
    assert json.loads(ran.text)["kind"] == "AccessDeniedError"
    with pytest.raises(AccessDeniedError, match="AWS_ACCESS_KEY_ID"):
        open_backup(url, store_options={"endpoint": bucket.options["endpoint"], "anonymous": "true"})
    for wrong in (["bogus=1"], ["timeout=soon"], ["nonsense"], ["=x"], ["region"]):
        ran = pm("ls", url, *options, *(part for text in wrong for part in ("--store-option", text)))
        assert ran.status == 2, wrong
        assert wrong[0].partition("=")[0] in ran.err
    server.objects["/vm.img"] = b"x"
    assert pm("ls", "/tmp", "--store-option", "region=x").status == 2
    assert pm("ls", "ftp://host/vm.img").status == 2


def test_files_of_several_stores_are_not_one_backup(bucket: Bucket, url: str, tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(b"x" * 4096)
    for pair in (
        [url, bucket.put(bucket.new(), "b.img", b"x")],
        [url, str(tmp_path / "a.img")],
        [url, (tmp_path / "a.img").as_uri()],
    ):
        with pytest.raises(UsageError, match="one store"):
            open_backup(pair, store_options=bucket.options)


def test_several_disks_of_one_bucket(bucket: Bucket, url: str) -> None:
    name = url.split("/")[2]
    other = bucket.put(name, "backups/second disk.img", fixture_image("ext4"))
    with open_backup(url, other, store_options=bucket.options) as backup:
        assert [disk.size for disk in backup.disks.values()] == [len(fixture_image("gpt")), len(fixture_image("ext4"))]
        assert backup.volumes["disk1"].filesystem == "ext4"


def test_file_urls_are_files(tmp_path: Path) -> None:
    path = tmp_path / "ä disk.img"
    path.write_bytes(fixture_image("ext4"))
    with open_backup(path.as_uri()) as backup, open_backup(path) as same:
        assert backup.browsable()[0].uuid == same.browsable()[0].uuid


def test_a_web_server(server: WebServer) -> None:
    server.objects["/some where/ext4.img"] = fixture_image("ext4")
    expected = sorted(row["path"] for row in fixture_manifest("ext4") if row["path"] and "/" not in row["path"])
    ran = pm("ls", f"{server.url}/some%20where/ext4.img?token=x", "/")
    assert ran.status == 0
    assert len(ran.lines) == len(expected)
    assert all(request.path.endswith("/some%20where/ext4.img?token=x") for request in server.requests)


def test_completion_of_paths_in_a_bucket(bucket: Bucket) -> None:
    url = bucket.put(bucket.new(), "gpt.img", fixture_image("gpt"))
    words = ["pseudomount", "ls", *flags(bucket.options), url, "disk0p1:/etc/fs"]
    environment = {
        "_PSEUDOMOUNT_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    ran = pm_process(env=environment)
    assert "fstab" in ran.text
