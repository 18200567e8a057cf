"""What goes wrong with an archive that somebody else packed, damaged or made up."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib

BROKEN: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    KeyError,
    ValueError,
    RuntimeError,
)
"""RuntimeError: encrypted, or (NotImplementedError) packed in a way that this Python has not."""
