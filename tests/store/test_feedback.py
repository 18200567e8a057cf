"""What users said of answers later: kept whole, joined by trace id, forgotten when asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.cli.main import main
from evalkit.errors import ConfigError
from evalkit.store.feedback import add_feedback, feedback_folder, feedback_table
from evalkit.store.retention import PurgeRule, purge
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import AT, call, plain

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")
    opened = open_store(tmp_path / ".evalkit")
    opened.add_calls("log", [plain(call(trace_id=f"trace-{n}")) for n in range(3)])
    return opened


def options(store: Store) -> list[str]:
    return ["--config", str(store.path.parent / "evalkit.toml")]


def test_it_joins_its_call_in_sql(store: Store) -> None:
    store.add_feedback("trace-1", score=0.0, label="down")
    store.add_feedback("trace-1", score=1.0, comment="Better on second thought.")

    found = store.sql(
        "SELECT trace_id, feature, score, label, comment FROM calls JOIN feedback USING (trace_id)"
        " ORDER BY given_at"
    )

    assert [row["score"] for row in found] == [0.0, 1.0]
    assert found[0]["feature"] == "classify-ticket"
    assert (found[0]["label"], found[1]["comment"]) == ("down", "Better on second thought.")


def test_the_command_attaches_and_show_prints_it(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["--score", "0", "--label", "down", "--comment", "Mail me at ann@example.com"]

    assert main(["logs", "feedback", "trace-2", *said, "--json", *options(store)]) == 0
    assert json.loads(capsys.readouterr().out)["trace_id"] == "trace-2"
    assert main(["show", "trace-2", *options(store)]) == 0

    out = capsys.readouterr().out
    assert "feedback" in out
    assert "down" in out
    assert "ann@example.com" not in out
    assert b"ann@example.com" not in b"".join(
        path.read_bytes() for path in feedback_folder(store.path).iterdir()
    )


def test_a_call_that_is_not_there_is_an_error(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", "feedback", "elsewhere", "--label", "up", *options(store)]) == 2
    assert main(["logs", "feedback", "", "--label", "up", *options(store)]) == 2
    assert main(["logs", "feedback", "trace-", "--label", "up", *options(store)]) == 2

    err = capsys.readouterr().err
    assert "no call 'elsewhere'" in err
    assert "no call ''" in err
    assert "beginning of several" in err


@pytest.mark.parametrize(
    "said", [{}, {"score": 1.5}, {"score": float("nan")}, {"label": "x" * 101}, {"comment": ""}]
)
def test_what_cannot_be_meant_is_refused(store: Store, said: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        store.add_feedback("trace-1", **said)  # type: ignore[arg-type]

    assert len(store.feedback()) == 0


SAYS = """
import sys
from evalkit import open_store
store = open_store(sys.argv[1])
for number in range(25):
    store.add_feedback(f"{sys.argv[2]}-{number}", label="up", comment="x" * 6000)
"""


def test_many_processes_say_something_at_once(store: Store) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", SAYS, str(store.path), f"p{n}"], cwd=CHECKOUT)
        for n in range(4)
    ]
    assert [process.wait() for process in processes] == [0] * 4

    found = store.sql("SELECT count(*) n, count(DISTINCT trace_id) d FROM feedback")
    assert found == [{"n": 100, "d": 100}]


def test_a_half_written_line_spoils_neither_what_is_before_it_nor_after(store: Store) -> None:
    store.add_feedback("trace-0", label="up")
    (path,) = feedback_folder(store.path).iterdir()
    with path.open("ab") as file:
        file.write(b'{"feedback_id":"half","trace_')

    store.add_feedback("trace-1", label="up")

    assert [row["trace_id"] for row in store.sql("FROM feedback ORDER BY ALL")] == [
        "trace-0",
        "trace-1",
    ]


def test_a_purge_forgets_a_user_and_old_comments(store: Store) -> None:
    store.add_feedback("trace-0", label="up", comment="old words")
    store.add_feedback("trace-1", label="down", comment="theirs", user_id="ann")
    later = AT + 10**16

    assert purge(store, PurgeRule(user_ids=frozenset(["ann"])), dry_run=True).feedback_changed == 1
    assert purge(store, PurgeRule(user_ids=frozenset(["ann"]))).feedback_changed == 1
    assert purge(store, PurgeRule(texts_before=later)).feedback_changed == 1

    found = store.sql("SELECT trace_id, label, comment FROM feedback")
    assert found == [{"trace_id": "trace-0", "label": "up", "comment": None}]
    assert purge(store, PurgeRule(texts_before=later)).feedback_changed == 0


def test_a_line_torn_anywhere_is_silent_and_a_byte_flipped_anywhere_is_said(tmp_path: Path) -> None:
    add_feedback(tmp_path, "t-1", score=1.0, label="up")
    (path,) = feedback_folder(tmp_path).glob("*.jsonl")
    line = path.read_bytes()
    torn = [line[:at] for at in range(1, len(line))]
    flipped = [line[:at] + bytes([line[at] ^ 4]) + line[at + 1 :] for at in range(len(line))]

    def said_of(data: bytes) -> int:
        said: list[str] = []
        path.write_bytes(data)
        feedback_table(tmp_path, problem=said.append)
        return len(said)

    assert {said_of(line + half) for half in torn} == {0}
    assert {said_of(line + half + b"\n" + line) for half in torn} == {0}
    assert min(said_of(line + damaged) for damaged in flipped) == 1
