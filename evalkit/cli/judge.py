"""`evalkit judge`: measure a judge against people, and against answers that ask for a grade."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import SHARE, USD, common_options, print_json, say
from evalkit.cli.progress import count_progress
from evalkit.cli.query import one_line
from evalkit.errors import (
    EXIT_PASS,
    EXIT_REGRESSION,
    EXIT_UNMEASURABLE,
    ConfigError,
    NotComparable,
)

if TYPE_CHECKING:
    from evalkit.records import Answer
    from evalkit.score.attacks import Attacked
    from evalkit.score.golden import GoldenSet
    from evalkit.score.judge import Judgement, JudgeSpec, Rater
    from evalkit.score.judging import Judging
    from evalkit.score.labelled import Labelled
    from evalkit.settings import Settings
    from evalkit.store.views import Store

STORE = "store"


@click.group("judge")
def command() -> None:
    """Measure judges: how far they agree with people, and what they can be talked into."""


# --- attack --------------------------------------------------------------------------


@command.command("attack")
@click.argument("judge")
@click.option(
    "--attacks",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file of your own; default: judges/attacks.jsonl, of the project or of evalkit.",
)
@click.option("--max-cost", type=USD, metavar="USD", help="Stop judging before.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="Answers judged at once.")
@common_options
def attack_(
    judge: str,
    attacks: Path | None,
    max_cost: float | None,
    concurrency: int | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Judge answers that ask for a grade, each beside an honest twin that is as wrong.

    An attack gains when it scores higher than its twin. Exit status 1 when any gains, 3
    when too many could not be judged to say.
    """
    from evalkit.config import load_settings
    from evalkit.content import find_content
    from evalkit.score.attacks import FILE, attack_judge, load_attacks
    from evalkit.session import run_async

    settings = load_settings(config).with_store(store)
    path = attacks or find_content("judges", FILE, project=settings.root)
    loaded = load_attacks(path)
    spec, judging = _judging(judge, settings, max_cost, keep=False)
    at_once = concurrency or settings.run.concurrency

    async def work() -> list[Attacked]:
        async with judging.orchestrator:
            return await attack_judge(
                loaded,
                spec,
                lambda honest: _counted(
                    judging.rater(spec, against=lambda answer: honest), on_judged
                ),
                concurrency=at_once,
            )

    with count_progress(len(loaded) * (1 if spec.pairwise else 2), "answers") as on_judged:
        found = run_async(work())
    if as_json:
        print_json(_attacked_json(spec, judging, found))
    else:
        _print_attacked(spec, found)
    return _attack_status(found, settings)


def _attack_status(found: Sequence[Attacked], settings: Settings) -> int:
    """A judge that answers to nobody is not proof against attacks."""
    if any(one.gains for one in found):
        return EXIT_REGRESSION
    judged = sum(one.judged for one in found)
    return EXIT_PASS if judged >= settings.gate.min_coverage * len(found) else EXIT_UNMEASURABLE


def _attacked_json(spec: JudgeSpec, judging: Judging, found: Sequence[Attacked]) -> dict[str, Any]:
    return {
        "judge": spec.name,
        "scorer_version": judging.version(spec),
        "attacks": len(found),
        "gained": sum(one.gains for one in found),
        "not_judged": sum(not one.judged for one in found),
        "attacks_passed": sum(bool(one.attacked.passed) for one in found),
        "twins_passed": sum(bool(one.honest and one.honest.passed) for one in found),
        "cost_usd": sum(one.cost_usd for one in found),
        "kinds": _by_kind(found),
        "results": [
            {
                "id": one.attack.id,
                "kind": one.attack.kind,
                "gains": one.gains,
                "honest": None if one.honest is None else one.honest.score,
                "attack": one.attacked.score,
                "error_kind": _failure(one),
                "reason": one.attacked.reason,
            }
            for one in found
        ],
    }


def _by_kind(found: Sequence[Attacked]) -> dict[str, dict[str, int]]:
    kinds: dict[str, dict[str, int]] = {}
    for one in found:
        counts = kinds.setdefault(one.attack.kind, {"attacks": 0, "gained": 0, "not_judged": 0})
        counts["attacks"] += 1
        counts["gained"] += one.gains
        counts["not_judged"] += not one.judged
    return kinds


def _failure(one: Attacked) -> str | None:
    marks = [mark for mark in (one.attacked, one.honest) if mark is not None]
    return next((mark.error_kind for mark in marks if mark.score is None), None)


def _why_not(one: Attacked) -> str:
    marks = [mark for mark in (one.attacked, one.honest) if mark is not None]
    return next((mark.reason or mark.outcome for mark in marks if mark.score is None), "")


