"""What was not measured is never a value: faults of providers, judges and golden sets.

Every verdict comes from the command line, the answers from the loopback provider. Prompt
v1 is always right; v2 is, too, but for a careless tenth where a scenario says so.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit.store.views import open_store
from tests.faults.forks import Ended
from tests.faults.table import Bench, Scenario
from tests.loopback import Behaviour, Loopback, Request
from tests.project import case, write_project

CASES = 60
TENTH, THIRD = CASES // 10, CASES * 3 // 10
FAULTS = {
    "503": Behaviour(status=503),
    "429": Behaviour(status=429),
    "HTML": Behaviour(body="<html>gateway</html>", content_type="text/html"),
    "cut": Behaviour(cut_after=-1),
    "401": Behaviour(status=401),
}
"""Infrastructure faults, as a provider has them."""
MEASURED_ANYWAY = "[gate]\nmin_coverage = 0.5\n"
"""So that the rate of missing cases alone does not decide."""
ANY_JUDGE = "[gate]\nmin_agreement = -1.0\n"
"""A judge gates without having been held to people's labels."""


@dataclass(slots=True)
class Provider:
    """What the provider does in a scenario; the server reads it for each request."""

    down: dict[str, set[str]] = field(default_factory=dict)
    """Prompt version -> cases that get `fault`."""
    fault: Behaviour = field(default_factory=lambda: FAULTS["503"])
    careless: set[str] = field(default_factory=set)
    """Cases that v2 answers wrongly."""
    judge: Callable[[str], Behaviour | str] = lambda tag: judgement(tag)

    def answer(self, request: Request) -> Any:
        text = request.body.decode()
        schema = (
            (request.json.get("response_format") or {}).get("json_schema", {}).get("schema", {})
        )
        tag = schema.get("properties", {}).get("judgement_tag")
        if tag is not None:
            # It knows an answer that says nothing: it has no label in it.
            return self.judge(tag["const"]) if "label" in text else judgement(tag["const"], 0)
        version = "v2" if "Prompt v2" in text else "v1"
        if request.case in self.down.get(version, ()):
            return self.fault
        label = "billing" if "question on billing" in text else "delivery"
        if version == "v2" and request.case in self.careless:
            label = "delivery" if label == "billing" else "billing"
        # Spelt in two ways: a judge's vote on the one is not kept for the other.
        return json.dumps({"label": label}, indent=None if version == "v1" else 1)


def judgement(tag: str, grade: object = 1, *, of: str = "right") -> str:
    """A judge's reply; `grade` as JSON has it, NaN included."""
    return json.dumps({"judgement_tag": tag, "reason": "because", "grades": {of: grade}})


@dataclass(slots=True)
class Place:
    """One project with its provider, on one bench."""

    bench: Bench
    folder: Path
    provider: Provider
    server: Loopback

    def run(self, *argv: str) -> Ended:
        return self.bench.forks.run(self.folder, "run", "--json", *argv)

    def both(self) -> None:
        """Baseline v1 and candidate v2, each in a run of its own."""
        for version in ("v1", "v2"):
            ended = self.run("--prompt", f"classify@{version}")
            if ended.status not in (0, 1, 3):
                raise RuntimeError(str(ended))

    def gate(self, *argv: str) -> Ended:
        return self.bench.forks.run(self.folder, "gate", *argv)

    @property
    def requests(self) -> int:
        return self.server.stats.requests


@contextmanager
def place(
    bench: Bench, *, settings: str = "", header: str = "", judged: bool = False
) -> Iterator[Place]:
    """A new project whose baseline is its own earlier run."""
    folder = bench.root / f"place-{len(list(bench.root.iterdir()))}"
    folder.mkdir()
    provider = Provider()
    with Loopback(answer=provider.answer) as server:
        write_project(
            folder,
            base_url=server.url + "/v1",
            cases=CASES,
            feature="retries = 0",
            header=header,
            run='judge_model = "small"\n' + settings if judged else settings,
        )
        if judged:
            _add_judge(folder)
        yield Place(bench, folder, provider, server)


