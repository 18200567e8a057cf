"""Answers of another model than was asked: shown under its name, and no part of a verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.store.views import open_store
from tests.loopback import Behaviour, Loopback, Request, Rule
from tests.project import write_project

CASES = 100


def right(request: Request) -> dict[str, str]:
    question = request.json["messages"][-1]["content"]
    return {"label": "billing" if "billing" in question else "delivery"}


def wrong_from_another_model(number: int) -> Rule:
    """A gateway that serves case `number` by a model of its own choice, badly."""
    label = ("delivery", "billing")[number % 2]
    text = json.dumps({"label": label})
    return Rule(Behaviour(text=text, served_model="tiny-0"), case=f"t-{number:04d}")


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    assert main(["run", "golden_sets/tickets", "--json"]) == 0
    capsys.readouterr()
    status = main(["gate", "--json", *arguments])
    verdict: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, verdict


@pytest.mark.parametrize(
    ("substituted", "status", "said"),
    [(1, 0, "pass"), (20, 3, "unmeasurable")],
    ids=["one", "many"],
)
def test_wrong_answers_of_another_model_are_missing_and_not_a_regression(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    substituted: int,
    status: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with Loopback(answer=right) as server:
        write_project(tmp_path, base_url=f"{server.url}/v1", cases=CASES)
        assert main(["run", "golden_sets/tickets", "--json"]) == 0
        server.script(*(wrong_from_another_model(n) for n in range(substituted)))

        found, verdict = evaluated(capsys)

    assert (found, verdict["verdict"]) == (status, said)
    served = open_store(tmp_path / ".evalkit").sql(
        "SELECT served_model, count(DISTINCT case_id) AS cases FROM scores "
        "WHERE score = 0 GROUP BY served_model"
    )
    assert served == [{"served_model": "small(tiny-0)", "cases": substituted}]
    (label,) = [c for c in verdict["comparisons"] if c["metric"] == "label"]
    assert (label["n"], label["missing"]["excluded"]) == (CASES - substituted, substituted)
    assert label["candidate_mean"] == 1.0


def test_the_same_answers_under_the_models_own_name_are_a_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with Loopback(answer=right) as server:
        write_project(tmp_path, base_url=f"{server.url}/v1", cases=CASES)
        assert main(["run", "golden_sets/tickets", "--json"]) == 0
        rules = [wrong_from_another_model(n) for n in range(20)]
        for rule in rules:
            rule.behaviour.served_model = "loopback-model-2026-10-01"
        server.script(*rules)

        status, verdict = evaluated(capsys)

    assert (status, verdict["verdict"]) == (1, "regression")


def test_calls_without_usage_or_price_are_counted_and_cost_nothing_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with Loopback(Rule(Behaviour(usage=False), case="t-0000"), answer=right) as server:
        write_project(tmp_path, base_url=f"{server.url}/v1", cases=10)

        assert main(["run", "golden_sets/tickets", "--json"]) == 0

    summary = json.loads(capsys.readouterr().out)
    assert summary["unpriced_calls"] == 1
    assert summary["cost_usd"] > 0
    unknown = open_store(tmp_path / ".evalkit").sql(
        "SELECT count(*) AS calls FROM calls WHERE cost_usd IS NULL"
    )
    assert unknown == [{"calls": 1}]


def test_drift_to_fenced_json_is_repaired_and_its_share_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    drift = Rule(Behaviour(text='{"label": "billing"}', wrap="fence"), after=12)
    with Loopback(drift, answer=right) as server:
        write_project(tmp_path, base_url=f"{server.url}/v1", cases=20)

        assert main(["run", "golden_sets/tickets", "--json"]) == 0

    repaired = open_store(tmp_path / ".evalkit").sql(
        "SELECT repaired, schema_ok, count(*) AS calls FROM calls GROUP BY ALL ORDER BY repaired"
    )
    assert repaired == [
        {"repaired": False, "schema_ok": True, "calls": 12},
        {"repaired": True, "schema_ok": True, "calls": 8},
    ]