def _print_attacked(spec: JudgeSpec, found: Sequence[Attacked]) -> None:
    for one in found:
        if one.gains:
            before = "a tie" if one.honest is None else f"{one.honest.score:.2f}"
            shown = one_line(one.attack.attack, 100)
            click.echo(f"gains: {one.attack.id}: {before} -> {one.attacked.score:.2f}  {shown}")
    for kind, counts in _by_kind(found).items():
        more = f", {counts['not_judged']} not judged" if counts["not_judged"] else ""
        click.echo(f"{kind:16} {counts['gained']} of {counts['attacks']} gain{more}")
    gained, lost = sum(one.gains for one in found), sum(not one.judged for one in found)
    more = f"; {lost} could not be judged" if lost else ""
    click.echo(f"\n{gained} of {len(found)} attacks on {spec.name} gain{more}")
    passed = sum(bool(one.honest and one.honest.passed) for one in found)
    if passed:
        click.echo(f"it passes {passed} of their honest twins, which are all wrong")
    if lost:
        reasons = Counter(_why_not(one) for one in found if not one.judged)
        [(reason, n)] = reasons.most_common(1)
        click.echo(f"not judged, {n} of {lost}: {one_line(reason, 100)}")


# --- calibrate -----------------------------------------------------------------------


@command.command("calibrate")
@click.argument("judge")
@click.option(
    "--labels", required=True, metavar="FILE|store",
    help="A file of labelled answers (.jsonl, .csv), or the labels in the store.",
)  # fmt: skip
@click.option(
    "--golden-set", "golden_set", type=click.Path(path_type=Path),
    help="Whose cases the labels are of; default with store: all that use the judge.",
)  # fmt: skip
@click.option(
    "--label-range", default="0:1", show_default=True, metavar="LOW:HIGH",
    help="Lowest and highest label in FILE.",
)  # fmt: skip
@click.option(
    "--epsilon", type=SHARE, default=0.15, show_default=True,
    help="What the judge may be worse by in the alternative-annotator test.",
)  # fmt: skip
@click.option("--fresh", is_flag=True, help="Ask the judge again though its judgement is kept.")
@click.option("--max-cost", type=USD, metavar="USD", help="Stop judging before.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="Answers judged at once.")
@common_options
def calibrate(
    judge: str,
    labels: str,
    golden_set: Path | None,
    label_range: str,
    epsilon: float,
    fresh: bool,
    max_cost: float | None,
    concurrency: int | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Have JUDGE judge what people labelled, and say how far it agrees with them.

    The figure is kept in the store with the judge's version: another rubric or model has
    none until it is measured. Exit status 3 when there is nothing to measure it by.
    """
    from evalkit.cli.judge_figures import below_floor, figures, may_gate
    from evalkit.cli.judge_page import print_figures
    from evalkit.config import load_settings
    from evalkit.score.calibration import judge_labelled
    from evalkit.session import run_async
    from evalkit.store.judges import save_figure
    from evalkit.store.views import open_store

    settings = load_settings(config).with_store(store)
    opened = open_store(settings.store_path)
    spec, judging = _judging(judge, settings, max_cost, fresh=fresh)
    items, left_out = _labelled(spec, labels, golden_set, label_range, settings, opened)

    async def work() -> list[Any]:
        async with judging.orchestrator:
            return await judge_labelled(
                items,
                lambda item: _counted(
                    judging.rater(spec, against=lambda answer: item.against or ""), on_judged
                ),
                concurrency=concurrency or settings.run.concurrency,
            )

    say(f"judging {len(items)} labelled answers with {spec.name}")
    with count_progress(len(items), "answers") as on_judged:
        judged = run_async(work())
    found = {
        **_facts(spec, judging, judged, left_out, settings),
        **figures(judged, epsilon=epsilon),
    }
    floor = settings.gate.min_agreement
    below = below_floor(found, floor)
    found |= {"floor": floor, "gates": may_gate(found, floor)}
    if below is not None:
        save_figure(opened, spec.name, judging.version(spec), found)
    if as_json:
        print_json(found)
    else:
        print_figures(found)
    return EXIT_PASS if below is not None else EXIT_UNMEASURABLE


def _facts(
    spec: JudgeSpec, judging: Judging, judged: Sequence[Any], left_out: int, settings: Settings
) -> dict[str, Any]:
    """What was judged by whom, what could not be, and what it cost."""
    from statistics import median

    from evalkit.score.bias import self_preference
    from evalkit.score.calibration import costs, missing

    lost = missing(judged)
    cost_usd, unpriced, latencies = costs(judged)
    models = {(one.labelled.pair or "").partition("/")[0] for one in judged}
    return {
        "judge": spec.name,
        "version": spec.version,
        "scorer_version": judging.version(spec),
        "answers": len(judged),
        "labels_left_out": left_out,
        "missing": dict(lost),
        "unparsed": lost["judge_reply"],
        "calls": len(latencies),
        "cost_usd": cost_usd,
        "unpriced_calls": unpriced,
        "latency_ms": median(latencies) if latencies else None,
        "notes": self_preference({spec.name: spec}, models, settings),
    }


def _labelled(
    spec: JudgeSpec,
    labels: str,
    golden_set: Path | None,
    label_range: str,
    settings: Settings,
    store: Store,
) -> tuple[list[Labelled], int]:
    """The labelled answers, and how many labels could not be used. NotComparable for none."""
    from evalkit.score.golden import load_golden_sets
    from evalkit.score.labelled import read_labels, stored_labels, stored_preferences

    golden: list[GoldenSet] = []
    if golden_set is not None or labels == STORE:
        golden = load_golden_sets([golden_set] if golden_set else (), settings=settings)
    if labels != STORE:
        return read_labels(
            Path(labels),
            pairwise=spec.pairwise,
            golden=golden[0] if golden else None,
            label_range=_range(label_range),
        ), 0
    items: list[Labelled] = []
    left_out = 0
    draws = (
        (stored_preferences(store, one) for one in golden)
        if spec.pairwise
        else (stored_labels(store, one, metric) for one, metric in _metrics_of(spec, golden))
    )
    for found, lost in draws:
        items += found
        left_out += lost
    if not items:
        raise NotComparable(
            f"the store has no labels that judge {spec.name} can be held to"
            + (f" ({left_out} are of cases that have changed)" if left_out else "")
            + ". Label some of its answers: evalkit label queue RUN"
            + (" --against RUN" if spec.pairwise else "")
        )
    return items, left_out


def _metrics_of(spec: JudgeSpec, golden: Sequence[GoldenSet]) -> list[tuple[GoldenSet, str]]:
    return [
        (one, metric.name)
        for one in golden
        for metric in one.metrics
        if metric.kind == "judge" and metric.params["judge"] == spec.name
    ]


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        found = float(low), float(high)
    except ValueError:
        found = (0.0, 0.0)
    if not -math.inf < found[0] < found[1] < math.inf:
        raise ConfigError(f"--label-range {text}: not LOW:HIGH, e.g. 1:5.")
    return found


# --- anchors -------------------------------------------------------------------------


@command.command("anchor")
@click.argument("judge")
@click.option("--run", "run", metavar="RUN", help="Make the file, of answers of this run.")
@click.option("-n", "n", type=click.IntRange(10, 1_000), default=50, show_default=True,
              help="Answers to take of it.")  # fmt: skip
@click.option("--max-cost", type=USD, metavar="USD", help="Stop judging before.")
@common_options
def anchor(
    judge: str, run: str | None, n: int, max_cost: float | None, as_json: bool,
    store: str | None, config: Path | None,
) -> int:  # fmt: skip
    """Keep answers beside JUDGE with what it says of them now, to see later if it changes.

    With --run they are answers of that run, from its lowest grades to its highest, and
    judges/JUDGE.anchors.jsonl is made anew. Without, the file stays and gets the first
    judgements of the judge's present version. `evalkit sample` has them graded again
    once a day, `evalkit drift --judges` too.
    """
    from evalkit.config import load_settings
    from evalkit.decide.naming import run_named
    from evalkit.score.anchors import (
        anchors_path,
        answers_of_run,
        judged_first,
        load_anchors,
        save_anchors,
    )
    from evalkit.score.golden import load_golden_sets
    from evalkit.score.judging import find_judge
    from evalkit.session import run_async
    from evalkit.store.views import open_store

    settings = load_settings(config).with_store(store)
    spec, path = find_judge(judge, settings=settings), anchors_path(judge, settings)
    if run is None:
        if not path.exists():
            raise ConfigError(f"judge {judge} has no anchors. Take some: --run RUN.")
        anchors = load_anchors(path)
    else:
        opened = open_store(settings.store_path)
        golden = load_golden_sets((), settings=settings)
        run_id = str(run_named(opened, run)["run_id"])
        anchors = answers_of_run(opened, run_id, spec, golden, n=n)
    made, cost_usd, unpriced_calls = run_async(
        judged_first(anchors, spec, settings, max_cost_usd=max_cost)
    )
    save_anchors(path, made)
    lost = len(anchors) - len(made)
    if as_json:
        print_json({
            "file": str(path), "anchors": len(made), "left_out": lost,
            "cost_usd": cost_usd, "unpriced_calls": unpriced_calls,
        })  # fmt: skip
    else:
        more = f"; {lost} could not be judged" if lost else ""
        click.echo(f"{path}: {len(made)} anchors{more}. Commit it beside the judge.")
    return EXIT_PASS


# --- both ----------------------------------------------------------------------------


def _counted(rater: Rater, on_judged: Callable[[], None]) -> Rater:
    async def rate(answer: Answer) -> Judgement:
        judgement = await rater(answer)
        on_judged()
        return judgement

    return rate


def _judging(
    name: str, settings: Settings, max_cost: float | None, *, keep: bool = True, fresh: bool = False
) -> tuple[JudgeSpec, Judging]:
    """The judge, on a call path of its own."""
    from evalkit.call.budget import Budget
    from evalkit.call.orchestrator import Orchestrator
    from evalkit.score.judging import Judging, find_judge, with_judge_features

    spec = find_judge(name, settings=settings)
    budget = None if max_cost is None else Budget(limit_usd=max_cost)
    orchestrator = Orchestrator.from_config(with_judge_features(settings, [spec]))
    return spec, Judging(orchestrator=orchestrator, budget=budget, keep=keep, fresh=fresh)
