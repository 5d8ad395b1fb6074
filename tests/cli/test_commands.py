"""Every command on the sample, against what the Linux kernel, ntfs-3g and mtools saw in it."""

from __future__ import annotations

import base64
import hashlib
import re
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import BOOT, DATA, LETTER, SYSTEM, pm, sample_bytes, seen, seen_header

ADA = "/home/ada"
TIMES = {"modified": "mtime_ns", "changed": "ctime_ns", "accessed": "atime_ns", "created": "btime_ns"}


def check_row(item: dict[str, Any], row: dict[str, Any]) -> None:
    """A JSON object against a row of the manifest; of what its reader could not tell, that we do not make it up."""
    ext, fat = row["volume"] == "disk0p2", row["volume"] == "disk0p1"
    assert item["volume"] == row["volume"]
    assert item["path"] == "/" + row["path"]
    assert item["name"] == row["path"].rpartition("/")[2]
    assert item["type"] == row["type"]
    if ext or row["type"] == "file":  # ntfs-3g says of a directory how large its index is
        assert item["size"] == row["size"]
        if not fat:
            # Content in the record itself takes no cluster; ntfs-3g counts the sector of it.
            inside = not ext and row["allocated"] == 512
            assert item["allocated"] == (0 if inside else row["allocated"]), item["path"]
    for key in ("mode", "uid", "gid"):
        assert item[key] == row.get(key), (item["path"], key)
    if not fat:
        assert (item["links"], item["inode"]) == (row["nlink"], row["ino"])
    if ext:
        assert item["permissions"] == stat.filemode(row["mode"])
    target = item.get("target")
    assert (target if ext or target is None else target.replace("\\", "/")) == row.get("target")
    for key, truth in TIMES.items():
        if truth not in row:
            continue
        ns = row[truth]
        assert item[f"{key}_ns"] == ns
        text = item[key]
        assert text.endswith("Z")
        moment = datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
        assert (int(moment.timestamp()), int(text[20:29])) == divmod(ns, 10**9)
        assert len(text) == 30


def test_the_sample_is_the_one_that_others_saw() -> None:
    data = sample_bytes()
    assert hashlib.sha256(data).hexdigest() == seen_header()["sha256"]
    assert len(data) == seen_header()["size"]


# -- info ------------------------------------------------------------------------------------------------------------


def test_info_json_names_disks_and_volumes(disk: Path) -> None:
    ran = pm("info", disk, "--json")
    assert ran.status == 0
    whole, boot, system, data = ran.objects()
    assert whole == {"disk": "disk0", "format": "raw", "size": 61 << 20, "sector_size": 512}
    # As the recipe told sgdisk, mkfs.fat, mke2fs and mkntfs.
    assert {key: boot[key] for key in ("volume", "filesystem", "label", "uuid", "start", "size", "scheme")} == {
        "volume": "disk0p1",
        "filesystem": "fat32",
        "label": "BOOT",
        "uuid": "1843-0710",
        "start": BOOT[0],
        "size": BOOT[1],
        "scheme": "gpt",
    }
    assert (system["volume"], system["filesystem"], system["label"]) == ("disk0p2", "ext4", "system")
    assert (system["start"], system["size"]) == SYSTEM
    assert system["uuid"] == "18430710-ad0a-4aaa-8a8a-0000000000ad"
    assert system["type"] == "0fc63daf-8483-4772-8e79-3d69d8477de4"
    assert system["partition_uuid"].lower() == "18430710-0002-4aaa-8a8a-0000000000ad"
    assert (data["volume"], data["filesystem"], data["label"]) == ("disk0p3", "ntfs", "Data")
    assert (data["start"], data["size"], data["uuid"]) == (*DATA, "ADDA184307101843")


