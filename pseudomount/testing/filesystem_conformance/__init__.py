"""What every FileSystem must do, as a suite to subclass. Needs pytest.

    class TestMyParser(FileSystemConformance):
        def parser(self) -> Parser:
            return MyParser()

        def device(self) -> BlockDevice:
            return MemoryDevice(Path("image").read_bytes())

        def manifest(self) -> Mapping[bytes, Expected]:      # what another reader saw in the same image
            return {b"etc/fstab": Expected("file", size=31, sha256="…"), …}

Without a manifest the suite compares the file system with itself: batches with single questions, data runs with what
`open` gives, many threads with one; and it damages the image to see that only a `PseudomountError` leaves the parser,
and in bounded time and memory. The image should be small (up to some 32 MiB), for it is copied into memory often.
"""

from pseudomount.testing.filesystem_conformance._batches import BatchTests, NameTests
from pseudomount.testing.filesystem_conformance._content import ContentTests
from pseudomount.testing.filesystem_conformance._hostile import HostileTests
from pseudomount.testing.filesystem_conformance._identity import IdentityTests
from pseudomount.testing.filesystem_conformance._kit import BoundedDevice, Expected
from pseudomount.testing.filesystem_conformance._nonsense import NonsenseTests

__all__ = ["BoundedDevice", "Expected", "FileSystemConformance"]


class FileSystemConformance(IdentityTests, BatchTests, NameTests, ContentTests, NonsenseTests, HostileTests):
    """Tests of one parser on one sound image.

    Attributes:
        known_failures: test → why it fails. Such a test must fail: one that passes is a failure.
        sample: how many files the tests look at that ask file by file.
        rounds: how many damaged images of each kind are tried.
        memory: bytes that browsing one damaged image may take at most, beside the image itself.
    """
