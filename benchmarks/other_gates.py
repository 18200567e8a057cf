"""Run other published gates on the same simulated files, beside this one.

They live in an environment of their own, made here if it is not there. Each is asked
through the Python API that its documentation shows, with its own defaults, by
`other_gates_worker`; this package is asked through its own rule. What is compared is the
share of builds that each blocks, passes, or leaves undecided.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.gate_rule import verdicts_of
from benchmarks.worlds import Floats, passes

PACKAGES = ["evalproof", "statgate", "evalsig", "deltagate", "evalgate-cli"]
HOUR_S = 3_600
WORDS = {"regression": "block", "pass": "pass"}
"""Our verdicts in the words of the table; any other leaves the build undecided."""

Build: TypeAlias = list[tuple[Floats, Floats]]
"""What one build compares: baseline and candidate, (n_cases, trials), of each pair."""


def one_pair(n: int, k: int, drop: float) -> Callable[[np.random.Generator], Build]:
    def draw(generator: np.random.Generator) -> Build:
        drawn = passes(generator, n, k_b=k, k_c=k, rate=0.8, drop=drop)
        return [(drawn.baseline, drawn.candidate)]

    return draw


def twenty_alike(generator: np.random.Generator) -> Build:
    return [pair for _ in range(20) for pair in one_pair(100, 1, 0.0)(generator)]


def silent(generator: np.random.Generator) -> Build:
    """30 % of the cases that passed before have no score in the candidate."""
    [(baseline, candidate)] = one_pair(100, 1, 0.0)(generator)
    passed = np.flatnonzero(baseline[:, 0] == 1)
    candidate[generator.choice(passed, round(0.3 * len(passed)), replace=False)] = math.nan
    return [(baseline, candidate)]


SCENARIOS: dict[str, tuple[Callable[[np.random.Generator], Build], float]] = {
    "nothing changed, n = 100": (one_pair(100, 1, 0.0), 1.0),
    "nothing changed, n = 100, 3 trials": (one_pair(100, 3, 0.0), 1.0),
    "10 points lost, n = 100": (one_pair(100, 1, 0.10), 1.0),
    "5 points lost, n = 100, 3 trials": (one_pair(100, 3, 0.05), 1.0),
    "10 points lost, n = 100, 3 trials": (one_pair(100, 3, 0.10), 1.0),
    "20 pairs, nothing changed, n = 100": (twenty_alike, 0.2),
    "30 % of passing cases silent, n = 100": (silent, 0.5),
}
"""What is drawn, and the share of the replicates asked for."""


def compare_gates(folder: Path, *, replicates: int) -> list[dict[str, Any]]:
    """Simulate, ask every gate, print the table; one row per scenario and gate."""
    python = _environment(folder)
    rows = []
    for seed, (name, (draw, share)) in enumerate(SCENARIOS.items()):
        generator = np.random.default_rng([77, seed])
        builds = [draw(generator) for _ in range(max(round(replicates * share), 1))]
        answers = {"evalkit": [_ours(build) for build in builds], **_ask(python, builds)}
        print(f"\n{name} ({len(builds)} builds)")
        for gate, words in answers.items():
            counts = Counter(words)
            shares = {word: counts[word] / len(builds) for word in ("block", "pass", "undecided")}
            rows.append({"scenario": name, "gate": gate, "builds": len(builds), **shares})
            print(f"  {gate:14}" + "".join(f"  {w} {100 * s:5.1f} %" for w, s in shares.items()))
    return rows


def _ours(build: Build) -> str:
    """The build's word: blocked by any regression, passed when no verdict is worse."""
    words = [WORDS.get(verdict, "undecided") for verdict in verdicts_of(build)]
    return next((word for word in ("block", "undecided") if word in words), "pass")


def _ask(python: Path, builds: Sequence[Build]) -> dict[str, list[str]]:
    worker = Path(__file__).with_name("other_gates_worker.py")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "builds.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for build in builds:
                pairs = [[_listed(side) for side in pair] for pair in build]
                file.write(json.dumps(pairs) + "\n")
        done = subprocess.run(
            [python, worker, path], capture_output=True, text=True, timeout=HOUR_S, check=False
        )
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        raise RuntimeError("the other gates' worker failed")
    answers: dict[str, list[str]] = json.loads(done.stdout)
    return answers


def _listed(side: Floats) -> list[list[float | None]]:
    return [[None if math.isnan(score) else score for score in case] for case in side.tolist()]


def _environment(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", *PACKAGES]
        subprocess.run(install, check=True, timeout=HOUR_S)
    return python
