"""Runs the steps of action.yml as GitHub's runner would, as far as that action goes.

`run` steps are executed with the files and variables that a step has; `uses` steps are
noted with what they would get. Only the expressions that action.yml has are understood.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ACTION = Path(__file__).resolve().parents[2] / "action.yml"
EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")


@dataclass
class Job:
    """What a job that used the action has come to."""

    status: int = 0
    """Of the first step that failed."""
    log: str = ""
    summary: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    used: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name of a `uses` step that ran -> its inputs."""
    ran: list[str] = field(default_factory=list)


class Runner:
    """One job on one machine."""

    def __init__(self, folder: Path, workspace: Path, env: Mapping[str, str]) -> None:
        self._folder, self._workspace = folder, workspace
        self._env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ACTION.parent),
            "HOME": str(folder),
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(workspace),
            "GITHUB_ACTION_PATH": str(ACTION.parent),
            "NO_COLOR": "1",
            **env,
        }

    def use_action(self, **inputs: str) -> Job:
        """Run the action with these inputs (underscores for hyphens)."""
        action = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        assert set(given) <= set(action["inputs"])
        values = {
            f"inputs.{name}": given.get(name, one.get("default", ""))
            for name, one in action["inputs"].items()
        }
        values |= {"runner.temp": str(self._folder), "github.token": "token-of-the-test"}
        values = {name: _filled(str(value), values) for name, value in values.items()}
        job = Job()
        for step in action["runs"]["steps"]:
            self._step(step, values, job)
        job.outputs = {
            name: _filled(one["value"], values) for name, one in action["outputs"].items()
        }
        return job

    def _step(self, step: Mapping[str, Any], values: dict[str, str], job: Job) -> None:
        if not _wanted(step.get("if", "success()"), values, failed=job.status != 0):
            return
        job.ran.append(step["name"])
        if "uses" in step:
            job.used[step["name"]] = {k: _filled(str(v), values) for k, v in step["with"].items()}
            return
        assert not EXPRESSION.search(step["run"]), "an expression inside a shell script"
        output, summary = self._folder / "output", self._folder / "summary"
        output.write_text("")
        summary.write_text("")
        env = {name: _filled(str(value), values) for name, value in step.get("env", {}).items()}
        files = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self._workspace / _filled(str(step.get("working-directory", ".")), values),
            env={**self._env, **files, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        job.log += done.stdout
        job.summary += summary.read_text(encoding="utf-8")
        for name, value in read_outputs(output.read_text(encoding="utf-8")).items():
            values[f"steps.{step.get('id')}.outputs.{name}"] = value
        job.status = job.status or done.returncode


def read_outputs(text: str) -> dict[str, str]:
    """Values of a GITHUB_OUTPUT file written with delimiters."""
    return {
        name: value
        for name, _, value in re.findall(r"^([\w-]+)<<(.+)\n([\s\S]*?)\n\2\n", text, re.MULTILINE)
    }


def _filled(text: str, values: Mapping[str, str]) -> str:
    return EXPRESSION.sub(lambda found: values.get(found[1], ""), text)


def _wanted(condition: str, values: Mapping[str, str], *, failed: bool) -> bool:
    """`a && b` of status functions and comparisons of one value with one text."""
    parts = [part.strip() for part in condition.split("&&")]
    if not {"always()", "success()"} & set(parts):
        parts.append("success()")
    return all(_holds(part, values, failed=failed) for part in parts)


def _holds(part: str, values: Mapping[str, str], *, failed: bool) -> bool:
    if part == "always()":
        return True
    if part == "success()":
        return not failed
    found = re.fullmatch(r"([\w.-]+) (==|!=) '(.*)'", part)
    assert found, part
    return (values.get(found[1], "") == found[3]) == (found[2] == "==")
