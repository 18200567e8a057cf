"""`evalkit tune`: a cascade of the embedded model and an application, threshold by threshold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from evalkit.cli.main import main
from evalkit.cli.tune_page import render_page, render_plot
from tests.project import case, write_project

PROMPT = """## system
Say which label fits. The labels:
- billing: invoices and money
- delivery: parcels on their way

## user
{{ text }}
"""


def project(folder: Path, *, fallbacks: str = 'fallbacks = ["small"]') -> Path:
    """The embedded model first, an application that is always right behind it.

    A third of the texts say nothing the embedded model could know: it guesses, unsure.
    """
    cases = [case(number) for number in range(30)]
    for number in range(0, 30, 3):
        label = cases[number]["expected"]["label"]
        word = "zxq billing" if label == "billing" else "zxq"
        cases[number]["input"]["text"] = f"{number}: {word}"
    cases[0]["cluster"] = cases[1]["cluster"] = "twins"
    write_project(folder, cases=cases, feature=fallbacks)
    config = folder / "evalkit.toml"
    text = config.read_text(encoding="utf-8").replace('model = "small"', 'model = "embedded"')
    free = """
[models.embedded]
provider = "embedded"
id = "embedded"
price = { input = 0, output = 0 }
"""
    config.write_text(text + free, encoding="utf-8")
    (folder / "prompts" / "classify" / "v1.md").write_text(PROMPT, encoding="utf-8")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project(tmp_path))
    return tmp_path


def tuned(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["tune", "classify", "--json", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_sweep_goes_from_the_first_model_alone_to_the_last(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tuned(capsys)

    first, last = found["alone"]
    table = found["thresholds"]
    assert found["models"] == ["embedded", "small"]
    assert (found["metric"], found["cases"]) == ("label", 30)
    assert [row["threshold"] for row in table] == [pytest.approx(n / 20) for n in range(21)]
    assert table[0]["quality"] == first["quality"] < 1.0
    assert last["quality"] == 1.0
    assert table[-1]["quality"] == 1.0
    assert table[-1]["escalated"] > table[0]["escalated"] == 0
    assert all(0 <= sum(row["shares"].values()) <= 1.001 for row in table)
    assert found["steps"][0]["quality"] == first["quality"]


def test_a_stored_run_is_read_without_a_call(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tuned(capsys)
    (here / "evalkit.toml").write_text(
        (here / "evalkit.toml").read_text().replace("tests.apps:by_rule", "tests.apps:gone")
    )

    again = tuned(capsys, "--run", first["run_id"], "--metric", "shape")

    assert again["run_id"] == first["run_id"]
    assert again["metric"] == "shape"
    assert again["alone"][0]["quality"] == 1.0


def test_the_table_is_for_people(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "classify"]) == 0

    shown = capsys.readouterr().out
    assert "classify: embedded -> small, label on 30 cases of tickets" in shown
    assert "  0.50 " in shown
    assert "suggested: " in shown


def test_the_page_is_one_file_with_a_plot_and_the_table(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "classify", "--html", "out/tune.html"]) == 0

    page = (here / "out" / "tune.html").read_text(encoding="utf-8")
    svg = page[page.index("<svg") : page.index("</svg>") + 6]
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert "<polyline" in svg
    assert page.count("<tr") == 24
    assert "<script" not in page


HOSTILE = "</title><script>alert(1)</script>\"'&"


def hostile_sweep(cost: float | None) -> dict[str, Any]:
    row = {"threshold": 0.0, "model": None, "quality": 0.5, "delta": 0.0, "ci": None,
           "cost_usd": cost, "cost_share": None, "latency_ms": 1.0, "escalated": 0.0,
           "shares": {HOSTILE: 1.0}}  # fmt: skip
    return {"feature": HOSTILE, "metric": HOSTILE, "models": [HOSTILE], "cases": 1, "level": 0.9,
            "golden_set": HOSTILE, "run_id": HOSTILE, "max_drop": 0.05, "suggested": 0.0,
            "trials_left_out": 1, "answers_without_confidence": 1,
            "alone": [row | {"threshold": None, "model": HOSTILE}], "thresholds": [row],
            "steps": [row]}  # fmt: skip


@pytest.mark.parametrize("cost", [0.0, None])
def test_hostile_names_stay_text(cost: float | None) -> None:
    sweep = hostile_sweep(cost)

    page = render_page(sweep)

    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6
    ElementTree.fromstring(render_plot(sweep))


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["nothing"], 2, "no feature 'nothing' in the configuration. There are: classify."),
        (["classify", "--metric", "nothing"], 2, "There are: label, shape."),
        (["classify", "--run", "nothing"], 2, "nothing"),
    ],
)
def test_what_cannot_be_tuned_is_said_with_what_would_be_right(
    arguments: list[str], status: int, told: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *arguments]) == status
    assert told in capsys.readouterr().err


def test_ctrl_c_while_the_models_are_asked_is_an_interruption(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "stopping.py").write_text(
        "import itertools, os, signal\n"
        "first = itertools.count().__next__\n"
        "def answer(input):\n"
        "    if first() == 0:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return {'label': 'billing'}\n",
        encoding="utf-8",
    )
    config = here / "evalkit.toml"
    text = re.sub('target = ".*"', 'target = "stopping:answer"', config.read_text("utf-8"))
    config.write_text(text, encoding="utf-8")

    assert main(["tune", "classify"]) == 130

    assert "evalkit run --resume" in capsys.readouterr().err


def test_one_model_alone_is_no_cascade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project(tmp_path, fallbacks=""))

    assert main(["tune", "classify"]) == 2
    assert 'fallbacks = ["…"]' in capsys.readouterr().err


def test_models_without_a_confidence_cannot_be_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(tmp_path, feature='fallbacks = ["other"]')
    with (tmp_path / "evalkit.toml").open("a", encoding="utf-8") as file:
        file.write('[models.other]\nprovider = "app"\nid = "other"\n')
    monkeypatch.chdir(tmp_path)

    assert main(["tune", "classify"]) == 3
    assert "small: no answer has a confidence" in capsys.readouterr().err
