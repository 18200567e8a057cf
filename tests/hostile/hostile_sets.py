"""Golden sets made to harm whoever reads them, and a process that tries to run each.

`python -m tests.hostile.hostile_sets URL FOLDER` prints a line of JSON for each: exit status, what
was said, the seconds and the MB it took.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from evalkit.cli.main import main
from tests.hostile.memory import peak_mb
from tests.project import case, write_project

MB = 1_000_000
SET = Path("golden_sets/tickets")


def line(**changes: object) -> str:
    return json.dumps(case(0) | changes) + "\n"


def cases(text: str | bytes) -> Callable[[Path], None]:
    """What stands in cases.jsonl."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return lambda folder: (folder / SET / "cases.jsonl").write_bytes(data) and None


def header(old: str, new: str) -> Callable[[Path], None]:
    """One change of golden_set.yaml."""

    def change(folder: Path) -> None:
        path = folder / SET / "golden_set.yaml"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return change


def schema(value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / SET / "label.schema.json").write_text(json.dumps(value), encoding="utf-8")

    return change


def linked(folder: Path) -> None:
    path = folder / SET / "cases.jsonl"
    path.unlink()
    path.symlink_to("/dev/zero")


def long_line(folder: Path) -> None:
    with (folder / SET / "cases.jsonl").open("wb") as file:
        file.write(b'{"id": "')
        for _ in range(100):
            file.write(b"x" * MB)
        file.write(b'"}\n')


def bad_lines(folder: Path) -> None:
    with (folder / SET / "cases.jsonl").open("wb") as file:
        for _ in range(1000):
            file.write(b"{\n" * 1000)


def sparse(folder: Path) -> None:
    """A file of 2 GB that takes no room on the disk."""
    with (folder / SET / "cases.jsonl").open("wb") as file:
        file.truncate(2000 * MB)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
CHECK = "{name: shape, check: json_schema, schema: label.schema.json}"

SETS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a line of 100 MB": (long_line, "longer than 1 MB"),
    "a file of 2 GB": (sparse, "larger than 100 MB"),
    "a device": (linked, "leads out of the project"),
    "a million bad lines": (bad_lines, "not valid JSON"),
    "nested 100,000 deep": (cases('{"id": "a", "input": ' + "[" * 100_000), "nested deeper"),
    "an id twice": (cases(line() + line()), "t-0000"),
    "a key twice": (cases('{"id": "a", "id": "b", "input": {"text": "x"}}\n'), "stands twice"),
    "NaN": (cases(line()[:-2] + ', "expected": NaN}\n'), "NaN is not JSON"),
    "a number without end": (cases(line()[:-2] + ', "x": ' + "9" * 5000 + "}\n"), "digits"),
    "NUL": (cases('{"id": "a\\u0000b", "input": {"text": "x"}}\n'), "id"),
    "half a character": (cases('{"id": "a", "input": {"text": "\\ud800"}}\n'), "surrogate"),
    "bytes that are no text": (cases(b'{"id": "\xff"}\n'), "not UTF-8"),
    "a byte order mark": (cases("\ufeff" + line()), "byte order mark"),
    "an id of 300 characters": (cases(line(id="x" * 300)), "id"),
    "an id that hides": (cases(line(id="a\u202eb")), "id"),
    "an unknown key": (cases(line(expectd={"label": "billing"})), "expectd"),
    "nothing": (cases(""), "no cases"),
    "billion laughs": (header("name: tickets", f"name: tickets\n{BOMB}"), "anchor &a"),
    "cyclic anchors": (header("feature: classify", "feature: &a [*a]"), "anchor &a"),
    "an object of Python": (
        header("name: tickets", "name: !!python/object/apply:os.system [id]"),
        "tag ",
    ),
    "cases outside": (header("cases: cases.jsonl", "cases: /etc/passwd"), "cases"),
    "cases above": (header("cases: cases.jsonl", "cases: ../../../secret.jsonl"), "cases"),
    "a pattern that hangs others": (
        header(CHECK, "{name: shape, check: regex, pattern: '(a+)+\\1$'}"),
        "pattern",
    ),
    "a schema elsewhere": (schema({"$ref": "http://127.0.0.1:9/schema.json"}), "$ref"),
    "a schema of the disk": (schema({"$ref": "file:///etc/passwd"}), "$ref"),
    "a schema above": (header("schema: label", "schema: ../../label"), "schema"),
    "a misspelt check": (header("check: equals", "check: equal"), "equal"),
    "a misspelt key": (header("gate: true", "gated: true"), "gated"),
}
"""What it is -> how a sound project becomes it, and what has to be said."""


def attempt(name: str, folder: Path, url: str) -> dict[str, object]:
    write_project(folder, base_url=url, cases=2)
    SETS[name][0](folder)
    said = io.StringIO()
    began = time.process_time()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        status = main(["run", "--config", str(folder / "evalkit.toml")])
    return {
        "name": name,
        "status": status,
        "said": said.getvalue()[:3000],
        "took_s": round(time.process_time() - began, 3),
        "peak_mb": round(peak_mb(), 1),
    }


if __name__ == "__main__":
    url, root = sys.argv[1], Path(sys.argv[2])
    for number, name in enumerate(SETS):
        sys.stdout.write(json.dumps(attempt(name, root / str(number), url)) + "\n")
