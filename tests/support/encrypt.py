"""Folders encrypted by the kernel (fscrypt), for tests of what is shown without the key."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

_ADD_KEY, _SET_POLICY = 0xC0506617, 0x800C6613  # FS_IOC_ADD_ENCRYPTION_KEY, FS_IOC_SET_ENCRYPTION_POLICY


def encrypted_folder(folder: Path, key: bytes = bytes(range(64))) -> bool:
    """Gives an empty folder an encryption policy of version 2 with AES-256; whether the kernel can."""
    if sys.platform != "linux":
        return False
    import fcntl

    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # fscrypt_add_key_arg: specifier (type 2: identifier, which the kernel fills in), length, key id, the key
        argument = bytearray(struct.pack("II32sII32s", 2, 0, b"", len(key), 0, b"") + key)
        fcntl.ioctl(here, _ADD_KEY, argument)
        # fscrypt_policy_v2: version, AES-256-XTS, AES-256-CTS, names padded to 32
        fcntl.ioctl(here, _SET_POLICY, struct.pack("5B3s16s", 2, 1, 4, 3, 0, b"", bytes(argument[8:24])))
    except OSError:
        return False
    finally:
        os.close(here)
    return True
