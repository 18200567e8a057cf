"""Command lines in processes of their own that start in milliseconds, with or without a fault.

A server process has imported everything and done nothing; for each command line it forks
a child, which puts the fault layer in place and calls `evalkit.cli.main`. A child that is
killed takes nobody with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from tests.faults.layer import Counter, Fault, Layer

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT_S = 240.0
PRELOAD = (
    "evalkit.cli.run", "evalkit.cli.gate", "evalkit.cli.baseline", "evalkit.cli.query",
    "evalkit.cli.purge", "evalkit.cli.summary", "evalkit.cli.stop_early", "evalkit.session",
    "evalkit.cli.logs", "evalkit.cli.label", "evalkit.cli.show", "evalkit.cli.dashboard",
    "evalkit.exchange.logs", "evalkit.exchange.labels", "evalkit.score.label_queue",
    "evalkit.forgetting", "evalkit.store.retention", "evalkit.store.compaction",
    "evalkit.store.tallies", "evalkit.dashboard.page", "evalkit.decide.alerts",
    "evalkit.decide.gate", "evalkit.decide.render", "evalkit.decide.terminal",
    "evalkit.exchange.baseline_file", "evalkit.exchange.results", "evalkit.store.sealing",
    "evalkit.store.call_log", "evalkit.call.templating", "evalkit.call.providers.python",
    "evalkit.call.providers.openai", "jinja2.sandbox", "jsonschema", "yaml", "tomllib",
    "rich.progress", "uvloop", "aiohttp", "pyarrow.parquet", "pyarrow.json", "duckdb",
    "pandas", "sqlite3",
    "tests.faults.apps",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command line ended."""

    status: int
    """Exit status; minus the signal's number where one killed it."""
    output: str
    errors: str
    calls: int
    """Calls that the fault layer has counted."""
    places: list[int]
    """Those of them that are not in the middle of a series of the same to the same file."""
    hit: bool
    """Whether the fault came."""

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL

    @property
    def crashed(self) -> bool:
        """Whether it ended as no command may: by a traceback, or after too long."""
        return "Traceback (most recent call last)" in self.errors or self.status == -signal.SIGALRM

    def json(self) -> Any:
        return json.loads(self.output)

    def __str__(self) -> str:
        return f"status {self.status}: {self.errors.strip()[-600:]}"


class Forks:
    """The server, as a context manager. One command line at a time, or several at once."""

    def __enter__(self) -> Forks:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks"],
            cwd=CHECKOUT,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate(timeout=LIMIT_S)

    def run(self, folder: Path, *argv: str, fault: Fault | None = None) -> Ended:
        """One evalkit command line, in `folder`."""
        return self.at_once(folder, [argv], fault=fault)[0]

    def at_once(
        self, folder: Path, lines: Sequence[Sequence[str]], *, fault: Fault | None = None
    ) -> list[Ended]:
        """Several, started together; `fault` for each."""
        asked = {
            "folder": str(folder),
            "lines": [list(argv) for argv in lines],
            "fault": fault and fault.as_json(),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the server of command lines has ended; see its stderr")
        return [Ended(**one) for one in json.loads(answer)]


# --- the server ------------------------------------------------------------------------


def serve() -> None:
    """Read what is asked, a line each, until there is no more."""
    from importlib import import_module

    for name in PRELOAD:
        import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        children = [_Child(asked["folder"], argv, asked["fault"]) for argv in asked["lines"]]
        for child in children:
            child.start()
        print(json.dumps([child.wait() for child in children]), flush=True)


class _Child:
    def __init__(self, folder: str, argv: list[str], fault: dict[str, Any] | None) -> None:
        self._folder, self._argv = folder, argv
        self._fault = None if fault is None else Fault(**fault)
        self._counter = Counter()
        self._files = [tempfile.TemporaryFile() for _ in ("output", "errors")]  # noqa: SIM115

    def start(self) -> None:
        self._pid = os.fork()
        if self._pid == 0:
            self._live()

    def _live(self) -> NoReturn:
        status = 70
        try:
            for number, file in enumerate(self._files, start=1):
                os.dup2(file.fileno(), number)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.chdir(self._folder)
            layer = self._fault and Layer(self._fault, self._counter).install()
            from evalkit.cli.main import main

            status = main(self._argv)
            if layer:
                layer.end()
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def wait(self) -> dict[str, Any]:
        deadline = time.monotonic() + LIMIT_S
        while True:
            pid, raw = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGALRM)
                _, raw = os.waitpid(self._pid, 0)
                break
            time.sleep(0.002)
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
            file.close()
        calls, hit = self._counter.get()
        return {
            "status": os.waitstatus_to_exitcode(raw),
            "output": texts[0],
            "errors": texts[1],
            "calls": calls,
            "places": self._counter.places(),
            "hit": hit,
        }


if __name__ == "__main__":
    serve()
