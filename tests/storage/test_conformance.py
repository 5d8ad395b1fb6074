"""One suite for every store: this machine's folders, memory, a web server, and S3 as moto's server speaks it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from obstore.store import HTTPStore, MemoryStore
from obstore.store import LocalStore as ObstoreLocalStore

from pseudomount.storage import LocalStore, ObjectStore, Store
from pseudomount.storage.remote import connect, parse_url
from pseudomount.testing.store_conformance import StoreConformance
from tests.support.s3 import Bucket
from tests.support.web import WebServer, web_server


class Folder(StoreConformance):
    root: Path

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.root = tmp_path

    def lay(self, contents: Mapping[str, bytes]) -> Path:
        self.count = getattr(self, "count", 0) + 1
        self.here = self.root / str(self.count)
        for name, content in contents.items():
            path = self.here / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return self.here

    def replace(self, name: str, content: bytes) -> None:
        (self.here / "new").write_bytes(content)
        (self.here / "new").replace(self.here / name)

    def remove(self, name: str) -> None:
        (self.here / name).unlink()


class TestLocalStore(Folder):
    def make(self, contents: Mapping[str, bytes]) -> Store:
        return LocalStore(self.lay(contents), check_every=0)

    def replace(self, name: str, content: bytes) -> None:
        (self.here / name).write_bytes(content)


class TestObstoreFolder(Folder):
    def make(self, contents: Mapping[str, bytes]) -> Store:
        return ObjectStore(ObstoreLocalStore(self.lay(contents)))


class TestMemory(StoreConformance):
    def make(self, contents: Mapping[str, bytes]) -> Store:
        self.memory = MemoryStore()
        for name, content in contents.items():
            self.memory.put(name, content)
        return ObjectStore(self.memory)

    def replace(self, name: str, content: bytes) -> None:
        self.memory.put(name, content)

    def remove(self, name: str) -> None:
        self.memory.delete(name)


class Web(StoreConformance):
    lists = False
    server: WebServer

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        with web_server() as server:
            self.server = server
            yield

    def make(self, contents: Mapping[str, bytes]) -> Store:
        self.server.objects = {f"/b/{name}": content for name, content in contents.items()}
        return ObjectStore(self.obstore(), url=self.server.url)

    def obstore(self) -> HTTPStore:
        return HTTPStore(f"{self.server.url}/b", client_options={"allow_http": True}, retry_config={"max_retries": 0})

    def replace(self, name: str, content: bytes) -> None:
        self.server.objects[f"/b/{name}"] = content

    def remove(self, name: str) -> None:
        del self.server.objects[f"/b/{name}"]


class TestWeb(Web):
    pass


class TestWebThatHeedsNoConditions(Web):
    @pytest.fixture(autouse=True)
    def _heedless(self, _server: None) -> None:
        self.server.honour = False


class TestS3(StoreConformance):
    examples = 5
    bucket: Bucket

    @pytest.fixture(autouse=True)
    def _bucket(self, bucket: Bucket) -> None:
        self.bucket = bucket

    def make(self, contents: Mapping[str, bytes]) -> Store:
        self.name = self.bucket.new()
        for name, content in contents.items():
            self.bucket.put(self.name, name, content)
        return connect(parse_url(f"s3://{self.name}/x"), self.bucket.options)

    def replace(self, name: str, content: bytes) -> None:
        self.bucket.put(self.name, name, content)

    def remove(self, name: str) -> None:
        self.bucket.delete(self.name, name)
