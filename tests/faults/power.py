"""A disk that keeps what was synced and nothing else: what a power cut leaves behind.

POSIX's least promise. A file has the bytes of its last `fsync`; a name is there if its
folder was synced since. With `names` the other half of what may happen: every name is
there already, and what was written behind it is not.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any


class Disk:
    """Follows the calls under one folder, and can take it back to what is certain."""

    def __init__(self, root: Path, *, names: bool = False) -> None:
        self._root = root
        self._names_survive = names
        self._bytes: dict[int, bytes] = {}
        """Inode -> what of the file is certain."""
        self._entries: dict[str, dict[str, int]] = {}
        """Folder -> the names in it that are certain, each with its inode."""
        for folder, _, files in os.walk(root):
            self._entries[folder] = _listing(folder)
            for name in files:
                path = os.path.join(folder, name)
                self._bytes[os.stat(path).st_ino] = Path(path).read_bytes()

    def done(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        """Note what a call that went through has made certain."""
        if name == "open" and len(arguments) > 1 and arguments[1] & os.O_CREAT:
            state = os.fstat(result)
            if state.st_size == 0:
                self._bytes[state.st_ino] = b""  # the inode may have been another file's
        elif name == "fsync":
            path = os.readlink(f"/proc/self/fd/{arguments[0]}")
            if os.path.isdir(path):
                self._entries[path] = _listing(path)
            else:
                with open(f"/proc/self/fd/{arguments[0]}", "rb") as file:
                    self._bytes[os.fstat(arguments[0]).st_ino] = file.read()

    def lose_power(self) -> None:
        """Leave under the root what is certain. The process has to end here."""
        now = self._root.with_name(self._root.name + ".before-the-cut")
        self._root.rename(now)
        self._restore(str(self._root), now)
        shutil.rmtree(now)

    def _restore(self, folder: str, now: Path) -> None:
        certain = _listing(str(now)) if self._names_survive else self._entries.get(folder, {})
        os.mkdir(folder)
        is_folder = {entry.inode(): entry.is_dir() for entry in os.scandir(now)}
        for name, inode in certain.items():
            path = os.path.join(folder, name)
            if is_folder.get(inode) or (now / name).is_dir():
                self._restore(path, now / name)
            else:
                Path(path).write_bytes(self._bytes.get(inode, b""))


def _listing(folder: str) -> dict[str, int]:
    return {entry.name: entry.inode() for entry in os.scandir(folder)}