def test_info_is_a_table_for_people(disk: Path) -> None:
    ran = pm("info", disk)
    assert ran.status == 0
    assert ran.err == ""
    assert ran.lines[0] == "disk0: 61 MiB (63,963,136 bytes), raw, sectors of 512 bytes"
    assert ran.lines[2].split()[:3] == ["VOLUME", "FILE", "SYSTEM"]
    boot, system, data = (line.split() for line in ran.lines[3:6])
    assert boot[:7] == ["disk0p1", "fat32", "BOOT", "33", "MiB", "1", "MiB"]
    assert system[:7] == ["disk0p2", "ext4", "system", "18", "MiB", "34", "MiB"]
    assert system[-1] == "18430710-ad0a-4aaa-8a8a-0000000000ad"
    assert data[:7] == ["disk0p3", "ntfs", "Data", "8", "MiB", "52", "MiB"]
    assert ran.lines[3].index("EFI") == ran.lines[4].index("Linux")


def test_info_verbose_has_details(disk: Path) -> None:
    ran = pm("info", "-v", disk)
    assert ran.status == 0
    assert "block size" in ran.text
    assert "4,096" in ran.text
    volumes = [item for item in pm("info", "-v", "--json", disk).objects() if "volume" in item]
    assert all(item["details"] for item in volumes)


# -- ls --------------------------------------------------------------------------------------------------------------


def test_ls_without_a_path_lists_the_volumes_where_there_are_several(disk: Path) -> None:
    ran = pm("ls", disk)
    assert ran.status == 0
    assert [line.split()[0] for line in ran.lines] == ["VOLUME", "disk0p1", "disk0p2", "disk0p3"]
    assert [item["volume"] for item in pm("ls", disk, "--json").objects()] == [
        "disk0p1", "disk0p2", "disk0p3",
    ]  # fmt: skip


@pytest.mark.parametrize("volume", ["disk0p2", "system", "18430710-ad0a-4aaa-8a8a-0000000000ad"])
def test_ls_prints_names_sorted(disk: Path, volume: str) -> None:
    ran = pm("ls", disk, f"{volume}:{ADA}")
    assert ran.status == 0
    assert ran.lines == sorted(row["path"].rpartition("/")[2] for row in seen("disk0p2", ADA, direct=True).values())
    assert "caf\\xe9.txt" in ran.lines


def test_ls_of_a_volume_by_its_bare_name_is_its_root(disk: Path) -> None:
    assert sorted(pm("ls", disk, "boot").lines) == sorted(path[1:] for path in seen("disk0p1", direct=True))


@pytest.mark.parametrize(
    ("volume", "folder"),
    [
        ("disk0p1", "/"),
        ("disk0p1", "/EFI/engine"),
        ("disk0p2", "/"),
        ("disk0p2", ADA),
        ("disk0p3", "/"),
        ("disk0p3", "/Contracts"),
        ("disk0p3", "/Database"),
    ],
)
def test_ls_json_says_all_that_others_say(disk: Path, volume: str, folder: str) -> None:
    ran = pm("ls", disk, f"{volume}:{folder}", "--json")
    truth = seen(volume, folder, direct=True)
    items = ran.objects()
    assert [item["path"] for item in items] == sorted(truth)
    for item in items:
        check_row(item, truth[item["path"]])


def test_a_name_that_is_no_text_comes_escaped_with_its_bytes(disk: Path) -> None:
    items = {item["name"]: item for item in pm("ls", disk, f"system:{ADA}", "--json").objects()}
    assert base64.b64decode(items["caf\\xe9.txt"]["name_raw"]) == b"caf\xe9.txt"
    assert not any("name_raw" in item for name, item in items.items() if name != "caf\\xe9.txt")
    assert pm("cat", disk, f"system:{ADA}/caf\\xe9.txt").text == "a name from before everyone agreed on UTF-8\n"


