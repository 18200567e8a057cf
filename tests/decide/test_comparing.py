"""What is compared in one invocation of the gate, and what it says beside the comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from evalkit.config import GateSettings
from evalkit.decide.gate import run_gate
from evalkit.decide.stats import compare
from evalkit.store.views import Store, open_store
from tests.decide.results import LABEL, add_run, cases, file_rows, lines_of, write_csv, write_run

GATE = GateSettings()
SHOWN = {**LABEL, "name": "shown", "gate": False}
JUDGED = {**LABEL, "name": "helpful", "tier": 2}
BY_JUDGE = {"tier": 2, "scorer": "helpfulness", "scorer_version": "judge-1"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def gate(store: Store | None, **options: Any) -> dict[str, Any]:
    return run_gate(store, **{"candidate": "run-cand", "settings": GATE} | options)


def wholes(verdict: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Metric -> its comparison over all cases."""
    return {one["metric"]: one for one in verdict["comparisons"] if one["slice"] is None}


def slices(verdict: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(candidate's prompt version, slice) of what was looked at."""
    return [
        (one["candidate"]["prompt_version"], one["slice"])
        for one in verdict["comparisons"]
        if one["slice"] is not None
    ]


# --- families ---------------------------------------------------------------------------


def test_the_family_that_gates_is_counted_without_what_is_only_shown(store: Store) -> None:
    lost, kept = [1.0] * 40, [0.0] * 3 + [1.0] * 37
    write_run(store, "run-base", cases(lost), metrics=[LABEL, SHOWN])
    write_run(store, "run-cand", cases(kept), metrics=[LABEL, SHOWN])

    verdict = gate(store)

    # Beside "shown" over all cases the one slice of either metric.
    sizes = {name: one["family_size"] for name, one in wholes(verdict).items()}
    assert sizes == {"label": 1, "shown": 3}
    d = [after - before for after, before in zip(kept, lost, strict=True)]
    assert wholes(verdict)["label"]["mde"] == compare(d, power_alpha=0.05).mde


def test_metrics_that_gate_are_one_family(store: Store) -> None:
    other = {**LABEL, "name": "other"}
    for run_id, fallen in (("run-base", 1.0), ("run-cand", 0.0)):
        scores = cases([fallen] * 3 + [1.0] * 37)
        write_run(store, run_id, scores, metrics=[LABEL, other, SHOWN])

    verdict = gate(store)

    sizes = {name: one["family_size"] for name, one in wholes(verdict).items()}
    assert sizes == {"label": 2, "other": 2, "shown": 4}
    mde = compare([-1.0] * 3 + [0.0] * 37, power_alpha=0.025).mde
    assert wholes(verdict)["other"]["mde"] == mde


# --- what is said beside ----------------------------------------------------------------


def test_what_a_candidates_file_has_nothing_of_is_noted(tmp_path: Path) -> None:
    both = [(f"c{n}", 1, golden_set) for n in range(40) for golden_set in ("g1", "g2")]
    base = write_csv(tmp_path / "base.csv", both, "case_id,score,golden_set")
    new = write_csv(tmp_path / "new.csv", both[::2], "case_id,score,golden_set")

    verdict = gate(None, candidate=file_rows(new), baseline=file_rows(base))

    assert verdict["notes"] == ["the candidate has nothing to compare with the baseline's g2"]


def test_trials_without_a_counterpart_are_noted(tmp_path: Path) -> None:
    once = [(f"c{n}", 0, 1) for n in range(40)]
    thrice = [(case, trial, int(trial > 0)) for case, _, _ in once for trial in range(3)]
    base = write_csv(tmp_path / "base.csv", once, "case_id,trial,score")
    new = write_csv(tmp_path / "new.csv", thrice, "case_id,trial,score")

    verdict = gate(None, candidate=file_rows(new), baseline=file_rows(base))
    other = gate(None, candidate=file_rows(base), baseline=file_rows(new))

    [note] = verdict["notes"]
    [comparison] = verdict["comparisons"]
    assert "(80 scores of" in note
    assert comparison["candidate_mean"] == pytest.approx(2 / 3)
    assert other["notes"] == []


def test_a_file_that_lacks_trials_of_some_cases_is_told_of(tmp_path: Path) -> None:
    thrice = [(f"c{n}", trial, 1) for n in range(40) for trial in range(3)]
    base = write_csv(tmp_path / "base.csv", thrice, "case_id,trial,score")
    new = write_csv(tmp_path / "new.csv", thrice[5:], "case_id,trial,score")

    verdict = gate(None, candidate=file_rows(new), baseline=file_rows(base))
    once = gate(None, candidate=file_rows(base), baseline=file_rows(new))

    [note] = verdict["notes"]
    assert note.startswith("new.csv has fewer trials of 1 case than of others")
    assert once["notes"] == []


def test_what_only_the_candidates_file_has_lacks_no_trials(tmp_path: Path) -> None:
    rows = [(f"c{n}", 1, "label") for n in range(40)]
    base = write_csv(tmp_path / "base.csv", rows, "case_id,score,metric")
    more = [*rows, *((f"c{n}", 1, "more") for n in range(40))]
    new = write_csv(tmp_path / "new.csv", more, "case_id,score,metric")

    verdict = gate(None, candidate=file_rows(new), baseline=file_rows(base))

    assert {name: one["verdict"] for name, one in wholes(verdict).items()} == {
        "label": "inconclusive", "more": "unmeasurable",
    }  # fmt: skip
    assert verdict["notes"] == []


def test_a_run_has_the_trials_it_was_asked_for(store: Store) -> None:
    for run_id in ("run-base", "run-cand"):
        with add_run(store, run_id, pairs=["small/classify-ticket@v2"]) as writer:
            for trial, n in enumerate((40, 39 if run_id == "run-cand" else 40)):
                for line in lines_of(run_id, cases([1.0] * n), trial=trial):
                    writer.append(line)
            writer.seal("complete", counts={})

    assert not [note for note in gate(store)["notes"] if "fewer trials" in note]


# --- what gates -------------------------------------------------------------------------


def test_one_metric_that_has_nothing_to_meet_yet_excuses_the_whole(store: Store) -> None:
    write_run(store, "run-cand", cases([1.0] * 5), metrics=[LABEL, SHOWN])

    verdict = gate(store, allow_no_baseline=True)

    assert verdict["verdict"] == "pass"
    assert verdict["comparisons"] == []
    assert verdict["notes"] == [
        f"{name} on tickets: no baseline: no earlier complete run of this golden set. "
        "Nothing was compared."
        for name in ("label", "shown")
    ]


def test_a_file_that_names_no_golden_set_meets_none_of_several(tmp_path: Path) -> None:
    rows = [(f"c{n}", 1, golden_set) for n in range(5) for golden_set in ("orders", "tickets")]
    base = write_csv(tmp_path / "base.csv", rows, "case_id,score,golden_set")
    new = write_csv(tmp_path / "new.csv", [(f"c{n}", 1) for n in range(5)])

    verdict = gate(None, candidate=file_rows(new), baseline=file_rows(base), allow_no_baseline=True)

    assert verdict["notes"] == [
        "label: no baseline: base.csv has no rows of this golden set. Nothing was compared."
    ]


def test_a_judge_that_may_not_gate_is_why_nothing_does_whatever_else_is_shown(
    store: Store,
) -> None:
    judge_and_check(store, "run-base", judge=1.0)
    judge_and_check(store, "run-cand", judge=1.0)

    verdict = gate(store)

    assert verdict["verdict"] == "unmeasurable"
    assert verdict["notes"][-1] == "no metric gates: the judges may not"


def judge_and_check(store: Store, run_id: str, *, judge: float) -> None:
    pairs = ["small/classify-ticket@v2"]
    with add_run(store, run_id, pairs=pairs, metrics=[JUDGED, SHOWN]) as writer:
        lines = lines_of(run_id, cases([1.0] * 30), metrics=[SHOWN])
        scored = lines_of(run_id, cases([judge] * 30), metrics=[JUDGED], **BY_JUDGE)
        for line, more in zip(lines, scored, strict=True):
            writer.append({**line, "scores": [*line["scores"], *more["scores"]]})
        writer.seal("complete", counts={})


@pytest.mark.parametrize("floor", [0.4, -1.0])
def test_a_judge_without_a_baseline_has_that_for_its_reason(store: Store, floor: float) -> None:
    write_run(store, "run-cand", cases([1.0] * 30), metrics=[JUDGED], **BY_JUDGE)

    verdict = gate(store, settings=GateSettings(min_agreement=floor))

    assert "no baseline" in wholes(verdict)["helpful"]["reason"]
    assert wholes(verdict)["helpful"]["gate"] is (floor < 0)
    assert not any("word alone" in note for note in verdict["notes"])


def test_a_judge_that_gates_without_labels_is_called_the_judges_word(store: Store) -> None:
    for run_id in ("run-base", "run-cand"):
        write_run(store, run_id, cases([1.0] * 60), metrics=[JUDGED], **BY_JUDGE)

    verdict = gate(store, settings=GateSettings(min_agreement=-1.0))

    assert verdict["notes"] == [
        "the judge's word alone, without people's labels of both: helpful on tickets"
    ]


def test_a_check_is_no_judges_word(store: Store) -> None:
    for run_id in ("run-base", "run-cand"):
        write_run(store, run_id, cases([1.0] * 60))

    assert gate(store)["notes"] == []


def test_a_selector_that_names_no_rows_measures_nothing(store: Store) -> None:
    write_run(store, "run-base", cases([1.0] * 5))
    write_run(store, "run-cand", cases([1.0] * 5))

    verdict = gate(store, candidate="run-cand:small/classify-ticket@v9", baseline="run-base")

    assert verdict["verdict"] == "unmeasurable"
    assert verdict["comparisons"] == []
    assert verdict["notes"] == ["the candidate has no rows that --candidate or --compare names"]


# --- slices -----------------------------------------------------------------------------


def write_pairs(store: Store, run_id: str, sliced: Mapping[str, Mapping[str, str]]) -> None:
    """A run of a pair for each prompt version, with the slices that its cases name."""
    pairs = [f"small/classify-ticket@{version}" for version in sliced]
    with add_run(store, run_id, pairs=pairs) as writer:
        for version, names in sliced.items():
            for line in lines_of(run_id, cases([1.0] * 60), version=version, slices=names):
                writer.append(line)
        writer.seal("complete", counts={})


MAIL: Mapping[str, str] = {"channel": "mail"}


@pytest.mark.parametrize(("before", "after"), [(MAIL, {}), ({}, MAIL), ({}, {})])
def test_slices_that_one_side_names_are_looked_at(
    store: Store, before: Mapping[str, str], after: Mapping[str, str]
) -> None:
    write_pairs(store, "run-base", {"v2": before})
    write_pairs(store, "run-cand", {"v2": after})

    verdict = gate(store)

    assert slices(verdict) == ([("v2", "channel=mail")] if before or after else [])


def test_slices_of_one_pair_are_looked_at_beside_one_without(store: Store) -> None:
    for run_id in ("run-base", "run-cand"):
        write_pairs(store, run_id, {"v1": {}, "v2": MAIL})

    assert slices(gate(store)) == [("v2", "channel=mail")]


# --- beside the comparisons -------------------------------------------------------------


def test_each_two_pairs_that_meet_have_their_cost_once(store: Store) -> None:
    write_pairs(store, "run-base", {"v1": {}})
    write_pairs(store, "run-cand", {"v2": {}, "v3": {}})
    pairs = [f"small/classify-ticket@v{n}:run-base" for n in (2, 3)]

    budget = gate(store, compare=pairs)["budget"]

    meant = [
        (entry["candidate"]["prompt_version"], entry["baseline"]["prompt_version"])
        for entry in budget["cost_usd"]
    ]
    assert meant == [("v2", "v1"), ("v3", "v1")]


def test_metrics_of_one_call_do_not_count_it_twice(store: Store) -> None:
    for run_id in ("run-base", "run-cand"):
        write_run(store, run_id, cases([1.0] * 60), metrics=[LABEL, SHOWN])

    [cost] = gate(store)["budget"]["cost_usd"]

    assert (cost["baseline"]["calls"], cost["candidate"]["calls"]) == (60, 60)


def write_file(path: Path, scores: Sequence[float]) -> Any:
    return file_rows(write_csv(path, list(cases(scores).items())))


def test_the_cost_of_one_side_is_given_where_the_other_knows_none(
    store: Store, tmp_path: Path
) -> None:
    write_run(store, "run-base", cases([1.0] * 60), cost_usd=0.5)
    new = write_file(tmp_path / "new.csv", [1.0] * 60)

    [cost] = gate(store, candidate=new, baseline="run-base")["budget"]["cost_usd"]

    assert (cost["baseline"]["mean"], cost["baseline"]["unknown"]) == (0.5, 0)
    assert (cost["candidate"]["mean"], cost["candidate"]["unknown"]) == (None, 60)


def test_calls_that_the_first_metric_knows_nothing_of_are_in_the_budget(tmp_path: Path) -> None:
    header = "case_id,metric,score,latency_ms"
    rows = [(f"c{n}", metric, 1, ms) for n in range(40) for metric, ms in (("a", ""), ("b", 20))]
    old, new = (file_rows(write_csv(tmp_path / f"{n}.csv", rows, header)) for n in range(2))

    [latency] = gate(None, candidate=new, baseline=old)["budget"]["latency_ms"]

    assert (latency["baseline"]["calls"], latency["candidate"]["calls"]) == (40, 40)
    assert latency["candidate"]["mean"] == 20


def test_files_without_calls_have_no_budget(tmp_path: Path) -> None:
    old, new = (write_file(tmp_path / name, [1.0] * 60) for name in ("old.csv", "new.csv"))

    assert gate(None, candidate=new, baseline=old)["budget"] == {}


def test_a_verdict_on_any_run_is_kept_and_one_on_files_is_not(store: Store, tmp_path: Path) -> None:
    write_run(store, "run-base", cases([1.0] * 60))
    old, new = (write_file(tmp_path / name, [1.0] * 60) for name in ("old.csv", "new.csv"))

    of_run = gate(store, candidate=new, baseline="run-base")
    of_files = gate(store, candidate=new, baseline=old)

    assert [kept["verdict_id"] for kept in store.verdicts()] == [of_run["verdict_id"]]
    assert "verdict_id" not in of_files


def test_the_golden_set_of_a_run_is_named_with_its_file(store: Store, tmp_path: Path) -> None:
    write_run(store, "run-base", cases([1.0] * 60))
    write_run(store, "run-cand", cases([1.0] * 60))
    rows = [(case_id, 1, "tickets") for case_id in cases([1.0] * 60)]
    new = file_rows(write_csv(tmp_path / "new.csv", rows, "case_id,score,golden_set"))

    of_run, of_file = gate(store), gate(store, candidate=new, baseline="run-base")

    assert of_run["golden_sets"] == {"tickets": "golden_sets/tickets/golden_set.yaml"}
    assert of_file["golden_sets"] == {}


def test_the_cost_of_one_pair_is_given_beside_one_that_knows_none(store: Store) -> None:
    known: Mapping[str, Mapping[str, Any]] = {
        "v1": {"latency_ms": None, "cost_usd": None},
        "v2": {"latency_ms": None, "cost_usd": 0.5},
    }
    for run_id in ("run-base", "run-cand"):
        pairs = [f"small/classify-ticket@{version}" for version in known]
        with add_run(store, run_id, pairs=pairs) as writer:
            for version, figures in known.items():
                for line in lines_of(run_id, cases([1.0] * 60), version=version, **figures):
                    writer.append(line)
            writer.seal("complete", counts={})

    budget = gate(store)["budget"]

    assert budget["latency_ms"] == []
    [cost] = budget["cost_usd"]
    assert cost["candidate"]["prompt_version"] == "v2"


def test_where_no_metric_gates_one_could(store: Store) -> None:
    for run_id in ("run-base", "run-cand"):
        write_run(store, run_id, cases([1.0] * 60), metrics=[SHOWN])

    verdict = gate(store)

    assert verdict["verdict"] == "unmeasurable"
    assert verdict["notes"] == ["no metric gates: set gate: true on one in golden_set.yaml"]


def test_a_judge_that_is_only_shown_is_held_back_by_nothing(store: Store) -> None:
    shown = {**JUDGED, "gate": False}
    for run_id in ("run-base", "run-cand"):
        write_run(store, run_id, cases([1.0] * 60), metrics=[shown], **BY_JUDGE)

    verdict = gate(store)

    assert wholes(verdict)["helpful"]["held_back"] is None
    assert verdict["notes"] == ["no metric gates: set gate: true on one in golden_set.yaml"]


def test_scores_of_another_version_of_the_scorer_have_a_way_to_be_made_again(store: Store) -> None:
    write_run(store, "run-base", cases([1.0] * 60), scorer_version="check-1")
    write_run(store, "run-cand", cases([1.0] * 60), scorer_version="check-2")

    verdict = gate(store)

    assert wholes(verdict)["label"]["reason"] == (
        "scored by different versions of the scorer (check-1 and check-2): "
        "score the stored outputs again with evalkit rescore run-base"
    )


def test_a_file_is_not_sent_to_rescore_which_knows_runs_only(tmp_path: Path) -> None:
    before, after = (tmp_path / name for name in ("before.csv", "after.csv"))
    for path, version in ((before, "1"), (after, "2")):
        rows = [(f"c{n}", 1.0, version) for n in range(60)]
        write_csv(path, rows, "case_id,score,scorer_version")

    verdict = gate(None, baseline=file_rows(before), candidate=file_rows(after))

    assert wholes(verdict)["label"]["reason"] == (
        "scored by different versions of the scorer (1 and 2): "
        "score the answers of both sides with one"
    )
