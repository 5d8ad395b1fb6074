"""Object stores, and such as misbehave: against servers on loopback that count requests and fail when told to."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from obstore.store import MemoryStore

from pseudomount import open_backup
from pseudomount.device import PseudoDisk
from pseudomount.errors import (
    AccessDeniedError,
    ObjectChangedError,
    ObjectNotFoundError,
    PseudomountError,
    StorageError,
    TransientStorageError,
    UnsupportedError,
    UsageError,
)
from pseudomount.extents import ColumnIndex
from pseudomount.findings import Severity
from pseudomount.storage import ObjectStore, Store
from pseudomount.storage.remote import connect, memory_store, parse_url
from tests.support.fixtures import fixture_image, fixture_manifest
from tests.support.s3 import Bucket
from tests.support.web import Answer, Request, WebServer, web_server

BIG = np.random.default_rng(5).bytes(400_000)
SECRET = "hush-hush-0123"


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as made:
        made.objects["/b/vm.img"] = BIG
        yield made


def store_of(server: WebServer, kind: str = "s3", **options: str) -> ObjectStore:
    """A store of the bucket "b" on that server; it retries quickly."""
    common = {"retry_delay": "1ms", "max_retries": "3", **options}
    if kind == "https":
        return connect(parse_url(f"{server.url}/b/vm.img"), common)
    options = {"endpoint": server.url, "anonymous": "true", **common}
    if kind == "az":
        options["account_name"] = "someone"
    return connect(parse_url(f"{kind}://b/vm.img"), options)


def key(kind: str) -> str:
    return "b/vm.img" if kind == "https" else "vm.img"


KINDS = pytest.mark.parametrize("kind", ["s3", "gs", "az", "https"])


# -- what is asked for ---------------------------------------------------------------------------------------------


@KINDS
def test_each_kind_of_store_reads_ranges_of_the_very_object(server: WebServer, kind: str) -> None:
    server.objects["/b/folder/vm.img"] = BIG[::-1]
    store, name = store_of(server, kind), key(kind)
    assert store.remote
    assert store.size(name) == len(BIG)
    assert [request.method for request in server.requests] == ["GET"]  # no HEAD
    assert store.read(name, 0, 65_536) == BIG[:65_536]
    assert store.read(name, 60_000, 5536) == BIG[60_000:65_536]
    assert len(server.requests) == 1  # they came with the size
    assert store.read_ranges(name, [(i * 70_000, 10) for i in range(5)]) == [
        BIG[i * 70_000 : i * 70_000 + 10] for i in range(5)
    ]
    assert sorted(request.headers["range"] for request in server.requests[1:]) == [
        f"bytes={i * 70_000}-{i * 70_000 + 9}"
        for i in (2, 3, 4, 1)  # as text sorts
    ]
    tags = {request.headers.get("if-match", "") for request in server.requests[1:]}
    assert len(tags) == 1
    assert tags.pop().strip('"')
    assert store.read(name.replace("vm", "folder/vm"), 1, 5) == BIG[::-1][1:6]
    store.close()


def test_what_lies_past_the_end_is_not_asked_for(server: WebServer) -> None:
    store = store_of(server)
    assert store.read("vm.img", 399_990, 1 << 60) == BIG[-10:]
    server.clear()
    assert store.read("vm.img", 400_000, 10) == b""
    assert not server.requests
    assert store.read("vm.img", 399_999, 10) == BIG[-1:]
    assert [request.headers["range"] for request in server.requests] == ["bytes=399999-399999"]


def test_opening_an_image_and_listing_its_root_takes_few_requests(server: WebServer) -> None:
    server.objects["/b/ext4.img"] = fixture_image("ext4")
    expected = sorted(row["path"] for row in fixture_manifest("ext4") if row["path"] and "/" not in row["path"])
    options = {"endpoint": server.url, "anonymous": "true"}
    with open_backup("s3://b/ext4.img", store_options=options) as backup:
        assert sorted(path.name for path in backup.browsable()[0].root.iterdir()) == expected
        counted = backup.disks["disk0"].counters
        assert not list(backup.findings)
    assert {request.method for request in server.requests} == {"GET"}
    assert all("range" in request.headers for request in server.requests)  # nothing is listed
    assert len(server.requests) <= 8
    assert server.sent <= 1 << 20
    assert counted.requests <= len(server.requests)


# -- servers that fail ---------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("status", [401, 403])
def test_access_denied(server: WebServer, kind: str, status: int) -> None:
    server.trick = lambda _, answer: Answer(status, body=f"<Error><Code>Nope</Code>{SECRET}</Error>".encode())
    store = store_of(server, kind)
    with pytest.raises(AccessDeniedError, match="access denied") as caught:
        store.size(key(kind))
    assert isinstance(caught.value, PermissionError)
    assert not caught.value.retryable
    assert len(server.requests) == 1
    assert SECRET not in str(caught.value)
    assert "vm.img" in str(caught.value)


@KINDS
def test_a_name_that_is_not_there(server: WebServer, kind: str) -> None:
    with pytest.raises(ObjectNotFoundError, match=r"none\.img does not exist"):
        store_of(server, kind).read("none.img", 0, 1)
    assert len(server.requests) == 1


def failing(times: int, status: int) -> Callable[[Request, Answer], Answer]:
    """Fails so often, then no more."""
    left = iter(range(times))
    return lambda _, answer: answer if next(left, None) is None else Answer(status)


@KINDS
@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_comes_to_its_senses(server: WebServer, kind: str, status: int) -> None:
    server.trick = failing(3, status)
    assert store_of(server, kind).read(key(kind), 5, 5) == BIG[5:10]
    assert len(server.requests) == 4


@KINDS
def test_a_server_that_keeps_failing_is_asked_so_often_and_no_more(server: WebServer, kind: str) -> None:
    server.trick = failing(1000, 500)
    with pytest.raises(TransientStorageError, match=r"500") as caught:
        store_of(server, kind, max_retries="2").size(key(kind))
    assert caught.value.retryable
    assert len(server.requests) == 3
    assert server.url not in str(caught.value) or kind == "https"


class Gone(Store):
    """Out of reach; it counts how often it is asked."""

    remote = True
    singles = batches = 0

    def size(self, name: str) -> int:
        return 1 << 20

    def read(self, name: str, offset: int, length: int, /) -> bytes:
        self.singles += 1
        raise TransientStorageError("out of reach")

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]], /) -> list[bytes]:
        self.batches += 1
        raise TransientStorageError("out of reach")

    def list(self, prefix: str = "") -> list[str]:
        return []


@pytest.mark.parametrize("names", [["vm.img"], ["vm.000", "vm.001"]])
def test_a_disk_gives_up_once_for_a_whole_batch(names: list[str]) -> None:
    store = Gone()
    index = ColumnIndex.concat([(name, 1 << 20) for name in names])
    with PseudoDisk(index, store, gap=0, cache_raw=False, threads=1) as disk:
        batch = disk.read_many(list(range(0, index.size, 2048)), [10] * (index.size // 2048))
    assert len(batch.errors) == index.size // 2048
    assert all(error.retryable for error in batch.errors.values())
    assert (store.singles, store.batches) == (0, 1)
    with PseudoDisk(index, store, gap=0, cache_raw=False, threads=1) as disk:
        store.singles = store.batches = 0
        disk.read_many([0, 5, index.size - 1], [1, 1, 1])
    assert store.singles + store.batches == 1


def test_a_server_that_hangs_is_not_waited_for(server: WebServer) -> None:
    def hang(_: Request, answer: Answer) -> Answer:
        server.stopping.wait(60)
        return answer

    server.trick = hang
    with pytest.raises(TransientStorageError, match="did not answer in time"):
        store_of(server, timeout="100ms", max_retries="1").size("vm.img")


def test_a_server_that_is_not_there() -> None:
    with web_server() as gone:
        pass
    with pytest.raises(TransientStorageError, match="cannot be reached"):
        store_of(gone, max_retries="1").size("vm.img")


@pytest.mark.parametrize(
    ("kind", "tags"), [("s3", True), ("s3", False), ("gs", True), ("az", True), ("https", True), ("https", False)]
)
def test_a_body_that_breaks_off(server: WebServer, kind: str, tags: bool) -> None:
    server.tags = tags
    store = store_of(server, kind)
    store.size(key(kind))

    def cut(_: Request, answer: Answer) -> Answer:
        answer.cut = 50
        return answer

    server.trick = cut
    with pytest.raises(TransientStorageError):
        store.read(key(kind), 100_000, 100)
    assert len(server.requests) < 20
    server.trick = None
    assert store.read(key(kind), 100_000, 100) == BIG[100_000:100_100]


@KINDS
def test_a_server_without_ranges_is_refused_and_nothing_is_downloaded(server: WebServer, kind: str) -> None:
    server.trick = lambda request, answer: (
        Answer(200, {"ETag": '"x"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, BIG)
        if request.method == "GET"
        else answer
    )
    with pytest.raises(UnsupportedError, match="does not give parts of files"):
        store_of(server, kind).size(key(kind))


@pytest.mark.parametrize("told", ["bytes 1-65536/400000", "bytes 0-65535/*", "bytes 0-10/400000", "rubbish", ""])
@KINDS
def test_a_server_that_tells_another_range(server: WebServer, kind: str, told: str) -> None:
    def lie(_: Request, answer: Answer) -> Answer:
        answer.headers["Content-Range"] = told
        return answer

    server.trick = lie
    with pytest.raises(StorageError) as caught:
        store_of(server, kind).size(key(kind))
    assert not caught.value.retryable


@pytest.mark.parametrize("total", [399_999, 400_001, 1 << 40])
def test_a_size_that_changes_between_answers(server: WebServer, total: int) -> None:
    server.tags = False
    store = store_of(server)
    store.size("vm.img")

    def lie(_: Request, answer: Answer) -> Answer:
        answer.headers["Content-Range"] = answer.headers["Content-Range"].rpartition("/")[0] + f"/{total}"
        return answer

    server.trick = lie
    with pytest.raises(ObjectChangedError):
        store.read("vm.img", 100_000, 10)


def test_a_redirect_is_followed(server: WebServer) -> None:
    def elsewhere(request: Request, answer: Answer) -> Answer:
        return Answer(302, {"Location": "/b/vm.img"}) if request.path.startswith("/old/") else answer

    server.trick = elsewhere
    store = connect(parse_url(f"{server.url}/old/disk.img"))
    assert store.size("old/disk.img") == len(BIG)
    assert store.read("old/disk.img", 300_000, 9) == BIG[300_000:300_009]


def test_a_bucket_of_another_region(server: WebServer) -> None:
    server.trick = lambda _, answer: Answer(301)
    with pytest.raises(StorageError, match="region"):
        store_of(server).size("vm.img")


# -- what changes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "signs"),
    [
        *((kind, signs) for kind in ("s3", "gs", "az", "https") for signs in ("tags and conditions", "tags")),
        ("s3", "dates"),
        ("https", "dates"),  # Google and Azure always give tags
    ],
)
def test_what_is_replaced_while_a_volume_is_browsed(server: WebServer, kind: str, signs: str) -> None:
    server.objects["/b/vm.img"] = fixture_image("ext4")
    server.tags = signs != "dates"
    server.honour = signs == "tags and conditions"
    url = f"{server.url}/b/vm.img" if kind == "https" else f"{kind}://b/vm.img"
    options = {} if kind == "https" else {"endpoint": server.url, "anonymous": "true"}
    if kind == "az":
        options["account"] = "someone"
    with open_backup(url, store_options=options) as backup:
        disk = backup.disks["disk0"]
        before = disk.read(0, 4096)
        server.objects["/b/vm.img"] = bytes(len(fixture_image("ext4")))
        if not server.tags:
            server.trick = lambda _, answer: Answer(
                answer.status, {**answer.headers, "Last-Modified": "Thu, 22 Oct 2015 07:28:00 GMT"}, answer.body
            )
        with pytest.raises(ObjectChangedError, match=r"vm\.img has changed"):
            disk.read(8 << 20, 4096)
        assert disk.read(0, 4096) == before  # what was cached is of the first object
        batch = disk.read_many([0, 12 << 20], [10, 10])
        assert list(batch.errors) == [1]
        assert isinstance(batch.errors[1], ObjectChangedError)


def test_a_weak_tag_is_compared_but_not_asked_for(server: WebServer) -> None:
    tag = 'W/"1"'

    def weak(_: Request, answer: Answer) -> Answer:
        answer.headers["ETag"] = tag
        return answer

    server.trick = weak
    store = store_of(server)
    assert store.read("vm.img", 100_000, 3) == BIG[100_000:100_003]
    assert not any("if-match" in request.headers for request in server.requests)
    tag = 'W/"2"'
    with pytest.raises(ObjectChangedError):
        store.read("vm.img", 100_000, 3)


def test_an_object_that_vanishes(server: WebServer) -> None:
    store = store_of(server)
    store.size("vm.img")
    del server.objects["/b/vm.img"]
    assert store.read("vm.img", 0, 5) == BIG[:5]  # kept
    for _ in range(2):
        with pytest.raises(ObjectNotFoundError, match="no longer there"):
            store.read("vm.img", 100_000, 5)


# -- pieces and listing --------------------------------------------------------------------------------------------


def test_the_pieces_of_a_split_image_are_found_by_one_listing(bucket: Bucket) -> None:
    image = fixture_image("ext4")
    name = bucket.new()
    step = 3_000_000
    parts = [image[at : at + step] for at in range(0, len(image), step)]
    for i, part in enumerate(parts):
        bucket.put(name, f"backups/vm.{i:03}", part)
    for other in ("backups/vm-notes", "backups/vm.txt", "backups/zz", "aaa"):
        bucket.put(name, other, b"x")
    bucket.server.counts()
    with open_backup(f"s3://{name}/backups/vm.000", store_options=bucket.options) as backup:
        assert bucket.server.counts()[0] <= 4  # the first piece, the list, the end of the last piece
        disk = backup.disks["disk0"]
        assert disk.size == len(image)
        assert disk.read(2_999_990, 20) == image[2_999_990:3_000_010]
        assert not list(backup.findings)
    explicit = [f"s3://{name}/backups/vm.{i:03}" for i in range(len(parts))]
    with open_backup(*explicit, store_options=bucket.options) as backup:
        assert backup.disks["disk0"].read(0, len(image)) == image


def test_a_bucket_that_may_not_be_listed_is_a_note(server: WebServer) -> None:
    image = fixture_image("ext4")
    server.objects["/b/vm.000"] = image
    server.trick = lambda request, answer: Answer(403) if "list-type" in request.path else answer
    with open_backup("s3://b/vm.000", store_options={"endpoint": server.url, "anonymous": "1"}) as backup:
        assert backup.disks["disk0"].size == len(image)
        [note] = backup.findings
    assert note.severity is Severity.NOTE
    assert "more pieces" in note.message
    assert "access denied" in note.message
    with open_backup(f"{server.url}/b/vm.000") as backup:  # and a web server cannot
        assert [finding.severity for finding in backup.findings] == [Severity.NOTE]
    assert {request.method for request in server.requests} == {"GET"}


def test_a_listing_is_bounded() -> None:
    memory = MemoryStore()
    for i in range(20_001):
        memory.put(f"f/{i:05}", b"")
    with pytest.raises(UnsupportedError, match="too many"):
        ObjectStore(memory).list("f/")


def test_a_listing_skips_what_sorts_before_and_ends_after(bucket: Bucket) -> None:
    name = bucket.new()
    for i in range(30):
        for stem in ("a", "vm", "z"):
            bucket.put(name, f"d/{stem}.{i:02}", b"")
    store = connect(parse_url(f"s3://{name}/x"), bucket.options)
    assert store.list("d/vm.") == [f"d/vm.{i:02}" for i in range(30)]
    assert store.list("d/vm.1") == [f"d/vm.{i:02}" for i in range(10, 20)]
    bucket.server.counts()
    assert store.size("d/vm.17") == 0
    assert bucket.server.counts()[0] == 0


def test_a_listing_asks_for_no_more_pages_than_it_needs() -> None:
    asked: list[dict[str, object]] = []

    class S3Store:
        def get(self) -> None:
            raise AssertionError

        def list(self, **options: object) -> Iterator[list[dict[str, object]]]:
            asked.append(options)
            yield [{"path": f"d/vm.{i:03}", "size": 1} for i in range(1000)]
            yield [{"path": "d/vm.zz", "size": 1}, {"path": "d/vn", "size": 1}]
            raise AssertionError

    assert len(ObjectStore(S3Store()).list("d/vm.")) == 1001  # type: ignore[arg-type]
    assert asked == [{"prefix": "d", "chunk_size": 1000, "offset": "d/vm-~"}]


def test_an_object_that_changed_since_it_was_listed(bucket: Bucket) -> None:
    name = bucket.new()
    bucket.put(name, "vm.00", b"12345")
    store = connect(parse_url(f"s3://{name}/x"), bucket.options)
    store.list("vm.")
    bucket.put(name, "vm.00", b"1234567")
    with pytest.raises(ObjectChangedError):
        store.read("vm.00", 0, 5)


# -- in memory, and stores handed over -----------------------------------------------------------------------------


def test_memory_urls_name_one_store_for_the_process() -> None:
    memory_store("lab").put("folder/vm.img", fixture_image("ext4"))
    assert memory_store("lab") is memory_store("lab")
    with open_backup("memory://lab/folder/vm.img") as backup:
        assert backup.browsable()[0].root.exists()
    with pytest.raises(ObjectNotFoundError):
        open_backup("memory://lab/none")
    with pytest.raises(ObjectNotFoundError):
        open_backup("memory://other/folder/vm.img")
    with pytest.raises(UsageError, match="'region'"):
        open_backup("memory://lab/folder/vm.img", store_options={"region": "x"})


def test_a_store_that_is_handed_over(server: WebServer) -> None:
    memory = MemoryStore()
    memory.put("a/vm.img", fixture_image("ext4"))
    ours = ObjectStore(memory, remote=True)
    for store in (memory, ours):
        with open_backup("a/vm.img", store=store) as backup:
            assert backup.browsable()[0].root.exists()
    assert ours.read("a/vm.img", 0, 1024) == bytes(1024)
    with pytest.raises(ObjectNotFoundError, match=r"a/none: no such file"):
        open_backup("a/none", store=memory)
    for wrong in (
        lambda: open_backup("a", store=memory, store_options={"region": "x"}),
        lambda: open_backup("a", store=object()),  # type: ignore[arg-type]
        lambda: open_backup((ColumnIndex.single("a", 1), ours), store=memory),
        lambda: ObjectStore(memory, threads=0),
    ):
        with pytest.raises(UsageError):
            wrong()


# -- secrets and threads -------------------------------------------------------------------------------------------


def messages(error: BaseException | None) -> str:
    """All that a traceback of an error would print."""
    import traceback

    assert error is not None
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 412, 416, 500])
def test_secrets_are_not_told(server: WebServer, status: int) -> None:
    port = server.url.rpartition(":")[2]
    url = f"http://someone:{SECRET}1@127.0.0.1:{port}/b/vm.img?signature={SECRET}2"
    location = parse_url(url)
    store = connect(location, {"max_retries": "0", "header.X-Token": f"{SECRET}3"})
    assert store.read("b/vm.img", 100_000, 5) == BIG[100_000:100_005]
    for request in server.requests:
        assert request.path == f"/b/vm.img?signature={SECRET}2"
        assert request.headers["authorization"].startswith("Basic ")
        assert request.headers["x-token"] == f"{SECRET}3"
    server.trick = lambda request, answer: Answer(status, body=f"<Code>{SECRET}</Code>{request.path}".encode())
    store_in_s3 = store_of(server, anonymous="no", access_key_id=f"{SECRET}4", secret_access_key=f"{SECRET}5")
    told = repr(store) + repr(store_in_s3) + repr(location) + str(location)
    for each, name in ((store, "b/vm.img"), (store_in_s3, "vm.img")):
        with pytest.raises(PseudomountError) as caught:
            each.read(name, 200_000, 5)
        told += messages(caught.value)
    with pytest.raises(PseudomountError) as caught:
        open_backup(url, store_options={"max_retries": "0"})
    told += messages(caught.value)
    assert SECRET not in told.replace(f"{SECRET}</Code>", "")


def test_no_thread_stays_after_closing(server: WebServer) -> None:
    store = store_of(server)
    store.read_ranges("vm.img", [(100_000, 5), (200_000, 5)])
    mine = [thread for thread in threading.enumerate() if thread.name.startswith("pseudomount-store")]
    assert mine
    store.close()
    assert not any(thread.is_alive() for thread in mine)
    assert store.read_ranges("vm.img", [(100_000, 5), (200_000, 5)]) == [BIG[100_000:100_005], BIG[200_000:200_005]]
    del store
    gc.collect()


def test_one_range_that_fails_fails_the_call_and_the_rest_is_not_asked_for(server: WebServer) -> None:
    store = store_of(server, max_retries="0")
    store.size("vm.img")
    server.clear()
    server.trick = failing(1, 400)
    with pytest.raises(StorageError):
        store.read_ranges("vm.img", [(100_000 + i, 1) for i in range(2000)])
    store.close()
    assert len(server.requests) < 2000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_can_close_what_its_parent_opened(server: WebServer) -> None:
    store = store_of(server)
    store.read_ranges("vm.img", [(100_000, 5), (200_000, 5)])
    child = os.fork()
    if not child:
        store.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert store.read("vm.img", 300_000, 2) == BIG[300_000:300_002]
    store.close()
