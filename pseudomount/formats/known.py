"""Containers known by their magic numbers, whether or not this version opens them.

A container must never be taken for a raw disk: its tables would be browsed as if they were the disk's bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KNOWN", "TAIL", "Known", "recognise"]

#: Bytes from the end of a file in which some formats keep their magic number.
TAIL = 512


@dataclass(frozen=True, slots=True)
class Known:
    """A container format.

    Attributes:
        name: as the field calls it.
        magic: its bytes.
        offset: where they are; negative: from the end of the file.
        advice: what to do with such a file; "{}" is the file's name.
    """

    name: str
    magic: bytes
    offset: int = 0
    advice: str = "convert it with: qemu-img convert -O raw {} {}.raw"


_EWF = "convert it with: ewfexport -f raw {}"
_UNPACK = "unpack it first"
_RESTORE = "restore the disk from it with the tool that made it"

#: Sources: QEMU docs/interop (qcow2.rst, qed_spec.rst, parallels.rst); VMware Virtual Disk Format 5.0; [MS-VHDX] 2.1;
#: Microsoft VHD specification 1.0; VirtualBox VDICore.h; libewf, Expert Witness Compression Format; Apple UDIF "koly"
#: trailer; AFF, WIM and Android sparse headers; Proxmox vma_spec.txt and Proxmox Backup Server file-formats; POSIX
#: ustar; the RFCs and format descriptions of the compressors.
KNOWN: tuple[Known, ...] = (
    Known("QCOW", b"QFI\xfb\0\0\0\1"),
    Known("qcow2", b"QFI\xfb", advice="open it first, or by itself; or take its very bytes for the disk: format=raw"),
    Known("QED", b"QED\0"),
    Known("VMDK", b"KDMV"),
    Known("VMDK", b"COWD"),
    Known("VMDK", b"\xbe\xba\xfe\xca\0\0\0\0"),
    Known("VMDK", b"# Disk DescriptorFile"),
    Known("VHDX", b"vhdxfile"),
    Known("VHD", b"conectix"),
    Known("VHD", b"conectix", -512),
    # Virtual PC before 2004 wrote a footer of 511 bytes.
    Known("VHD", b"conectix", -511),
    Known("VDI", b"\x7f\x10\xda\xbe", 0x40),
    Known("Parallels disk", b"WithoutFreeSpace"),
    Known("Parallels disk", b"WithouFreSpacExt"),
    Known("Bochs disk", b"Bochs Virtual HD Image"),
    Known("EWF (E01)", b"EVF\x09\x0d\x0a\xff\x00", advice=_EWF),
    Known("EWF (L01)", b"LVF\x09\x0d\x0a\xff\x00", advice=_EWF),
    Known("EWF (Ex01)", b"EVF2\x0d\x0a\x81\x00", advice=_EWF),
    Known("EWF (Lx01)", b"LEF2\x0d\x0a\x81\x00", advice=_EWF),
    Known("AFF", b"AFF10\r\n\0", advice="convert it with: affconvert -r {}"),
    Known("DMG", b"koly\0\0\0\x04\0\0\x02\0", -512),
    Known("Proxmox VMA", b"VMA\0", advice="take the disks out with: vma extract {} FOLDER"),
    Known("Proxmox Backup index", b"\x2f\x7f\x41\xed\x91\xfd\x0f\xcd", advice=_RESTORE),
    Known("WIM", b"MSWIM\0\0\0", advice=_UNPACK),
    Known("Android sparse image", b"\x3a\xff\x26\xed\x01\0", advice="convert it with: simg2img {} {}.raw"),
    Known("tar", b"ustar\0", 257, _UNPACK),
    Known("tar", b"ustar ", 257, _UNPACK),
    Known("gzip", b"\x1f\x8b\x08", advice="unpack it with: gunzip {}"),
    Known("xz", b"\xfd7zXZ\0", advice="unpack it with: unxz {}"),
    Known("zstd", b"\x28\xb5\x2f\xfd", advice="unpack it with: unzstd {}"),
    Known("lz4", b"\x04\x22\x4d\x18", advice="unpack it with: unlz4 {}"),
    Known("lzop", b"\x89LZO\0\r\n\x1a\n", advice="unpack it with: lzop -d {}"),
    Known("bzip2", b"BZh", advice="unpack it with: bunzip2 {}"),
    Known("7z", b"7z\xbc\xaf\x27\x1c", advice=_UNPACK),
    Known("RAR", b"Rar!\x1a\x07", advice=_UNPACK),
    Known("ZIP", b"PK\x03\x04", advice=_UNPACK),
)


def recognise(head: bytes, tail: bytes = b"") -> Known | None:
    """The container whose magic number the file bears.

    Args:
        head: its first bytes; 512 are enough.
        tail: its last `TAIL` bytes.
    """
    for known in KNOWN:
        part, at = (head, known.offset) if known.offset >= 0 else (tail, len(tail) + known.offset)
        if at >= 0 and part[at : at + len(known.magic)] == known.magic:
            # "BZh" alone might be anything: the block size and the first block's magic follow (bzip2's only ones).
            if known.name == "bzip2" and head[4:10] not in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
                continue
            return known
    return None
