"""What the operating system may do to a store: the n-th call fails, tears, kills, or cuts power.

Put around the `os` functions of a process made for it (`tests.faults.forks`). Calls that
touch files under one folder are counted, in the order they happen, whatever they are; all
others go through untouched.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import signal
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from tests.faults.power import Disk

COUNTED = (
    "write", "fsync", "ftruncate", "open", "link", "rename", "replace", "unlink", "mkdir",
)  # fmt: skip
MODES = ("kill", "torn", "power", "power names", "eio", "enospc")
"""What is done at the n-th call. kill: the process dies before it; torn: in the middle of it;
power: before it, and what was not synced is gone as well, `names` excepted. eio: it fails,
once. enospc: it and all that take space after it fail, half of a write still fits."""
MAX_CALLS = 100_000
_HEAD = 16
_TAKES_SPACE = {"write", "open", "link", "mkdir"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens at which call; at 0 counts only, at -1 is after the last."""

    folder: str
    at: int = 0
    mode: str = "kill"
    errno: int = 0
    """For mode `all`: every counted call that changes something fails with it."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Counter:
    """Calls counted so far, in memory that outlives a killed child; and whether the fault came."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _HEAD + MAX_CALLS)

    def add(self, *, is_new: bool) -> int:
        """Count a call; `is_new` unless it does the same to the same file as the one before."""
        calls, hit = self.get()
        self._memory[_HEAD + calls] = is_new
        self._memory[:_HEAD] = struct.pack("qq", calls + 1, hit)
        return calls + 1

    def strike(self) -> None:
        self._memory[:_HEAD] = struct.pack("qq", self.get()[0], True)

    def get(self) -> tuple[int, bool]:
        calls, hit = struct.unpack("qq", self._memory[:_HEAD])
        return calls, bool(hit)

    def places(self) -> list[int]:
        """The calls that differ from the one before or after; from 1."""
        calls, _ = self.get()
        new = [*self._memory[_HEAD : _HEAD + calls], 1]
        return [n for n in range(1, calls + 1) if new[n - 1] or new[n]]


class Layer:
    """The layer around this process's `os`; there is no way back."""

    def __init__(self, fault: Fault, counter: Counter) -> None:
        self._fault = fault
        self._counter = counter
        self._last: tuple[str, str | None] | None = None
        self._full = False
        self._root = os.path.realpath(fault.folder)
        self._real = {name: getattr(os, name) for name in COUNTED}
        self._io_open = io.open
        self._disk: Disk | None = None
        if fault.mode.startswith("power"):
            self._disk = Disk(Path(self._root), names=fault.mode == "power names")

    def install(self) -> Layer:
        for name in COUNTED:
            setattr(os, name, self._around(name))
        io.open = self._open_file  # type: ignore[assignment]
        return self

    def end(self) -> None:
        """The command has ended; nothing was kept from it, and now the power is cut."""
        if self._disk is not None and self._fault.at == -1:
            self._real_again()
            self._disk.lose_power()

    def _real_again(self) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)
        io.open = self._io_open

    def _around(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(*arguments: Any, **options: Any) -> Any:
            if not self._concerns(name, arguments):
                return real(*arguments, **options)
            self._before(name, arguments)
            result = real(*arguments, **options)
            if self._disk is not None:
                self._disk.done(name, arguments, result)
            return result

        return call

    def _open_file(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if set(mode) & set("wax+") and not isinstance(file, int) and self._is_inside(file):
            self._before("open", (file, os.O_WRONLY))
        return self._io_open(file, mode, *arguments, **options)

    def _concerns(self, name: str, arguments: tuple[Any, ...]) -> bool:
        if name == "open" and len(arguments) > 1 and not arguments[1] & (os.O_WRONLY | os.O_RDWR):
            return False
        return self._is_inside(arguments[0])

    def _is_inside(self, what: Any) -> bool:
        path = self._path(what)
        return path is not None and (path == self._root or path.startswith(self._root + os.sep))

    def _path(self, what: Any) -> str | None:
        if not isinstance(what, int):
            return os.path.join(os.getcwd(), os.fspath(what))
        try:
            return os.readlink(f"/proc/self/fd/{what}")
        except OSError:
            return None

    def _before(self, name: str, arguments: tuple[Any, ...]) -> None:
        fault = self._fault
        what = (name, self._path(arguments[0]))
        now = self._counter.add(is_new=what != self._last) == fault.at
        self._last = what
        if now:
            self._counter.strike()
        if fault.mode == "all" or (self._full and name in _TAKES_SPACE):
            raise OSError(fault.errno or errno.ENOSPC, os.strerror(fault.errno or errno.ENOSPC))
        if now:
            self._strike(name, arguments)

    def _strike(self, name: str, arguments: tuple[Any, ...]) -> None:
        mode = self._fault.mode
        if mode in ("torn", "enospc") and name == "write":
            data = memoryview(arguments[1]).cast("B")
            self._real["write"](arguments[0], data[: len(data) // 2])
        if self._disk is not None:
            self._real_again()
            self._disk.lose_power()
            _die()
        if mode in ("kill", "torn"):
            _die()
        if mode == "enospc":
            self._full = True
            if name not in _TAKES_SPACE:
                return
        code = errno.ENOSPC if mode == "enospc" else errno.EIO
        raise OSError(code, os.strerror(code))


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed")
