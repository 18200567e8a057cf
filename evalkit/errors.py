"""Every error evalkit raises on purpose, and the exit code each ends with.

    EvalkitError                 2
    ├── ConfigError              2   evalkit.toml, command line, environment; 3 of a full disk,
    │                            and of a SQLite file that is damaged
    ├── ContentError             2   prompts, judges, templates
    ├── GoldenSetError           2   golden sets and their cases
    ├── InputFileError           2   results, labels or logs of another tool
    ├── StoreError               2   the store cannot be written or read at all; 3 of a full disk
    │   └── DamagedStore         3   a file in the store is not what was sealed
    ├── NotComparable            3   nothing to compare, or not fairly
    ├── Interrupted            130   Ctrl-C or SIGTERM left nothing to go on with
    └── CallError                -   one call failed; `kind` is a row of the failure table

`cli.main` is the one place that turns them into text and a status.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

EXIT_PASS = 0
EXIT_REGRESSION = 1
EXIT_USAGE = 2
EXIT_UNMEASURABLE = 3
EXIT_INTERRUPTED = 130


def shown(text: object, *, but: str = "") -> str:
    """Text as a terminal may print it: control and direction characters as escapes.

    Those in `but` stay.
    """
    return "".join(
        char if char.isprintable() or char in but else char.encode("unicode_escape").decode("ascii")
        for char in str(text)
    )


class EvalkitError(Exception):
    """Root of the tree. The message says where, what, and what would be right.

    It names what files of others say: as text, that does nothing to a terminal.
    """

    exit_code = EXIT_USAGE

    def __str__(self) -> str:
        return shown(super().__str__(), but="\n\t")


class Problems(EvalkitError):
    """Several problems found in one pass over a file, shown together.

    `problems` holds one `file:line: problem. fix` line each.
    """

    def __init__(self, problems: Sequence[str] | str) -> None:
        lines = problems.split("\n") if isinstance(problems, str) else problems
        self.problems = tuple(map(shown, lines))
        super().__init__("\n".join(self.problems))


class ConfigError(Problems):
    """`evalkit.toml`, an option or an environment variable cannot be used."""


OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
"""What a file system answers where nobody can be told to name another file."""


def cannot_be_written(where: str, error: OSError, advice: str = "") -> ConfigError:
    """The error for a file of the user's choice; 3 of a disk that is full or fails."""
    refused = ConfigError(f"{where}: cannot be written: {error.strerror}.{advice}")
    if error.errno in OF_THE_DISK:
        refused.exit_code = EXIT_UNMEASURABLE
    return refused


class ContentError(Problems):
    """A prompt, judge or template file cannot be used."""


class GoldenSetError(Problems):
    """A golden set cannot be used."""


class InputFileError(EvalkitError):
    """A file of results, labels or logs cannot be read as what it should be."""


class StoreError(EvalkitError):
    """The store cannot be used: no such run, no space, no permission, too new."""


class NotComparable(EvalkitError):
    """Two sides cannot be compared fairly, or one of them is not there."""

    exit_code = EXIT_UNMEASURABLE


class Interrupted(EvalkitError):
    """Ctrl-C or SIGTERM ended what the command needs, or would not wait for what was in flight."""

    exit_code = EXIT_INTERRUPTED


class DamagedStore(StoreError):
    """A sealed file is missing or differs from the checksum in its manifest."""

    exit_code = EXIT_UNMEASURABLE


class CallError(EvalkitError):
    """One attempt, or one call, did not give a usable answer.

    `kind` is a row of the failure table (`evalkit.call.failures`); `status` the
    HTTP status where there was one; `retry_after_s` what the provider asked for;
    `had_begun` whether some of an answer had come; `was_sent` whether the request may have
    gone out before its connection was lost; `own` whether it came of this call's own time or
    reader, so that an equal call may fare better; `events` what a guard saw that blocks.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.retry_after_s = retry_after_s
        self.had_begun = False
        self.was_sent = False
        self.own = False
        self.events: tuple[str, ...] = ()
