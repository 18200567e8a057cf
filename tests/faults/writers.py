"""Every other command that writes: struck at each of its calls, then given again.

Imports, compaction, purge, feedback, gate, baseline, dashboard and drift, in a store that has
runs, calls of production, labels, feedback and what a dead process has left. What was there before
stays, the command ends as if nothing had happened, and nothing half-written is left behind.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from evalkit.store.anchor_looks import anchor_looks
from evalkit.store.call_log import segments_folder
from evalkit.store.input_profiles import saved_days
from evalkit.store.rows import encode_row
from evalkit.store.views import open_store
from tests.cli.test_judge import JUDGE, OWN
from tests.faults.forks import Ended
from tests.faults.layer import Fault
from tests.faults.table import Bench, Found, Scenario
from tests.faults.world import RUN, make_baseline, make_project
from tests.store.journal_lines import AT, call, plain

DAY = 86_400_000_000
ANNS_WORDS = b"ann said so"
COMMANDS: dict[str, tuple[str, ...]] = {
    "logs import": ("logs", "import", "calls.jsonl", "--format", "evalkit"),
    "label import": ("label", "import", "labels.jsonl"),
    "logs compact": ("logs", "compact", "--keep", "1m"),
    "purge": ("purge", "--user", "ann"),
    "logs feedback": ("logs", "feedback", "bob-0", "--label", "down"),
    "gate": ("gate",),
    "baseline set": ("baseline", "set", "latest"),
    "dashboard": ("dashboard", "--html", "page.html"),
    "drift": ("drift", "--judges"),
}
MODES = ("torn", "power", "enospc")
MORE = 2
"""Times the places of other faults: there are many commands."""

State = Counter[str]


def crash_in_a_writer(bench: Bench, *, mode: str) -> None:
    """At each call of each command in turn, and with the power cut after its last."""
    template = bench.root / "template"
    template.mkdir()
    make_store(template, bench)
    whole = {name: uninterrupted(bench, template, argv) for name, argv in COMMANDS.items()}
    places = [(name, at) for name, one in whole.items() for at in one.places]
    chosen = [places[n] for n in bench.some(range(len(places)), times=MORE)]
    for name, at in [*chosen, *((name, -1) for name in COMMANDS if mode == "power")]:
        with bench.fault(f"{mode} at call {at} of {name}") as found:
            folder = bench.copy(template)
            fault = Fault(folder=str(folder), at=at, mode=mode)
            ended = bench.forks.run(folder, *COMMANDS[name], fault=fault)
            found.wrong(ended.crashed, f"no error message but {ended}")
            found.wrong(mode != "enospc" and ended.hit and not ended.killed, str(ended))
            check_end(found, folder, bench, name, ended, whole[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A command that nothing happened to."""

    status: int
    places: list[int]
    before: State
    after: State


def uninterrupted(bench: Bench, template: Path, argv: tuple[str, ...]) -> Whole:
    folder = bench.copy(template)
    before = state_of(folder)
    ended = bench.forks.run(folder, *argv, fault=Fault(folder=str(folder)))
    assert not ended.crashed, ended
    every = bench.places is None
    return Whole(
        status=ended.status,
        places=list(range(1, ended.calls + 1)) if every else ended.places,
        before=before,
        after=state_of(folder),
    )


def check_end(
    found: Found, folder: Path, bench: Bench, name: str, ended: Ended, whole: Whole
) -> None:
    """As it was left, as it is when the command is given again, and what lies about then."""
    now = state_of(folder)
    found.wrong(ended.status == 0 and now != whole.after, "exit 0, not done")
    check_between(found, now, whole.before, whole.after)
    again = bench.forks.run(folder, *COMMANDS[name])
    found.lost(again.status != whole.status, f"given again: {again}")
    check_done(found, state_of(folder), whole.after)
    bench.forks.run(folder, "logs", "compact")
    check_nothing_left(found, folder, is_purged=name == "purge")


