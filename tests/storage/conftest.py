"""The S3 server of these tests."""

from tests.support.s3_fixture import bucket, s3_server

__all__ = ["bucket", "s3_server"]
