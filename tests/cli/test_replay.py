"""`evalkit replay`: what an on-call engineer and a script see of it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from evalkit.call.orchestrator import Orchestrator
from evalkit.cli.main import main
from evalkit.config import load_settings
from evalkit.records import CallRecord
from evalkit.store.views import open_store
from tests.call.scripted import Scripted, answer
from tests.project import write_project

BILLING, DELIVERY = '{"label": "billing"}', '{"label": "delivery"}'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_project(tmp_path, cases=1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def log_call(project: Path, *texts: str) -> CallRecord:
    """A call that a scripted model answered with these texts, in the project's store."""
    orchestrator = Orchestrator(
        load_settings(project / "evalkit.toml"),
        providers={"app": Scripted([answer(text) for text in texts])},
    )
    record = asyncio.run(orchestrator.execute("classify", {"text": "on delivery"})).record
    open_store(project / ".evalkit").add_calls(record.trace_id, [asdict(record)])
    return record


def test_a_call_replays_from_the_store_without_asking_a_model(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = log_call(project, "not JSON", BILLING)

    status = main(["replay", record.trace_id, "--json"])

    shown = json.loads(capsys.readouterr().out)
    assert status == 0
    assert shown["same"] is True
    assert shown["differences"] == []
    assert shown["value"] == {"label": "billing"}
    assert shown["recorded"] == shown["replayed"]
    assert shown["replayed"]["attempts"] == ["small at app: answered"] * 2
    assert list(shown["stage_ms"]) == list(record.stage_ms)


def test_a_person_sees_attempts_and_the_outcome(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = log_call(project, BILLING)

    status = main(["replay", record.trace_id[:-1]])

    shown = capsys.readouterr().out
    assert status == 0
    assert "attempt 1: small at app: answered" in shown
    assert "recorded: ok, served by small" in shown
    assert "replayed: the same" in shown


def test_a_decision_that_has_changed_fails(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = log_call(project, "not JSON", BILLING)
    config = project / "evalkit.toml"
    text = config.read_text(encoding="utf-8").replace("max_tokens = 64", "retries = 0")
    config.write_text(text, encoding="utf-8")

    status = main(["replay", record.trace_id])

    shown = capsys.readouterr().out
    assert status == 1
    assert "status: ok -> error" in shown
    assert "error_kind: - -> invalid_output" in shown


def test_another_pair_is_asked_and_its_answer_compared(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = log_call(project, BILLING)

    status = main(["replay", record.trace_id, "--against", "small/classify@v2", "--json"])

    shown = json.loads(capsys.readouterr().out)
    assert status == 0
    assert shown["value"] == {"label": "delivery"}
    assert shown["diff"][-4:] == [" {", '-  "label": "billing"', '+  "label": "delivery"', " }"]
    assert shown["diff"][1] == "+++ small/classify@v2"


def test_a_terminal_is_safe_from_what_a_model_wrote(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = log_call(project, '{"label": "billing", "x": "\\u001b[31m"}', BILLING)

    main(["replay", record.trace_id, "--against", "small/classify@v2"])

    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["0000"], "no call '0000'"),
        (["", "--json"], "several trace ids"),
    ],
)
def test_a_trace_that_is_not_one_call_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    log_call(project, BILLING)
    log_call(project, DELIVERY)

    status = main(["replay", *arguments])

    assert status == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("pair", ["small", "big/classify@v1", "small/classify@v9"])
def test_a_pair_that_is_not_there_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str], pair: str
) -> None:
    record = log_call(project, BILLING)

    status = main(["replay", record.trace_id, "--against", pair])

    assert status == 2
    assert capsys.readouterr().err.startswith("error: ")