def make_store(folder: Path, bench: Bench) -> None:
    """A project with two runs, production, labels, feedback; and the files to be imported."""
    make_project(folder)
    add_anchored_judge(folder)
    make_baseline(folder, bench.forks)
    bench.forks.run(folder, *RUN)
    store = open_store(folder / ".evalkit")
    for number in range(3):
        rows = [said(user, number, at=AT + number // 2 * DAY) for user in ("ann", "bob")]
        store.add_calls(f"log-{number}", rows)
    store.add_labels("people", [label("first")])
    store.add_feedback("ann-0", label="up", comment=ANNS_WORDS.decode(), user_id="ann")
    segments_folder(store.path).mkdir(mode=0o700)
    left = b"".join(encode_row(said(user, 9), "calls") + b"\n" for user in ("ann", "bob"))
    (segments_folder(store.path) / "left.jsonl").write_bytes(left + b'{"half a li')
    to_import = [said("cid", number, at=AT + number * DAY) for number in range(4)]
    _write(folder / "calls.jsonl", to_import)
    _write(folder / "labels.jsonl", [label("second") | {"labelled_at": "2026-01-01T00:00:00Z"}])


def add_anchored_judge(folder: Path) -> None:
    """A judge in process, with anchors that it has never graded."""
    with (folder / "evalkit.toml").open("a", encoding="utf-8") as file:
        file.write(OWN)
    (folder / "judges").mkdir()
    (folder / "judges" / "same.yaml").write_text(JUDGE, encoding="utf-8")
    words = ("on Monday", "on Tuesday")
    _write(
        folder / "judges" / "same.anchors.jsonl",
        [
            {"id": f"a-{n}", "input": {}, "output": f"It comes {words[n % 2]}.",
             "expected": f"It comes {words[0]}.", "first": {}}
            for n in range(6)
        ],
    )  # fmt: skip


def said(user: str, number: int, *, at: int = AT) -> dict[str, Any]:
    words = f"{user} said so"
    return plain(call(trace_id=f"{user}-{number}", user_id=user, ts=at, output=words))


def label(label_id: str) -> dict[str, Any]:
    return {
        "label_id": label_id, "trace_id": "bob-1", "metric": "tone", "score": 1.0,
        "passed": True, "annotator": "dora", "comment": "fine", "labelled_at": AT,
    }  # fmt: skip


def _write(path: Path, rows: Iterable[object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


# --- what is there ------------------------------------------------------------------------

QUERIES = {
    "calls": "SELECT * EXCLUDE (latency_ms, ttft_ms, ts) FROM calls WHERE user_id IS NOT NULL",
    "calls of runs": "SELECT trace_id FROM calls WHERE user_id IS NULL",
    "scores": "SELECT run_id, case_id, metric, score FROM scores",
    "labels": "SELECT label_id, comment FROM labels",
    "feedback": "SELECT DISTINCT trace_id, label, comment FROM feedback",
    "verdicts": "SELECT DISTINCT verdict, comparison_verdict, metric FROM verdicts",
}
"""`DISTINCT` where a command that is given again says it again."""
EVERYTHING = " UNION ALL ".join(
    f"SELECT '{view}: ' || (of_view::VARCHAR) AS said FROM ({query}) AS of_view"
    for view, query in QUERIES.items()
)


def state_of(folder: Path) -> State:
    """What a store shows, row by row, and what it says is damaged."""
    store = open_store(folder / ".evalkit")
    rows = Counter(row["said"] for row in store.sql(EVERYTHING))
    rows.update(f"baseline: {one}" for one in store.baselines.all().items())
    for date, counted in saved_days(store):
        rows.update(f"inputs of {date}: {one}" for one in counted)
    for look in anchor_looks(store):
        rows.update(f"anchor of {look.judge}: {one}" for one in look.scores.items())
    rows.update(f"problem: {one}" for one in store.problems)
    page = folder / "page.html"
    if page.exists():
        is_whole = page.read_text(encoding="utf-8").rstrip().endswith("</html>")
        rows["page" if is_whole else "half a page"] += 1
    return rows


def check_between(found: Found, now: State, before: State, after: State) -> None:
    """What was struck shows what was before or what comes after, a part of either, nothing else."""
    missing = (before & after) - now
    found.lost(bool(missing), f"gone: {list(missing)[:2]}")
    surplus = now - (before | after)
    found.lost(bool(surplus), f"neither before nor after: {list(surplus)[:2]}")


def check_done(found: Found, now: State, expected: State) -> None:
    found.lost(bool(expected - now), f"missing: {list(expected - now)[:2]}")
    found.lost(bool(now - expected), f"too much: {list(now - expected)[:2]}")


def check_nothing_left(found: Found, folder: Path, *, is_purged: bool) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    half = [str(path) for path in files if path.suffix == ".tmp"]
    found.lost(bool(half), f"left behind: {half}")
    if is_purged:
        telling = [str(path) for path in files if ANNS_WORDS in path.read_bytes()]
        found.wrong(bool(telling), f"purged words are in {telling}")


SCENARIOS: dict[str, Scenario] = {
    f"writers: {mode}": partial(crash_in_a_writer, mode=mode) for mode in MODES
}
