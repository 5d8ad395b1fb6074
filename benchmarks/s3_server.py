"""An S3 server on this machine that counts what it is asked for: moto's, in a process of its own.

    python benchmarks/s3_server.py            # prints its address, and serves until it is ended

`S3Server` starts one, on a free port of the loopback address, and ends it. What it counts is what went over the wire:
every request, tries that failed included, and every byte of content that it sent. moto copies a whole object to answer
for a range of it, so the time that it takes says nothing. Needs moto[server] and obstore.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["BUCKET", "S3Server"]

BUCKET = "backups"
_COUNTS = "/-counts-"


class S3Server:
    """A context: an S3 server with one empty bucket.

    Attributes:
        address: "http://127.0.0.1:PORT".
    """

    def __init__(self) -> None:
        self.address = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, str(Path(__file__).resolve())]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            if self._process.stdout is None or not (line := self._process.stdout.readline()):
                raise RuntimeError("the S3 server did not start; it needs moto[server]")
            self.address = line.strip()
            self._ask(f"/{BUCKET}", "PUT")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    @property
    def options(self) -> dict[str, str]:
        """`store_options` of `open_backup`."""
        return {
            "endpoint": self.address,
            "region": "us-east-1",
            "access_key_id": "anyone",
            "secret_access_key": "anything",
        }

    def upload(self, file: Path, name: str) -> str:
        """Puts a file into the bucket; its URL."""
        from obstore.store import S3Store

        config: Any = self.options
        S3Store(BUCKET, config=config, client_options={"allow_http": True}).put(name, file)
        return f"s3://{BUCKET}/{name}"

    def counts(self) -> tuple[int, int]:
        """(requests, bytes sent) since it was asked last."""
        found = json.loads(self._ask(_COUNTS))
        return found["requests"], found["bytes"]

    def _ask(self, path: str, method: str = "GET") -> bytes:
        request = urllib.request.Request(self.address + path, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())


class _Counting:
    """A WSGI application around another that counts requests and bytes of answers."""

    def __init__(self, inner: Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._requests = self._bytes = 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == _COUNTS:
            with self._lock:
                said = json.dumps({"requests": self._requests, "bytes": self._bytes}).encode()
                self._requests = self._bytes = 0
            start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(said)))])
            return [said]
        with self._lock:
            self._requests += 1
        return self._passed_on(self._inner(environ, start))

    def _passed_on(self, answer: Iterable[bytes]) -> Iterator[bytes]:
        try:
            for part in answer:
                with self._lock:
                    self._bytes += len(part)
                yield part
        finally:
            close = getattr(answer, "close", None)
            if close is not None:
                close()


def main() -> None:
    """Serves until it is ended."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    app = _Counting(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