def _add_judge(folder: Path) -> None:
    (folder / "judges").mkdir()
    (folder / "judges" / "fit.yaml").write_text(
        "name: fit\nversion: v1\ninputs: [input]\n"
        "rubric: [{name: right, scale: 0 or 1, description: Is it right?}]\n"
    )
    header = folder / "golden_sets" / "tickets" / "golden_set.yaml"
    text = header.read_text().replace("gate: true", "gate: false")
    header.write_text(
        text.replace("cases: c", "  - {name: right, judge: fit, gate: true}\ncases: c")
    )


def _some(number: int, *, seed: int, outside: Collection[str] = ()) -> set[str]:
    ids = [str(case(n)["id"]) for n in range(CASES)]
    return set(random.Random(seed).sample([one for one in ids if one not in outside], number))


# --- infrastructure ----------------------------------------------------------------------


def a_tenth_of_both(bench: Bench) -> None:
    """Faults in a tenth of either side are never a regression."""
    for settings in ("", MEASURED_ANYWAY):
        for seed in bench.some(range(24), times=1 / 3):
            for name in _kinds(bench, seed):
                with place(bench, settings=settings) as there, bench.fault(name) as found:
                    there.provider.fault = FAULTS[name]
                    there.provider.down = {
                        "v1": _some(TENTH, seed=seed),
                        "v2": _some(TENTH, seed=seed + 1000),
                    }
                    there.both()
                    gate = there.gate()
                    found.wrong(gate.status == 1, f"a regression: {gate.output[:400]}")
                    found.wrong(gate.crashed or gate.status not in (0, 3), str(gate))
                    _check_missing_is_null(found, there, TENTH)


def three_tenths(bench: Bench) -> None:
    """Where three tenths are not measured, nothing is said: exit 3, always."""
    for sides in (("v1",), ("v2",), ("v1", "v2")):
        for seed in bench.some(range(12), times=1 / 6):
            with place(bench) as there, bench.fault(f"{'+'.join(sides)} {seed}") as found:
                there.provider.down = {side: _some(THIRD, seed=seed) for side in sides}
                there.both()
                for argv in ((), ("--strict",), ("--max-drop", "1"), ("--allow-no-baseline",)):
                    gate = there.gate(*argv)
                    found.wrong(gate.status != 3, f"gate {argv}: {gate.status} {gate.output[:300]}")


def failures_hidden_as_faults(bench: Bench) -> None:
    """The tenth that v2 fails is made to answer 503: that is never green."""
    for settings in ("", MEASURED_ANYWAY):
        for seed in bench.some(range(24), times=1 / 3):
            careless = _some(TENTH, seed=seed)
            with place(bench, settings=settings) as there, bench.fault(f"seen {seed}") as found:
                there.provider.careless = careless
                there.both()
                gate = there.gate()
                found.wrong(gate.status != 1, f"not seen at all: {gate.status} {gate.output[:300]}")
            with place(bench, settings=settings) as there, bench.fault(f"hidden {seed}") as found:
                there.provider.careless = careless
                there.provider.down = {"v2": careless}
                there.both()
                for argv in ((), ("--strict",)):
                    gate = there.gate(*argv)
                    found.wrong(gate.status == 0, f"green: {gate.output[:400]}")
                    found.wrong(gate.crashed, str(gate))


