"""`evalkit show`: one case, one call or one run, with all that is known of it.

Finds what a name means, and puts it together as plain data; `show_page` prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import common_options, open_project, print_json, say, warn
from evalkit.errors import EXIT_PASS, EXIT_UNMEASURABLE, ConfigError, DamagedStore, EvalkitError

if TYPE_CHECKING:
    from evalkit.score.golden import GoldenSet
    from evalkit.settings import Settings
    from evalkit.store.views import Store

KINDS = ("case", "trace", "run")
MAX_SCORES = 200
MAX_RUNS = 10
MAX_CASES = 20
SHORTEST_ID = 6
"""Letters of a trace id that are enough to name it."""

Page = dict[str, Any]


@click.command("show")
@click.argument("name", metavar="CASE|TRACE|RUN")
@click.option("--as", "kind", type=click.Choice(KINDS), help="What NAME is, where several fit.")
@common_options
def command(
    name: str, kind: str | None, as_json: bool, store: str | None, config: Path | None
) -> int:
    """Show a case, a call or a run.

    A case with its line in the golden set and its scores over the newest runs; a call
    (by trace id, or the beginning of it) with every stage, decision and attempt, its
    versions and scores; a run (by id, its beginning, or latest) with its metrics, its
    verdicts and the cases that scored least.
    """
    from evalkit.cli.query import plain
    from evalkit.cli.show_page import print_page

    settings, opened = open_project(store, config)
    pages = _pages(name, settings, opened, kinds=[kind] if kind else KINDS)
    warn(opened.problems)
    if as_json:
        print_json(plain(pages[0] if len(pages) == 1 else pages))
    else:
        for page in pages:
            print_page(page)
    return EXIT_UNMEASURABLE if any(_lacks(page, opened) for page in pages) else EXIT_PASS


def _lacks(page: Page, store: Store) -> bool:
    """Whether a page may lack scores, as a file that could have them is damaged."""
    if page["kind"] == "run":
        return store.damage_of(page["run_id"]) is not None
    return page["kind"] == "case" and bool(store.problems)


def _pages(
    name: str, settings: Settings, store: Store, *, kinds: list[str] | tuple[str, ...]
) -> list[Page]:
    """What `name` means; several pages where golden sets share a case id."""
    find: dict[str, Callable[[], list[Page]]] = {
        "case": lambda: _cases(name, settings, store),
        "trace": lambda: _traces(name, store),
        "run": lambda: _runs(name, store),
    }
    found = {kind: pages for kind in kinds if (pages := find[kind]())}
    if len(found) > 1:
        one = next(iter(found))
        raise ConfigError(f"{name!r} is a {' and a '.join(found)}. Say which: --as {one}.")
    if not found and store.problems and tuple(kinds) != ("run",):
        raise DamagedStore(
            f"no {', '.join(kinds)} named {name!r} in what can be read of {store.path}. "
            + " ".join(store.problems)
        )
    if not found:
        raise ConfigError(
            f"no {', '.join(kinds)} named {name!r} in the golden sets or in {store.path}. "
            'List runs with: evalkit query "SELECT run_id, created_at FROM runs"'
        )
    return next(iter(found.values()))


# --- a case ------------------------------------------------------------------------


def _cases(case_id: str, settings: Settings, store: Store) -> list[Page]:
    """A page for every golden set that has, or had, such a case."""
    rows = store.sql(
        "SELECT golden_set, run_id, created_at, model, prompt_name, prompt_version, trial, metric,"
        " score, passed, outcome, error_kind, reason, case_hash, trace_id FROM scores"
        " WHERE case_id = $1 ORDER BY created_at DESC, trial, metric LIMIT $2",
        [case_id, MAX_SCORES],
    )
    sets = {one.name: one for one in _golden_sets(settings) if case_id in one.cases}
    names = [*sets, *dict.fromkeys(r["golden_set"] for r in rows if r["golden_set"] not in sets)]
    pages = []
    for name in names:
        scores = _of_newest_runs([row for row in rows if row["golden_set"] == name])
        written = _written(sets[name], case_id, settings) if name in sets else {}
        hashes = {row["case_hash"] for row in scores} - {written.get("case_hash")}
        pages.append(
            {
                "kind": "case",
                "case_id": case_id,
                "golden_set": name,
                **written,
                "edited_since": bool(written and hashes),
                "answer": _newest_answer(scores, store),
                "scores": scores,
            }
        )
    return pages


def _golden_sets(settings: Settings) -> list[GoldenSet]:
    """Those that can be read; of the others a warning says so."""
    from evalkit.score.golden import find_golden_sets, load_golden_set

    sets = []
    try:
        paths = find_golden_sets((), settings=settings)
    except EvalkitError:
        return []
    for path in paths:
        try:
            sets.append(load_golden_set(path, settings=settings))
        except EvalkitError:
            say(f"warning: {path} has mistakes: evalkit check")
    return sets


def _written(golden: GoldenSet, case_id: str, settings: Settings) -> Page:
    """The case as its file has it now."""
    from evalkit.score.problems import shown_path

    case = golden.cases.of(case_id)
    return {
        "file": shown_path(golden.cases.path, root=settings.root),
        "line": case.line,
        "feature": golden.feature,
        "case_hash": case.case_hash,
        "must_pass": case.must_pass,
        "cluster": case.cluster,
        "metadata": dict(case.metadata),
        "input": case.input,
        "expected": case.expected,
        "checks": [dict(check) for check in case.checks],
    }


def _of_newest_runs(rows: list[Page]) -> list[Page]:
    runs = list(dict.fromkeys(row["run_id"] for row in rows))[:MAX_RUNS]
    return [row for row in rows if row["run_id"] in runs]


def _newest_answer(scores: list[Page], store: Store) -> Page | None:
    traces = [row["trace_id"] for row in scores if row["trace_id"]]
    if not traces:
        return None
    rows = store.sql(
        "SELECT trace_id, status, error_kind, output FROM calls WHERE trace_id = $1", traces[:1]
    )
    return rows[0] if rows else None


# --- a call ------------------------------------------------------------------------


def traces_named(name: str, store: Store) -> list[Page]:
    """The call of this trace id, or of the only one that begins so; none: no call.

    Raises ConfigError when several begin so.
    """
    rows = store.sql(
        "SELECT * FROM calls WHERE starts_with(trace_id, $1) ORDER BY trace_id LIMIT 2", [name]
    )
    if len(rows) > 1 and rows[0]["trace_id"] != name:
        raise ConfigError(f"{name!r} is the beginning of several trace ids. Write more of it.")
    return rows[:1]


def _traces(name: str, store: Store) -> list[Page]:
    rows = traces_named(name, store) if len(name) >= SHORTEST_ID else []
    if not rows:
        return []
    scores = store.sql(
        "SELECT run_id, golden_set, case_id, trial, metric, tier, score, passed, outcome, reason,"
        " scorer, scorer_version FROM scores WHERE trace_id = $1 ORDER BY run_id, metric",
        [rows[0]["trace_id"]],
    )
    feedback = store.sql(
        "SELECT score, label, comment, user_id, given_at FROM feedback WHERE trace_id = $1"
        " ORDER BY given_at",
        [rows[0]["trace_id"]],
    )
    return [{"kind": "trace", **rows[0], "scores": scores, "feedback": feedback}]


# --- a run -------------------------------------------------------------------------


def _runs(name: str, store: Store) -> list[Page]:
    from evalkit.decide.naming import run_named
    from evalkit.decide.selectors import LATEST, runs_named

    if not LATEST.fullmatch(name) and not runs_named(store.runs(), name):
        store.refuse_unreadable(name)
        return []
    run = run_named(store, name)
    return [{"kind": "run", **_manifest(run), **_measured(run["run_id"], store)}]


def _manifest(run: Mapping[str, Any]) -> Page:
    keys = ("run_id", "status", "created_at", "sealed_at", "seed", "planned", "counts", "versions")
    facts = {key: run.get(key) for key in (*keys, "git", "prompts", "rescored_from")}
    sets = {
        name: {key: one.get(key) for key in ("path", "feature", "hash", "pairs")}
        for name, one in (run.get("golden_sets") or {}).items()
    }
    return {**facts, "golden_sets": sets}


def _measured(run_id: str, store: Store) -> Page:
    """What the run's scores say; empty while it has none that are sealed."""
    metrics = store.sql(
        "SELECT golden_set, model, prompt_name, prompt_version, metric, tier, avg(score) AS mean,"
        " count(score) AS scored, count(*) - count(score) AS missing FROM scores"
        " WHERE run_id = $1 GROUP BY ALL ORDER BY ALL",
        [run_id],
    )
    least = store.sql(
        "SELECT golden_set, case_id, model, prompt_name, prompt_version, avg(score) AS mean,"
        " count(*) - count(score) AS missing, max(error_kind) AS error_kind"
        " FROM scores WHERE run_id = $1 GROUP BY ALL"
        " HAVING avg(score) < 1 OR count(score) < count(*)"
        " ORDER BY mean NULLS FIRST, case_id LIMIT $2",
        [run_id, MAX_CASES],
    )
    verdicts = store.sql(
        "SELECT DISTINCT verdict_id, created_at, verdict, baseline_run_id FROM verdicts"
        " WHERE candidate_run_id = $1 ORDER BY created_at DESC LIMIT $2",
        [run_id, MAX_RUNS],
    )
    return {"metrics": metrics, "verdicts": verdicts, "least": least}
