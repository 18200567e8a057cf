"""The action and every workflow: valid, and safe by the rules of a linter; all offline."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
OWN = sorted((CHECKOUT / ".github/workflows").glob("*.yml"))
FOR_USERS = sorted((CHECKOUT / "scaffold/github").glob("*.yml"))
WORKFLOWS = [*OWN, *FOR_USERS]
ACTION = CHECKOUT / "action.yml"


def tool(name: str) -> str:
    found = Path(sys.executable).parent / name
    if not found.exists():
        pytest.skip(f"{name} is not installed: pip install 'evalkit[dev]'")
    return str(found)


def ids(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


@pytest.mark.parametrize("path", WORKFLOWS, ids=ids)
def test_workflows_fit_githubs_schema(path: Path) -> None:
    check = [tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(path)]

    done = subprocess.run(check, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_action_fits_githubs_schema() -> None:
    check = [tool("check-jsonschema"), "--builtin-schema", "vendor.github-actions", str(ACTION)]

    done = subprocess.run(check, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_linter_for_security_finds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / ".github/workflows"
    folder.mkdir(parents=True)
    for path in WORKFLOWS:
        shutil.copy(path, folder / f"{path.parent.name}-{path.name}")
    shutil.copy(ACTION, tmp_path / "action.yml")
    audit = [tool("zizmor"), "--offline", "--no-progress", "--no-config", str(tmp_path)]

    done = subprocess.run(audit, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", [*WORKFLOWS, ACTION], ids=ids)
def test_nothing_is_put_into_a_shell_and_actions_are_pinned(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    parsed = yaml.safe_load(text)
    jobs = parsed.get("jobs", {"action": parsed.get("runs")})
    steps = [step for job in jobs.values() for step in job["steps"]]

    assert steps
    assert "pull_request_target" not in text
    assert not [step for step in steps if "${{" in step.get("run", "")]
    for used in (step["uses"] for step in steps if "uses" in step):
        assert used == "./" or re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", used)


@pytest.mark.parametrize("path", WORKFLOWS, ids=ids)
def test_no_job_may_do_more_than_it_says(path: Path) -> None:
    parsed = yaml.safe_load(path.read_text(encoding="utf-8"))

    assert parsed["permissions"] == {}
    for job in parsed["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert set(job["permissions"].values()) <= {"read", "write"}
        written = {name for name, kind in job["permissions"].items() if kind == "write"}
        assert written <= {"pull-requests"}


def test_the_workflow_that_comments_for_forks_checks_out_nothing_of_theirs() -> None:
    for path in (p for p in WORKFLOWS if "workflow_run" in p.read_text(encoding="utf-8")):
        parsed = yaml.safe_load(path.read_text(encoding="utf-8"))
        steps = [step for job in parsed["jobs"].values() for step in job["steps"]]
        checkouts = [s for s in steps if s.get("uses", "").startswith("actions/checkout")]

        assert all("ref" not in step.get("with", {}) for step in checkouts)
        assert not [s for s in steps if s.get("uses", "").startswith("actions/download-artifact")]


def test_the_action_has_the_inputs_and_outputs_it_promises() -> None:
    action = yaml.safe_load(ACTION.read_text(encoding="utf-8"))

    promised = {
        "golden-sets", "models", "prompts", "baseline", "alpha", "max-drop", "strict", "max-cost",
        "comment", "report",
    }  # fmt: skip
    assert promised <= set(action["inputs"])
    assert set(action["outputs"]) == {"verdict", "run-id", "report-path", "verdict-json"}


def test_every_option_of_the_gate_that_the_action_sets_exists() -> None:
    from evalkit.cli.ci import gate

    known = {option.envvar for option in gate.params if getattr(option, "envvar", None)}
    text = ACTION.read_text(encoding="utf-8")

    assert set(re.findall(r"EVALKIT_CI_[A-Z_]+", text)) <= known | {"EVALKIT_CI_TOKEN"}