def nothing_answers(bench: Bench) -> None:
    """Every case of the candidate fails: nothing was measured, whatever the fault is."""
    for name, fault in FAULTS.items():
        with place(bench) as there, bench.fault(name) as found:
            there.provider.fault = fault
            there.provider.down = {"v2": _some(CASES, seed=0)}
            there.both()
            gate = there.gate()
            found.wrong(gate.status != 3, f"{gate.status}: {gate.output[:300]} {gate}")
            _check_missing_is_null(found, there, CASES)
    for argv in ((), ("--allow-no-baseline",)):
        with place(bench) as there, bench.fault(f"and no baseline {argv}") as found:
            there.provider.down = {"v2": _some(CASES, seed=0)}
            there.run("--prompt", "classify@v2")
            gate = there.gate(*argv)
            found.wrong(gate.status != 3, f"{gate.status}: {gate.output[:300]} {gate}")


def _kinds(bench: Bench, seed: int) -> list[str]:
    return list(FAULTS) if bench.places is None else [list(FAULTS)[seed % len(FAULTS)]]


def _check_missing_is_null(found: Any, there: Place, expected: int) -> None:
    rows = open_store(there.folder / ".evalkit").sql(
        "SELECT prompt_version, count(*) AS n, count(score) AS scored, count(passed) AS passed "
        "FROM scores WHERE outcome = 'infra_error' AND metric = 'label' GROUP BY ALL"
    )
    for row in rows:
        found.lost(row["n"] != expected, f"{row['n']} faults kept of {expected}")
        found.wrong(row["scored"] + row["passed"] > 0, f"a fault has a score: {row}")
    found.lost(not rows, "no fault kept")


# --- judges ------------------------------------------------------------------------------

BAD_JUDGEMENTS: dict[str, Callable[[str], Behaviour | str]] = {
    "garbage": lambda tag: "banana",
    "empty": lambda tag: "",
    "refusal": lambda tag: Behaviour(refusal="I cannot help with that."),
    "NaN": lambda tag: judgement(tag, float("nan")),
    "infinity": lambda tag: judgement(tag, float("inf")),
    "999": lambda tag: judgement(tag, 999),
    "text for a grade": lambda tag: judgement(tag, "1"),
    "true for a grade": lambda tag: judgement(tag, True),
    "null for a grade": lambda tag: judgement(tag, None),
    "two judgements": lambda tag: judgement(tag) + judgement(tag, 0),
    "two of one key": lambda tag: judgement(tag).replace(
        '"grades"', '"grades": {"right": 0}, "grades"'
    ),
    "another's tag": lambda tag: judgement("0" * len(tag)),
    "another metric": lambda tag: judgement(tag, of="wrong"),
    "a list": lambda tag: f"[{judgement(tag)}]",
}


def judges_talk_nonsense(bench: Bench) -> None:
    """No score comes of what is no judgement, and no verdict of no scores."""
    with place(bench, settings=ANY_JUDGE, judged=True) as there, bench.fault("none") as found:
        there.both()
        gate = there.gate()
        found.wrong(gate.status != 0, f"a good judge: {gate.status}: {gate.output[:400]}")
    names = list(BAD_JUDGEMENTS)
    for number in bench.some(range(len(names))):
        with (
            place(bench, settings=ANY_JUDGE, judged=True) as there,
            bench.fault(names[number]) as found,
        ):
            baseline = there.run("--prompt", "classify@v1")
            found.wrong(baseline.status != 0, f"a good judge: {baseline}")
            there.provider.judge = BAD_JUDGEMENTS[names[number]]
            there.run("--prompt", "classify@v2")
            gate = there.gate()
            found.wrong(gate.status != 3, f"{gate.status}: {gate.output[:400]} {gate}")
            rows = open_store(there.folder / ".evalkit").sql(
                "SELECT outcome, count(*) AS n, count(score) AS scored FROM scores "
                "WHERE metric = 'right' AND prompt_version = 'v2' GROUP BY outcome"
            )
            expected = [{"outcome": "judge_error", "n": CASES, "scored": 0}]
            found.wrong(rows != expected, f"not all are judge errors: {rows}")


# --- golden sets and settings ------------------------------------------------------------

