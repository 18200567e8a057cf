"""Print what `evalkit show` found. Texts come from models and users: control characters
are shown as escapes, long ones are cut; --json has all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from evalkit.cli.query import plain
from evalkit.errors import shown
from evalkit.records import Pair

MAX_LINES = 40
MAX_CHARS = 2_000
INDENT = "  "

Page = Mapping[str, Any]


def print_page(page: Page) -> None:
    """One page as text on stdout."""
    lines = {"case": _case, "trace": _trace, "run": _run}[page["kind"]](page)
    for line in lines:
        click.echo(line)
    click.echo()


def _case(page: Page) -> Iterator[str]:
    where = f"   {page['file']}:{page['line']}" if "file" in page else "   no longer in the file"
    yield click.style(
        f"case {shown(page['case_id'])} of {shown(page['golden_set'])}", bold=True
    ) + (shown(where))
    if "file" in page:
        yield from _facts(page, ("feature", "must_pass", "cluster", "metadata", "case_hash"))
        yield from _text("input", page["input"])
        yield from _text("expected", page["expected"])
        if page["checks"]:
            yield from _text("checks", page["checks"])
    if page["edited_since"]:
        yield f"{INDENT}edited since: scores with another case_hash are of another form of it"
    if page["answer"]:
        answer = page["answer"]
        kind = f" ({answer['error_kind']})" if answer["error_kind"] else ""
        yield from _text(f"newest answer, {answer['status']}{kind}", answer["output"])
    if not page["scores"]:
        yield f"{INDENT}no scores yet: evalkit run"
    for run_id, rows in _grouped(page["scores"], "run_id"):
        yield f"{INDENT}run {run_id}  {_time(rows[0]['created_at'])}"
        yield from _table(
            ["pair", "trial", "metric", "score", "outcome", "trace", "reason"],
            [
                [
                    _pair(r),
                    r["trial"],
                    r["metric"],
                    _score(r),
                    r["outcome"],
                    r["trace_id"],
                    r["reason"],
                ]
                for r in rows
            ],
        )


def _trace(page: Page) -> Iterator[str]:
    yield click.style(
        f"call {shown(page['trace_id'])}  {shown(page['feature'])}  {_pair(page)}", bold=True
    )
    yield from _facts(
        page,
        ("ts", "task", "status", "error_kind", "served_model", "provider", "prompt_hash", "params"),
    )
    yield from _facts(
        page,
        (
            "route_reason", "flag_variant", "cache_kind", "retries", "resumed", "escalated",
            "confidence", "repaired", "schema_ok", "finish_reason", "guard_events", "redactions",
            "retrieved_ids", "tool_calls",
        ),
    )  # fmt: skip
    yield from _facts(
        page,
        (
            "prompt_tokens", "completion_tokens", "cached_prompt_tokens", "latency_ms", "ttft_ms",
            "cost_usd", "user_id", "tenant", "session_id", "user_feedback",
        ),
    )  # fmt: skip
    spent = ", ".join(f"{name} {ms:.1f}" for name, ms in (page["stage_ms"] or {}).items())
    yield f"{INDENT}stages, ms: {shown(spent) or '-'}"
    yield f"{INDENT}attempts"
    columns = ("provider", "model", "served_model", "error_kind", "finish_reason", "wait_ms",
               "latency_ms", "prompt_tokens", "completion_tokens", "cost_usd")  # fmt: skip
    yield from _table(columns, [[one[name] for name in columns] for one in page["attempts"] or ()])
    yield from _text("input", _parsed(page["input"]))
    yield from _text("output", page["output"])
    if page["scores"]:
        yield f"{INDENT}scores"
        yield from _table(
            ("run", "golden set", "case", "trial", "metric", "score", "outcome", "scorer",
             "reason"),
            [
                [r["run_id"], r["golden_set"], r["case_id"], r["trial"], r["metric"], _score(r),
                 r["outcome"], f"{r['scorer']} {r['scorer_version']}", r["reason"]]
                for r in page["scores"]
            ],
        )  # fmt: skip
    if page["feedback"]:
        yield f"{INDENT}feedback"
        yield from _table(
            ("given", "score", "label", "user", "comment"),
            [
                [_time(r["given_at"]), r["score"], r["label"], r["user_id"], r["comment"]]
                for r in page["feedback"]
            ],
        )


def _run(page: Page) -> Iterator[str]:
    yield click.style(f"run {page['run_id']}  {page['status']}", bold=True)
    yield from _facts(
        page,
        ("created_at", "sealed_at", "git", "versions", "seed", "planned", "counts", "prompts",
         "rescored_from"),
    )  # fmt: skip
    for name, golden in page["golden_sets"].items():
        yield f"{INDENT}{shown(name)}  {shown(golden['path'] or '')}  hash {golden['hash']}"
    if page["metrics"]:
        yield f"{INDENT}metrics"
        yield from _table(
            ["golden set", "pair", "metric", "mean", "scored", "missing"],
            [
                [
                    r["golden_set"],
                    _pair(r),
                    r["metric"],
                    _mean(r["mean"]),
                    r["scored"],
                    r["missing"],
                ]
                for r in page["metrics"]
            ],
        )
    else:
        yield f"{INDENT}no sealed scores: evalkit run --resume {page['run_id']}"
    for verdict in page["verdicts"]:
        against = f" against {verdict['baseline_run_id']}" if verdict["baseline_run_id"] else ""
        yield f"{INDENT}verdict {verdict['verdict']}{against}  {_time(verdict['created_at'])}"
    if page["least"]:
        yield f"{INDENT}cases that scored least"
        yield from _table(
            ["golden set", "case", "pair", "mean", "missing", "failed by"],
            [
                [
                    r["golden_set"],
                    r["case_id"],
                    _pair(r),
                    _mean(r["mean"]),
                    r["missing"] or "",
                    r["error_kind"] or "",
                ]
                for r in page["least"]
            ],
        )


# --- lines -------------------------------------------------------------------------


def _facts(page: Page, names: Sequence[str]) -> Iterator[str]:
    """Names with their values on as few lines as they take; what is not known is left out."""
    line = INDENT
    for name in names:
        value = page.get(name)
        if value is None or value == {} or value == []:
            continue
        text = f"{name}: {_value(value)}"
        if len(line) > len(INDENT) and len(line) + len(text) > 98:
            yield line.rstrip().rstrip(",")
            line = INDENT
        line += f"{text}, "
    if line.strip():
        yield line.rstrip().rstrip(",")


def _text(name: str, value: Any) -> Iterator[str]:
    """A longer value under its name, laid out when it is JSON."""
    yield f"{INDENT}{name}"
    text = (
        value if isinstance(value, str) else json.dumps(plain(value), indent=2, ensure_ascii=False)
    )
    value = _parsed(text) if isinstance(value, str) else None
    if isinstance(value, dict | list):
        text = json.dumps(value, indent=2, ensure_ascii=False)
    lines = text.splitlines() or [""]
    for line in lines[:MAX_LINES]:
        cut = "…" if len(line) > MAX_CHARS else ""
        yield f"{INDENT * 2}{shown(line[:MAX_CHARS])}{cut}"
    if len(lines) > MAX_LINES:
        yield f"{INDENT * 2}… {len(lines) - MAX_LINES} more lines; --json has all"


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """Columns that are as wide as they need to be; one that is empty throughout is left out."""
    cells = [[_value(cell) for cell in row] for row in rows]
    kept = [i for i in range(len(names)) if any(row[i] != "-" for row in cells)]
    widths = {i: max(len(names[i]), *(len(row[i]) for row in cells)) for i in kept}
    for row in [list(names), *cells] if kept else ():
        yield (INDENT * 2 + "  ".join(f"{row[i]:<{widths[i]}}" for i in kept)).rstrip()


def _value(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    value = plain(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shown(text if len(text) <= 200 else text[:199] + "…")


def _grouped(rows: Sequence[Page], key: str) -> list[tuple[Any, list[Page]]]:
    groups: dict[Any, list[Page]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return list(groups.items())


def _pair(row: Page) -> str:
    return shown(Pair.of(row))


def _score(row: Page) -> str:
    return _mean(row["score"])


def _mean(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _time(value: Any) -> str:
    return str(value)[:19] if value is not None else "-"


def _parsed(text: str | None) -> Any:
    try:
        return json.loads(text or "")
    except ValueError:
        return text
