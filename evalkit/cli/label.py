"""`evalkit label`: tier 3, what people say of answers."""

from __future__ import annotations

import getpass
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.label_audit import audit
from evalkit.cli.options import SHARE, Number, common_options, open_project, print_json, say
from evalkit.errors import EXIT_PASS, ConfigError, shown

if TYPE_CHECKING:
    from evalkit.labelling.agreeing import MetricAgreement
    from evalkit.score.label_draw import Batch, Population
    from evalkit.score.labels import Question
    from evalkit.settings import Settings
    from evalkit.store.views import Store

FORMATS = click.Choice(["jsonl", "csv", "labelstudio"])


@click.group("label")
def command() -> None:
    """Ask people: draw answers, label them in the browser, see who agrees.

    \b
        evalkit label queue latest --metric grounded --budget 100
        evalkit label serve
        evalkit label agreement
    """


command.add_command(audit)


# --- queue ----------------------------------------------------------------------------


@command.command("queue")
@click.argument("run")
@click.option("--metric", metavar="M", help="What is asked; default: the run's first judge metric.")
@click.option("--budget", type=click.IntRange(1, 100_000), default=100, show_default=True,
              help="Items.")  # fmt: skip
@click.option("--overlap", type=SHARE, default=0.2, show_default=True,
              help="Share of the items that two annotators get.")  # fmt: skip
@click.option("--active", type=Number(0, 0.9), default=0.3, show_default=True,
              help="Share drawn where something seems off; the rest at random.")  # fmt: skip
@click.option("--with", "with_", metavar="RUN",
              help="The same cases of another run, too, one at a time.")  # fmt: skip
