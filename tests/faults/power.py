"""A disk that keeps what was synced and nothing else: what a power cut leaves behind.

POSIX's least promise. A file has the bytes of its last `fsync`; a name is there if its
folder was synced since, whatever the folder itself was called then. With `names` the other
half of what may happen: every name is there already, and what was written behind it is not.
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
        self._entries: dict[int, dict[str, int]] = {}
        """Inode of a folder -> the names in it that are certain, each with its inode."""
        for folder, _, files in os.walk(root):
            self._entries[os.stat(folder).st_ino] = _listing(folder)
            for name in files:
                path = os.path.join(folder, name)
                self._bytes[os.stat(path).st_ino] = Path(path).read_bytes()

    def done(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        """Note what a call that went through has made certain."""
        if name == "mkdir":
            self._entries[os.stat(arguments[0]).st_ino] = {}
        elif name == "open" and len(arguments) > 1 and arguments[1] & os.O_CREAT:
            state = os.fstat(result)
            if state.st_size == 0:
                self._bytes[state.st_ino] = b""  # the inode may have been another file's
                self._entries.pop(state.st_ino, None)
        elif name == "fsync":
            self._sync(arguments[0])

    def _sync(self, descriptor: int) -> None:
        path, inode = f"/proc/self/fd/{descriptor}", os.fstat(descriptor).st_ino
        if os.path.isdir(path):
            self._entries[inode] = _listing(path)
        else:
            with open(path, "rb") as file:
                self._bytes[inode] = file.read()

    def lose_power(self) -> None:
        """Leave under the root what is certain. The process has to end here."""
        top = os.stat(self._root).st_ino
        if self._names_survive:
            self._entries = {
                os.stat(folder).st_ino: _listing(folder) for folder, _, _ in os.walk(self._root)
            }
        # Moved away first: another thread may still be writing into it.
        now = self._root.with_name(self._root.name + ".before-the-cut")
        self._root.rename(now)
        self._restore(self._root, top)
        shutil.rmtree(now, ignore_errors=True)

    def _restore(self, folder: Path, inode: int) -> None:
        folder.mkdir()
        for name, of_entry in self._entries[inode].items():
            if of_entry in self._entries:
                self._restore(folder / name, of_entry)
            else:
                (folder / name).write_bytes(self._bytes.get(of_entry, b""))


def _listing(folder: str) -> dict[str, int]:
    return {entry.name: entry.inode() for entry in os.scandir(folder)}