def test_ls_long_has_aligned_columns(disk: Path) -> None:
    ran = pm("ls", "-l", disk, f"system:{ADA}")
    truth = seen("disk0p2", ADA, direct=True)
    ends = set()
    for line, path in zip(ran.lines, sorted(truth), strict=True):
        row = truth[path]
        mode, links, uid, gid, size, time, name = line.split(None, 6)
        assert mode == stat.filemode(row["mode"])
        assert [int(links), int(uid), int(gid), int(size)] == [row["nlink"], row["uid"], row["gid"], row["size"]]
        assert time == datetime.fromtimestamp(row["mtime_ns"] // 10**9, UTC).strftime("%Y-%m-%dT%H:%MZ")
        assert name == path.rpartition("/")[2] + (f" -> {row['target']}" if "target" in row else "")
        ends.add(line.index(time))
    assert len(ends) == 1


def test_ls_long_can_round_sizes(disk: Path) -> None:
    [line] = pm("ls", "-lh", disk, "system:/var/lib/engine").lines
    assert "  8 MiB " in line or " 8 MiB " in line


def test_ls_of_a_file_is_that_file(disk: Path) -> None:
    [item] = pm("ls", disk, f"system:{LETTER}", "--json").objects()
    check_row(item, seen("disk0p2")[LETTER])
    assert pm("ls", disk, f"system:{LETTER}").lines == ["to-babbage.txt"]


def test_ls_follows_a_link_to_a_folder(disk: Path) -> None:
    assert pm("ls", disk, f"system:{ADA}/notes/letters").lines == ["to-babbage.txt"]


def test_ls_recursive_lists_every_folder_once(disk: Path) -> None:
    ran = pm("ls", "-R", disk, "system:/")
    assert ran.status == 0
    truth = seen("disk0p2")
    folders = {"/"} | {path for path, row in truth.items() if row["type"] == "dir"}
    blocks = ran.text.rstrip("\n").split("\n\n")
    listed: dict[str, list[str]] = {}
    for block in blocks:
        head, *names = block.split("\n")
        assert head.startswith("disk0p2:/")
        assert head.endswith(":")
        listed[head.removeprefix("disk0p2:")[:-1]] = names
    assert listed.keys() == folders
    assert len(blocks) == len(folders)
    for folder, names in listed.items():
        assert names == sorted(path.rpartition("/")[2] for path in seen("disk0p2", folder, direct=True))


@pytest.mark.parametrize("volume", ["disk0p1", "disk0p2", "disk0p3"])
def test_ls_recursive_json_has_every_file(volume: str, disk: Path) -> None:
    items = pm("ls", "-R", "--json", disk, f"{volume}:/").objects()
    truth = seen(volume)
    assert sorted(item["path"] for item in items) == sorted(truth)
    for item in items:
        check_row(item, truth[item["path"]])


# -- stat, cat -------------------------------------------------------------------------------------------------------


def test_stat_json_is_exact(disk: Path) -> None:
    paths = [LETTER, "/etc/localtime", "/var/lib/engine/store.db", f"{ADA}/notes/note-g.py", "/tmp"]
    items = pm("stat", "--json", disk, *(f"system:{path}" for path in paths)).objects()
    truth = seen("disk0p2")
    for item, path in zip(items, paths, strict=True):
        check_row(item, truth[path])
        raw = {name: base64.b64decode(value).hex() for name, value in item["xattrs"].items()}
        assert raw == truth[path].get("xattrs", {})
    assert items[3]["modified"].endswith(".123456789Z")


def test_stat_tells_streams_and_attributes_of_ntfs(disk: Path) -> None:
    truth = seen("disk0p3")
    paths = ["/Downloads/form.txt", "/Contracts/desktop.ini", "/Logs/backup.log", "/Database/ledger.db"]
    for item, path in zip(pm("stat", "--json", disk, *(f"Data:{p}" for p in paths)).objects(), paths, strict=True):
        check_row(item, truth[path])
        assert item["flags"] & 0xFFFF == truth[path]["flags"]
        streams = {stream["name"]: stream["size"] for stream in item["streams"]}
        assert streams == {name: stream["size"] for name, stream in truth[path].get("streams", {}).items()}


def test_stat_for_people(disk: Path) -> None:
    ran = pm("stat", disk, f"system:{LETTER}", "system:/etc/localtime")
    assert ran.status == 0
    letter, link = ran.text.split("\n\n")
    facts = dict(line.split(None, 1) for line in letter.splitlines())
    assert facts["path"] == f"disk0p2:{LETTER}"
    assert facts["size"] == "559 bytes"
    assert facts["mode"] == "-rw-r--r-- (0644)"
    assert facts["owner"] == "1000:1000"
    assert facts["modified"] == "1953-07-10T09:00:00.000000000Z"
    assert "sent 10 July 1843" in letter
    assert "symlink -> /usr/share/zoneinfo/Europe/London" in link


def test_stat_follows_when_told(disk: Path) -> None:
    [item] = pm("stat", "-L", "--json", disk, f"system:{ADA}/latest").objects()
    assert item["type"] == "file"
    assert item["inode"] == seen("disk0p2")[f"{ADA}/notes/note-g.py"]["ino"]


@pytest.mark.parametrize("volume", ["disk0p1", "disk0p2", "disk0p3"])
def test_cat_writes_the_bytes(volume: str, disk: Path) -> None:
    for path, row in seen(volume).items():
        if row["type"] == "file" and not re.search("/(number|invoice)-", path):
            ran = pm("cat", disk, f"{volume}:{path}")
            assert ran.status == 0
            assert hashlib.sha256(ran.out).hexdigest() == row["sha256"], path


def test_cat_joins_files_and_follows_links(disk: Path) -> None:
    ran = pm("cat", disk, "system:/etc/hostname", f"system:{ADA}/latest")
    assert ran.out.startswith(b"engine\n")
    truth = seen("disk0p2")[f"{ADA}/notes/note-g.py"]
    assert hashlib.sha256(ran.out[len(b"engine\n") :]).hexdigest() == truth["sha256"]


def test_cat_json_carries_bytes_in_base64(disk: Path) -> None:
    items = pm("cat", "--json", disk, "boot:/vmlinuz-6.1.0-engine").objects()
    assert len(items) > 1
    content = b""
    for item in items:
        assert item["offset"] == len(content)
        content += base64.b64decode(item["data"])
    assert hashlib.sha256(content).hexdigest() == seen("disk0p1")["/vmlinuz-6.1.0-engine"]["sha256"]


# -- find ------------------------------------------------------------------------------------------------------------


def found(disk: Path, *args: str) -> set[str]:
    ran = pm("find", disk, "system:/", *args)
    assert ran.status == 0, ran.err
    assert len(set(ran.lines)) == len(ran.lines)
    return {line.removeprefix("disk0p2:") for line in ran.lines}


def wanted(*conditions: Any) -> set[str]:
    return {path for path, row in seen("disk0p2").items() if all(condition(path, row) for condition in conditions)}


def name_of(path: str) -> str:
    return path.rpartition("/")[2]


def test_find_alone_finds_everything(disk: Path) -> None:
    assert found(disk) == wanted()


def test_find_by_name(disk: Path) -> None:
    assert found(disk, "--name", "*.txt") == wanted(lambda p, r: p.endswith(".txt"))
    assert found(disk, "--name", "*.TXT") == set()
    assert found(disk, "--iname", "*.TXT") == wanted(lambda p, r: p.endswith(".txt"))
    assert found(disk, "--name", "number-0[1-3]*") == {f"{ADA}/punched-cards/number-0{i}.txt" for i in (1, 2, 3)}


def test_find_by_regex_searches_the_path(disk: Path) -> None:
    assert found(disk, "--regex", r"/ssh/.*_config$") == {"/etc/ssh/sshd_config"}


@pytest.mark.parametrize(
    ("letters", "words"), [("f", {"file"}), ("d", {"dir"}), ("l", {"symlink"}), ("f,l", {"file", "symlink"})]
)
def test_find_by_type(disk: Path, letters: str, words: set[str]) -> None:
    assert found(disk, "--type", letters) == wanted(lambda p, r: r["type"] in words)


def test_find_by_size_concerns_files(disk: Path) -> None:
    assert found(disk, "--min-size", "4K") == wanted(lambda p, r: r["type"] == "file" and r["size"] >= 4096)
    assert found(disk, "--max-size", "26") == wanted(lambda p, r: r["type"] == "file" and r["size"] <= 26)
    assert found(disk, "--min-size", "8MiB", "--max-size", "8M") == {"/var/lib/engine/store.db"}
    assert found(disk, "--max-size", "15", "--type", "l") == wanted(
        lambda p, r: r["type"] == "symlink" and r["size"] <= 15
    )


def test_find_by_time(disk: Path) -> None:
    edge = int(datetime(2024, 2, 29, 18, 30, tzinfo=UTC).timestamp()) * 10**9
    assert found(disk, "--newer", "2024-02-29T18:30") == wanted(lambda p, r: r["mtime_ns"] >= edge)
    assert found(disk, "--newer", "2024-02-29T19:30:00.5+01:00") == wanted(
        lambda p, r: r["mtime_ns"] >= edge + 5 * 10**8
    )
    assert found(disk, "--older", "2024-02-29T18:30") == wanted(lambda p, r: r["mtime_ns"] < edge)
    assert found(disk, "--older", "1960-01-01") == {LETTER}


def test_find_without_a_path_searches_all_volumes_and_its_lines_can_be_given_back(disk: Path) -> None:
    lines = pm("find", disk, "--type", "f").lines
    assert {line.partition(":")[0] for line in lines} == {"disk0p1", "disk0p2", "disk0p3"}
    for line in lines:
        if not re.search("/(number|invoice)-", line):
            volume, _, path = line.partition(":")
            assert hashlib.sha256(pm("cat", disk, line).out).hexdigest() == seen(volume)[path]["sha256"]


def test_find_json_and_long(disk: Path) -> None:
    items = pm("find", "--json", disk, f"system:{ADA}", "--name", "n*").objects()
    truth = {path: row for path, row in seen("disk0p2", ADA).items() if name_of(path).startswith("n")}
    assert {item["path"] for item in items} == truth.keys()
    for item in items:
        check_row(item, truth[item["path"]])
    [line] = pm("find", "-l", disk, "system:/etc", "--type", "l").lines
    assert line.startswith("lrwxrwxrwx")
    assert line.endswith("disk0p2:/etc/localtime -> /usr/share/zoneinfo/Europe/London")


# -- parsers, version, counters --------------------------------------------------------------------------------------


def test_parsers_lists_the_plug_ins() -> None:
    items = pm("parsers", "--json").objects()
    assert {"format", "parser"} == {item["kind"] for item in items}
    ext = next(item for item in items if item["name"] == "ext")
    assert ext["class"] == "pseudomount_ext:ExtParser"
    assert ext["distribution"] == "pseudomount"
    assert any(line.split()[:2] == ["parser", "ext"] for line in pm("parsers").lines)


def test_version() -> None:
    from pseudomount import __version__

    assert pm("--version").text == f"pseudomount {__version__}\n"


def test_counters_go_to_stderr(disk: Path) -> None:
    ran = pm("ls", "--counters", disk, "boot:/grub")
    assert ran.lines == ["grub.cfg"]
    [line] = ran.err.splitlines()
    name, rest = line.split(": ")
    assert name == "disk0"
    assert [part.split(" ", 1)[-1].split()[-1] for part in rest.split(", ")] == [
        "requests",
        "fetched",
        "delivered",
        "hits",
    ]
    assert int(rest.split()[0]) > 0


def test_a_named_parser_is_used(disk: Path) -> None:
    assert pm("ls", "--parser", "ext", disk, "system:/etc/ssh").lines == ["sshd_config"]
    ran = pm("ls", "--parser", "nonsense", disk, "boot:/grub")
    assert ran.status == 2
    assert "nonsense" in ran.err