@click.option("--against", metavar="RUN", help="Side by side: which run's answer is better?")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draw.")
@common_options
def queue(
    run: str,
    metric: str | None,
    budget: int,
    overlap: float,
    active: float,
    with_: str | None,
    against: str | None,
    seed: int,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Draw answers of RUN (or RUN:MODEL/PROMPT@VERSION) that people are to look at.

    Each answer's chance of being drawn is kept with its label, so that rates and the gate
    stay unbiased, also with an active share.
    """
    from contextlib import closing

    from evalkit.score.label_draw import Design, draw_batch
    from evalkit.score.label_queue import LabelQueue

    settings, opened = open_project(store, config)
    if with_ and against:
        raise ConfigError("--with asks about one answer at a time, --against about two. Use one.")
    run_ids, question, population = _population(opened, settings, run, against, metric, with_)
    design = Design(budget=budget, overlap=overlap, active=active, seed=seed)
    batch = draw_batch(
        population, question, design, store=opened, expected=_expected(opened, settings)
    )
    if not batch.items:
        raise ConfigError(f"run {run_ids[0]} has no answer that could be labelled.")
    about = _told(batch, question, run_ids) | {"seed": seed, "budget": budget}
    with closing(LabelQueue(opened.path)) as waiting:
        about["batch"] = waiting.add(
            question, batch.items, run=run_ids[0], against=run_ids[1], design=about
        )
    if as_json:
        print_json(about)
    else:
        _print_batch(about)
    say("Label them: evalkit label serve")
    return EXIT_PASS


def _population(
    store: Store,
    settings: Settings,
    run: str,
    against: str | None,
    metric: str | None,
    with_: str | None,
) -> tuple[tuple[str, str], Question, Population]:
    from evalkit.score.label_draw import (
        answers_of,
        default_metric,
        metrics_of,
        one_by_one,
        side_by_side,
    )
    from evalkit.score.labels import PREFERENCE

    if (metric == PREFERENCE) != (against is not None) and metric in (None, PREFERENCE):
        if against is None and metric == PREFERENCE:
            raise ConfigError(
                f"--metric {PREFERENCE} compares two runs. Name the other: --against RUN."
            )
    elif against is not None and metric != PREFERENCE:
        raise ConfigError(
            f"--against asks for a preference; --metric {metric} does not go with it."
        )
    run_id, pair = _select(store, run)
    metrics = metrics_of(store, run_id)
    asked = metric or default_metric(metrics, against=against is not None)
    of_metric = [one for one in metrics if one["metric"] == asked]
    golden_sets = sorted({one["golden_set"] for one in of_metric or metrics})
    question = _question(asked, of_metric, settings)
    if metric is None and against is None:
        others = sorted({one["metric"] for one in metrics if one["tier"] == 2} - {asked})
        say(
            f"asking about {asked}"
            + (f"; --metric takes {', '.join(others)}, too" if others else "")
        )
    rows = answers_of(store, run_id, asked, golden_sets, pair)
    other = against or with_
    if other is None:
        return (run_id, ""), question, one_by_one(rows)
    other_id, other_pair = _select(store, other)
    others_ = answers_of(store, other_id, asked, golden_sets, other_pair)
    both = side_by_side(rows, others_, apart=against is None)
    return (run_id, other_id), question, both


def _select(store: Store, text: str) -> tuple[str, Any]:
    """A run's id, and the pair where one is named."""
    from evalkit.decide.naming import run_named
    from evalkit.decide.selectors import parse_selector

    def is_run(name: str) -> bool:
        try:
            return bool(run_named(store, name))
        except ConfigError:
            return False

    if not is_run(text) and ":" not in text:
        run_named(store, text)
    selector = parse_selector(text, is_run=is_run)
    if selector.run is None:
        raise ConfigError(f"{text}: name the run, too, as RUN:{text}.")
    return str(run_named(store, selector.run)["run_id"]), selector.pair


def _question(metric: str, of_metric: Sequence[Mapping[str, Any]], settings: Settings) -> Question:
    """The judge's own question where a judge answers it, else pass or fail."""
    from evalkit.content import find_content
    from evalkit.score.labels import PREFERENCE, judge_question, pass_question, preference_question
    from evalkit.score.rubric import load_judge

    if metric == PREFERENCE:
        return preference_question()
    judges = {one["scorer"] for one in of_metric if one["tier"] == 2}
    if len(judges) != 1:
        return pass_question(metric)
    name = judges.pop()
    return judge_question(
        metric, load_judge(find_content("judges", f"{name}.yaml", project=settings.root))
    )


def _expected(store: Store, settings: Settings) -> Callable[[str, str, str], tuple[bool, Any]]:
    from evalkit.cli.report import _expected as expected_in

    return expected_in(store, settings)


def _told(batch: Batch, question: Question, run_ids: tuple[str, str]) -> dict[str, Any]:
    return {
        "run": run_ids[0],
        "against": run_ids[1] or None,
        "metric": question.metric,
        "items": len(batch.items),
        "active": batch.n_active,
        "overlap": batch.n_overlap,
        "labels_wanted": len(batch.items) + batch.n_overlap,
        "population": batch.n,
        "left_out": batch.left_out,
        "strata": [
            {"stratum": name, "answers": there, "drawn": drawn}
            for name, (there, drawn) in batch.strata.items()
        ],
    }


def _print_batch(about: Mapping[str, Any]) -> None:
    for one in about["strata"]:
        click.echo(f"{one['drawn']:6} of {one['answers']:6}  {shown(one['stratum'])}")
    click.echo(
        f"{about['items']} of {about['population']} answers queued for {shown(about['metric'])}: "
        f"{about['items'] - about['active']} at random, {about['active']} where something seems "
        f"off; {about['overlap']} for two annotators"
    )
    if about["left_out"]:
        click.echo(f"{about['left_out']} without an answer left out")


# --- serve ----------------------------------------------------------------------------


@command.command("serve")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: any free one.")
@click.option("--annotator", "annotators", multiple=True, metavar="NAME",
              help="Who labels, repeatable; default: the user name.")  # fmt: skip
@click.option("--not-blind", is_flag=True, help="Show which model and prompt gave an answer.")
@common_options
def serve(
    port: int,
    annotators: tuple[str, ...],
    not_blind: bool,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Open the page for labelling, on this machine only. Ctrl-C ends it; nothing is lost."""
    from evalkit.labelling.serving import serve as run_server

    settings, opened = open_project(store, config)

    def announce(annotator: str, url: str) -> None:
        if as_json:
            print_json({"annotator": annotator, "url": url}, indent=None)
        else:
            click.echo(f"{shown(annotator)}: {url}")
        sys.stdout.flush()

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    say("Each address is good for one browser. Ctrl-C ends.")
    run_server(
        opened,
        project=settings.root,
        annotators=annotators or (getpass.getuser(),),
        port=port,
        show_pairs=not_blind,
        announce=announce,
    )
    return EXIT_PASS


# --- files ----------------------------------------------------------------------------


@command.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--format", "kind", type=FORMATS, help="Default: by the name; .json: labelstudio.")
@click.option("--metric", metavar="M", help="Only this one.")
@click.option("--run", metavar="RUN", help="Only labels of this run.")
@common_options
def export(
    file: Path,
    kind: str | None,
    metric: str | None,
    run: str | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Write labels to FILE. labelstudio: the queue's items as tasks, with their labels."""
    from evalkit.exchange.labels import export_labels, format_of

    _, opened = open_project(store, config)
    _seal(opened)
    run_id = None if run is None else _select(opened, run)[0]
    _note_export(opened, file)
    n = export_labels(opened, file, format_of(file, kind), metric=metric, run_id=run_id)
    if as_json:
        print_json({"file": str(file), "written": n})
    say(f"wrote {n} to {file}")
    return EXIT_PASS


def _note_export(store: Store, file: Path) -> None:
    from evalkit.store.audit import note_seen

    if store.path.is_dir():
        who, name = getpass.getuser(), str(file)
        note_seen(store.path, who=who, kind="export", item=name, trace_ids=[])


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--format", "kind", type=FORMATS, help="Default: by the name; .json: labelstudio.")
@click.option("--annotator", metavar="NAME", help="Who labelled, where the file does not say.")
@common_options
def import_(
    file: Path,
    kind: str | None,
    annotator: str | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Take labels from FILE; those that are here already are left out."""
    from evalkit.exchange.labels import format_of, import_labels

    _, opened = open_project(store, config)
    _seal(opened)
    done = import_labels(opened, file, format_of(file, kind), annotator=annotator)
    if as_json:
        counts = {"imported": done.added, "known": done.known, "corrected": done.corrected}
        print_json({"file": str(file), **counts, "strays": done.strays})
    corrected = f", {done.corrected} of them in place of others" if done.corrected else ""
    known = f", {done.known} were here" if done.known else ""
    say(f"{done.added} labels imported{corrected}{known}")
    if done.strays:
        say(
            f"{done.strays} of them are about no scored answer of {opened.path}: "
            "see their trace_id, or run_id and case_id"
        )
    return EXIT_PASS


# --- agreement ------------------------------------------------------------------------


@command.command("agreement")
@click.option("--metric", metavar="M", help="Only this one.")
@click.option("--run", metavar="RUN", help="Only labels of this run.")
@common_options
def agreement(
    metric: str | None, run: str | None, as_json: bool, store: str | None, config: Path | None
) -> int:
    """Say how far annotators agree beyond chance: Cohen's kappa, Krippendorff's alpha."""
    from evalkit.labelling.agreeing import agreement_on, stored_ratings

    _, opened = open_project(store, config)
    _seal(opened)
    run_id = None if run is None else _select(opened, run)[0]
    found = [
        agreement_on(name, ratings)
        for name, ratings in sorted(stored_ratings(opened, run_id=run_id).items())
        if metric in (None, name)
    ]
    if as_json:
        print_json([one.as_json() for one in found])
        return EXIT_PASS
    for one in found:
        _print_agreement(one)
    if not found:
        say("no labels")
    return EXIT_PASS


def _print_agreement(one: MetricAgreement) -> None:
    from evalkit.labelling.agreeing import in_words

    click.echo(f"{shown(one.metric)}  {one.statistic} {_number(one.overall)}  {in_words(one)}")
    for pair, of in one.pairs.items():
        click.echo(f"  {shown(pair)}  {_number(of)}  ({of.n} items)")


def _number(of: Any) -> str:
    if of.value is None:
        return "–"
    return f"{of.value:.2f}" + (f" ({of.ci[0]:.2f} to {of.ci[1]:.2f})" if of.ci else "")


# --- parts ----------------------------------------------------------------------------


def _seal(store: Store) -> None:
    """Bring in what is not in a file yet: labels of a killed server, decided reviews."""
    from contextlib import closing

    from evalkit.call.queue_file import NAME
    from evalkit.call.review import ReviewQueue
    from evalkit.score.label_queue import LabelQueue
    from evalkit.score.label_sealing import seal_labels

    if (store.path / NAME).exists():
        with closing(ReviewQueue(store.path / NAME)) as reviews:
            decided = [review for review in reviews.list(None) if review.decided_by]
        if decided:
            with closing(LabelQueue(store.path)) as queue:
                queue.add_reviews(decided)
    seal_labels(store)