TYPOS = {
    "empty set": ("cases.jsonl", None, ""),
    "unknown metric": ("golden_set.yaml", "check: equals", "check: eqals"),
    "no metric": ("golden_set.yaml", "path: /label", "path: /label, metric: exact"),
    "misspelt key of a metric": ("golden_set.yaml", "gate: true", "gaet: true"),
    "misspelt key of the set": ("golden_set.yaml", "feature:", "fature:"),
    "misspelt key of a case": ("cases.jsonl", '"expected"', '"expcted"'),
    "two of one id": ("cases.jsonl", "t-0001", "t-0000"),
    "a judge that is not there": (
        "golden_set.yaml",
        "check: equals, path: /label",
        "judge: nobody",
    ),
    "misspelt setting": ("../../evalkit.toml", "retries", "retires"),
    "misspelt section": ("../../evalkit.toml", "[run]", "[rnu]"),
}


def what_is_misspelt(bench: Bench) -> None:
    """An empty set, an unknown metric, a misspelt key: exit 2, and no call is paid."""
    for name, (file, old, new) in TYPOS.items():
        with place(bench) as there, bench.fault(name) as found:
            path = there.folder / "golden_sets" / "tickets" / file
            text = path.read_text(encoding="utf-8")
            changed = "" if old is None else text.replace(old, new)
            assert changed != text
            path.write_text(changed, encoding="utf-8")
            ended = there.run()
            found.wrong(ended.status != 2 or ended.crashed, f"{ended.status}: {ended}")
            found.wrong(path.name not in ended.errors, f"the file is not named: {ended}")
            found.lost(there.requests > 0, f"{there.requests} calls paid")


def cases_that_come_and_go(bench: Bench) -> None:
    """Cases of one side alone are listed, and too few that meet are no evidence."""
    with place(bench) as there, bench.fault("new and removed") as found:
        there.run("--prompt", "classify@v1")
        _keep_cases(there.folder, range(2, CASES + 3))
        there.run("--prompt", "classify@v2")
        gate = there.gate("--json")
        for comparison in gate.json()["comparisons"]:
            apart = comparison["missing"]["apart"]
            found.lost(apart.get("new") != _ids(CASES, CASES + 3), f"new: {apart}")
            found.lost(apart.get("removed") != _ids(0, 2), f"removed: {apart}")
    with place(bench) as there, bench.fault("none in common") as found:
        there.run("--prompt", "classify@v1")
        _keep_cases(there.folder, range(CASES, 2 * CASES))
        there.run("--prompt", "classify@v2")
        gate = there.gate()
        found.wrong(gate.status != 3, f"{gate.status}: {gate.output[:400]}")
    with place(bench) as there, bench.fault("a file without a twentieth of its cases") as found:
        (there.folder / "a.csv").write_text(_csv(range(CASES)))
        (there.folder / "b.csv").write_text(_csv(range(4, CASES)))
        gate = there.gate("--candidate", "b.csv", "--baseline", "a.csv")
        found.wrong(gate.status != 3, f"{gate.status}: {gate.output[:400]}")


def _keep_cases(folder: Path, numbers: range) -> None:
    rows = "".join(json.dumps(case(number)) + "\n" for number in numbers)
    (folder / "golden_sets" / "tickets" / "cases.jsonl").write_text(rows, encoding="utf-8")


def _ids(start: int, stop: int) -> list[str]:
    return [str(case(number)["id"]) for number in range(start, stop)]


def _csv(numbers: range) -> str:
    return "case_id,metric,score\n" + "".join(f"t-{n:04d},label,1\n" for n in numbers)


SCENARIOS: dict[str, Scenario] = {
    "unmeasured: 10 % of both": a_tenth_of_both,
    "unmeasured: 30 %": three_tenths,
    "unmeasured: hidden tenth": failures_hidden_as_faults,
    "unmeasured: everything": nothing_answers,
    "unmeasured: judges": judges_talk_nonsense,
    "unmeasured: misspelt": what_is_misspelt,
    "unmeasured: other cases": cases_that_come_and_go,
}
