"""A web server on loopback that gives ranges, counts what it is asked, and misbehaves when told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: `path` with its query, `headers` by small letters."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass(slots=True)
class Answer:
    """What is sent. `cut` bytes at the end of the body are kept back, and the connection ends."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int = 0


#: Changes an answer, or makes another one; may wait.
Trick = Callable[[Request, Answer], Answer]


class WebServer:
    """Objects by path ("/folder/name", decoded), each bytes or a file.

    Attributes:
        objects: what there is.
        requests: what was asked so far.
        sent: bytes of bodies sent so far.
        trick: what is done to each answer.
        tags, dates: whether answers have an ETag and a date of change; `honour` whether conditions are looked at.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes | Path] = {}
        self.requests: list[Request] = []
        self.sent = 0
        self.trick: Trick | None = None
        self.tags = self.dates = self.honour = True
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one packet an answer: else the small ones wait for an acknowledgement

            def _serve(self) -> None:
                headers = {key.lower(): value for key, value in self.headers.items()}
                request = Request(self.command, self.path, headers)
                self.rfile.read(int(headers.get("content-length", "0")))
                answer = server._answer(request)
                self.send_response(answer.status)
                for key, value in answer.headers.items():
                    self.send_header(key, value)
                if "Content-Length" not in answer.headers:
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body[: len(answer.body) - answer.cut])
                if answer.cut:
                    self.close_connection = True

            do_GET = do_HEAD = do_POST = do_PUT = do_PROPFIND = _serve  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that went away

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the server; answers that wait are let go."""
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def clear(self) -> None:
        """Begins to count anew."""
        with self._lock:
            self.requests, self.sent = [], 0

    def _answer(self, request: Request) -> Answer:
        answer = self._plain(request)
        if self.trick is not None:
            answer = self.trick(request, answer)
        with self._lock:
            self.requests.append(request)
            self.sent += len(answer.body)
        return answer

    def _plain(self, request: Request) -> Answer:
        content = self.objects.get(unquote(request.path.partition("?")[0]))
        if content is None:
            return Answer(404, body=b"<Error><Code>NoSuchKey</Code></Error>")
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        headers = {"Accept-Ranges": "bytes"}
        if self.tags:
            mark = content if isinstance(content, bytes) else str(content).encode()
            headers["ETag"] = f'"{md5(mark, usedforsecurity=False).hexdigest()}"'
        if self.dates:
            headers["Last-Modified"] = "Wed, 21 Oct 2015 07:28:00 GMT"
        if request.method == "HEAD":
            return Answer(200, {**headers, "Content-Length": str(size)})
        wanted = request.headers.get("if-match")
        if self.honour and wanted is not None and wanted != headers.get("ETag"):
            return Answer(412)
        asked = request.headers.get("range")
        if asked is None:
            return Answer(200, headers, _part(content, 0, size))
        first, _, last = asked.removeprefix("bytes=").partition("-")
        begin, end = int(first), min(int(last) + 1, size)
        if begin >= size:
            return Answer(416, {"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        return Answer(206, headers, _part(content, begin, end))


def _part(content: bytes | Path, begin: int, end: int) -> bytes:
    if isinstance(content, bytes):
        return content[begin:end]
    with content.open("rb") as file:
        file.seek(begin)
        return file.read(end - begin)


@contextmanager
def web_server() -> Iterator[WebServer]:
    """A server for as long as the block."""
    server = WebServer()
    try:
        yield server
    finally:
        server.close()
