"""Buckets of a real S3 server: moto's, in a process of its own on loopback, one for each worker of the tests.

Objects are put there without any code of ours or of obstore's.
"""

from __future__ import annotations

import itertools
import urllib.request
from dataclasses import dataclass
from urllib.parse import quote

from benchmarks.s3_server import S3Server

_NUMBERS = itertools.count()


@dataclass(slots=True)
class Bucket:
    """Makes buckets and objects on a server that is running."""

    server: S3Server

    @property
    def options(self) -> dict[str, str]:
        """Store options that lead there."""
        return {**self.server.options, "retry_delay": "5ms", "max_retries": "2"}

    def new(self) -> str:
        """The name of a new bucket."""
        name = f"bucket-{next(_NUMBERS)}"
        self._ask("PUT", name)
        return name

    def put(self, bucket: str, key: str, content: bytes) -> str:
        """Lays an object, or another in its place; its URL."""
        self._ask("PUT", f"{bucket}/{quote(key)}", content)
        return f"s3://{bucket}/{key}"

    def delete(self, bucket: str, key: str) -> None:
        """Takes an object away."""
        self._ask("DELETE", f"{bucket}/{quote(key)}")

    def _ask(self, method: str, path: str, body: bytes = b"") -> None:
        # moto looks at who asks, not at the signature.
        credential = "Credential=anyone/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        headers = {"Content-Type": "application/octet-stream", "Authorization": f"AWS4-HMAC-SHA256 {credential}"}
        request = urllib.request.Request(f"{self.server.address}/{path}", body, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
