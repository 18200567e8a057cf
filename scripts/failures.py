"""Bring the table of docs/failures.md up to date with `evalkit/call/failures.py`.

python -m scripts.failures
"""

from __future__ import annotations

from pathlib import Path

from evalkit.call.failures import FAILURES, Strategy

PAGE = Path(__file__).resolve().parent.parent / "docs" / "failures.md"
BEGIN, END = "## The table\n", "## What else happens\n"

CAUSES = {
    "rate_limit": "429, 529, the same inside a 200, or the provider's own `rpm` and `tpm`",
    "quota_exhausted": "402, or 429 with `insufficient_quota`",
    "server": "5xx, or an error inside a reply with status 200",
    "connect": "no connection: refused, lost, DNS, TLS",
    "ttft_timeout": "no first token within `ttft_ms`",
    "timeout": "no whole answer within `attempt_ms`, or the model's share of the deadline",
    "stream_cut": "the answer broke off, fell silent for `idle_ms`, or had no `finish_reason`",
    "bad_reply": "no JSON, a damaged event, or another shape than the wire has",
    "too_large": "more than can be meant: 16 MB, or 10 million characters",
    "breaker_open": "the provider failed often enough not to be asked for a while",
    "bad_request": "400, 422 and other 4xx",
    "auth": "401, 403, or a key that is not there",
    "not_found": "404: no such model or address",
    "context_length": "the provider says it, or it was counted before sending",
    "content_filter": "the provider withheld the answer",
    "refusal": "the model says no",
    "truncated": "cut at `max_tokens`",
    "empty": "nothing in it",
    "incomplete": "cut after some of it had been shown",
    "invalid_output": "not by the schema or the rules, also after it was asked again",
    "unsupported": "the embedded model cannot do it",
    "over_latency_budget": "answered, but later than the feature allows; found by scoring",
    "invalid_input": "neither text nor named fields, or not by the feature's `input_schema`",
    "guard_block": "the guard keeps the input or the answer back",
    "retriever": "it failed, or was too slow",
    "no_documents": "the retriever found nothing",
    "budget": "a cap on spending, tokens or calls is reached",
    "policy": "a tool, source or tier that the feature has not declared",
    "killed": "the feature's flag is off",
    "cancelled": "the caller went away",
}


def table() -> str:
    """The failure table as Markdown, a row a kind."""
    lines = [
        "| kind | what happened | again | waits | next model | breaker | a case counts as |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_row(kind, row) for kind, row in FAILURES.items()),
    ]
    return "\n".join(lines) + "\n"


def messages() -> str:
    """What a user is told, a line a message."""
    told: dict[str, list[str]] = {}
    for kind, row in FAILURES.items():
        told.setdefault(row.message, []).append(f"`{kind}`")
    return "\n".join(f"- “{message}” {', '.join(kinds)}" for message, kinds in told.items()) + "\n"


def made() -> str:
    """All of the page that is made from the code."""
    return f"\n{table()}\nWhat `CallResult.message` says to a user:\n\n{messages()}\n"


def _row(kind: str, row: Strategy) -> str:
    again = "`retries`" if row.retries is None else str(row.retries or "no")
    marks = ["yes" if mark else "no" for mark in (row.backs_off, row.fail_over, row.trips_breaker)]
    waits, following, breaker = marks
    cells = [f"`{kind}`", CAUSES[kind], again, waits, following, breaker, row.outcome]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + made() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
