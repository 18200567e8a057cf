"""Checks of what the call did and cost: citations, tool calls, tokens, time, money.

`compile(params, base)` does all that can be done before an answer is there and raises
ValueError for what can never work; the function it returns measures one answer.
What the record does not know (a price, a token count) is no score, never a pass.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.records import Answer, Json, ToolCall
from evalkit.score.check_reading import (
    CheckFault,
    Measure,
    Measured,
    OutputFault,
    Params,
    as_text,
    bounds,
    follow,
    json_equal,
    reference,
    reference_texts,
    short,
    subject,
    yes_no,
)
from evalkit.strict import StrictError, loads_json

MAX_CITATIONS = 10_000
MAX_LISTED = 5


# --- what the answer points to, and calls -------------------------------------------------

_BRACKETS = re.compile(r"\[([^\[\]\n]{1,300})\](?!\()")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:#/-]{0,127}")


def citations(params: Params, base: Path) -> Measure:
    least, require = params.get("min_count", 1), params.get("require")
    where = params.get("documents", "/documents")
    expect = reference_texts(params) if require else None
    at_path = subject(params) if "path" in params else None

    def measure(answer: Answer) -> Measured:
        known = {*answer.record.retrieved_ids, *_document_ids(answer.input, where)}
        cited = _listed(at_path(answer)) if at_path else _bracketed(answer.output, known)
        unknown = [id for id in cited if id not in known]
        if unknown:
            return yes_no(False, f"cites {_named(unknown)}, which was not given")
        if len(cited) < least:
            return yes_no(False, f"cites {len(cited)} documents, at least {least} wanted")
        if expect is not None:
            wanted = set(expect(answer))
            right = _CITED_AS_WANTED[require](set(cited), wanted)
            ids = _named(sorted(wanted))
            return yes_no(right, f"cites {_named(cited)}; wanted ({require}): {ids}")
        return yes_no(True, f"cites {_named(cited)}, all given")

    return measure


def _named(ids: Sequence[str]) -> str:
    """A few ids for a message, quoted; how many more there are."""
    more = f" and {len(ids) - MAX_LISTED} more" if len(ids) > MAX_LISTED else ""
    return (", ".join(map(short, ids[:MAX_LISTED])) or "nothing") + more


_CITED_AS_WANTED: dict[Any, Callable[[set[str], set[str]], bool]] = {
    "any": lambda cited, wanted: bool(cited & wanted),
    "all": lambda cited, wanted: wanted <= cited,
    "exact": lambda cited, wanted: wanted == cited,
}


def _document_ids(given: Mapping[str, Any], where: str) -> list[str]:
    try:
        documents = follow(dict(given), where)
    except LookupError:
        return []
    if isinstance(documents, dict):
        return list(documents)
    if not isinstance(documents, list):
        return []
    ids = [doc.get("id") if isinstance(doc, dict) else doc for doc in documents]
    return [as_text(id) for id in ids if isinstance(id, (str, int))]


def _listed(value: Json) -> list[str]:
    items = value if isinstance(value, list) else [value]
    ids = [item.get("id") if isinstance(item, dict) else item for item in items]
    if not all(isinstance(id, (str, int)) and not isinstance(id, bool) for id in ids):
        raise OutputFault(f"citations are not a list of ids: {short(value)}")
    return list(dict.fromkeys(as_text(id) for id in ids))


def _bracketed(text: str, known: set[str]) -> list[str]:
    """Ids in square brackets, as in [d1] or [d1, d2]; a known one may have blanks in it.

    A word in brackets that is no known id counts only if it has a digit: [sic] is none.
    """
    found: dict[str, None] = {}
    for match in _BRACKETS.finditer(text):
        if len(found) >= MAX_CITATIONS:
            break
        for token in _tokens(match.group(1).strip(), known):
            if token in known or (_ID.fullmatch(token) and any(c.isdigit() for c in token)):
                found[token] = None
    return list(found)


def _tokens(inside: str, known: set[str]) -> list[str]:
    """What stands in a bracket: one known id, else what commas part, else its words."""
    if inside in known:
        return [inside]
    parts = [part.strip() for part in re.split(r"[,;]", inside)]
    return [token for part in parts for token in ([part] if part in known else part.split())]


def tool_call(params: Params, base: Path) -> Measure:
    expect, at_path = reference(params), subject(params) if "path" in params else None
    same = _ARGUMENTS[params.get("arguments", "exact")]
    ordered, extra = params.get("ordered", False), params.get("allow_extra", False)

    def measure(answer: Answer) -> Measured:
        wanted = [_wanted_call(call) for call in _as_list(expect(answer))]
        made = (
            [_made_call(call) for call in _as_list(at_path(answer))]
            if at_path
            else [_parsed_call(call) for call in answer.record.tool_calls]
        )
        got = f"calls {short(made)}"
        if len(made) > len(wanted) and not extra:
            return yes_no(False, f"{got}, {len(made) - len(wanted)} too many")
        fits = [
            [at for at, (n, given) in enumerate(made) if n == name and same(given, arguments)]
            for name, arguments in wanted
        ]
        left_out = _first_out_of_order(fits, extra=extra) if ordered else _first_without(fits)
        if left_out is None:
            return yes_no(True, got)
        name, arguments = wanted[left_out]
        return yes_no(False, f"{got}, not {name}({short(arguments)})")

    return measure


def _first_out_of_order(fits: Sequence[Sequence[int]], *, extra: bool) -> int | None:
    """The first wanted call with no made one that fits behind the last; None without."""
    behind = 0
    for wanted, places in enumerate(fits):
        at = next((place for place in places if place >= behind), None)
        if at is None or (at > behind and not extra):
            return wanted
        behind = at + 1
    return None


def _first_without(fits: Sequence[Sequence[int]]) -> int | None:
    """The first wanted call that cannot have a made one of its own; None: all can.

    A made call that several wanted ones fit goes where the others still find theirs: a
    bipartite matching by augmenting paths (Kuhn 1955), each found breadth first.
    """
    holder: dict[int, int] = {}
    held: dict[int, int] = {}
    for start in range(len(fits)):
        reached: dict[int, int] = {}
        free, queue = None, deque([start])
        while queue and free is None:
            wanted = queue.popleft()
            for made in fits[wanted]:
                if made not in reached:
                    reached[made] = wanted
                    if made not in holder:
                        free = made
                        break
                    queue.append(holder[made])
        if free is None:
            return start
        while free is not None:
            wanted = reached[free]
            before = held.get(wanted)
            holder[free], held[wanted] = wanted, free
            free = before
    return None


def _exact_arguments(given: Json, wanted: Json) -> bool:
    return json_equal(given, wanted, fold=str, unordered=False)


def _includes_arguments(given: Json, wanted: Json) -> bool:
    return isinstance(given, dict) and all(
        key in given and _exact_arguments(given[key], value) for key, value in wanted.items()
    )


def _alternative_arguments(given: Json, wanted: Json) -> bool:
    """Each wanted argument lists what it may be; "" in the list: it may be left out."""
    if not isinstance(given, dict) or not given.keys() <= wanted.keys():
        return False
    return all(
        any(_exact_arguments(given[key], allowed) for allowed in _as_list(values))
        if key in given
        else "" in _as_list(values)
        for key, values in wanted.items()
    )


_ARGUMENTS: dict[str, Callable[[Json, Json], bool]] = {
    "exact": _exact_arguments,
    "include": _includes_arguments,
    "alternatives": _alternative_arguments,
    "ignore": lambda given, wanted: True,
}


def _as_list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [value]


def _wanted_call(call: Json) -> tuple[str, Json]:
    if isinstance(call, str):
        return call, {}
    if isinstance(call, dict) and isinstance(call.get("name"), str):
        arguments = call.get("arguments", {})
        if isinstance(arguments, dict):
            return call["name"], arguments
    raise CheckFault("no_expected", f'{short(call)} is no {{"name": …, "arguments": {{…}}}}')


def _made_call(call: Json) -> tuple[str, Json]:
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise OutputFault(f"{short(call)} is no tool call")
    arguments = call.get("arguments", {})
    if isinstance(arguments, str):
        arguments = _parsed_arguments(call["name"], arguments)
    return call["name"], arguments


def _parsed_call(call: ToolCall) -> tuple[str, Json]:
    return call.name, _parsed_arguments(call.name, call.arguments)


def _parsed_arguments(name: str, text: str) -> Json:
    try:
        return loads_json(text or "{}", where="arguments")
    except StrictError as error:
        raise OutputFault(f"the arguments of {short(name)} are not strict JSON: {error}") from None


# --- what the call cost -------------------------------------------------------------------


def tokens(params: Params, base: Path) -> Measure:
    within = bounds(params)

    def measure(answer: Answer) -> Measured:
        if answer.record.completion_tokens is None:
            raise CheckFault("unknown_tokens", "the provider did not count the answer's tokens")
        return within(answer.record.completion_tokens, "tokens")

    return measure


def latency(params: Params, base: Path) -> Measure:
    return _ceiling(lambda answer: answer.record.latency_ms, params["max_ms"], "ms", "latency")


def ttft(params: Params, base: Path) -> Measure:
    return _ceiling(lambda answer: answer.record.ttft_ms, params["max_ms"], "ms", "ttft")


def cost(params: Params, base: Path) -> Measure:
    return _ceiling(lambda answer: answer.record.cost_usd, params["max_usd"], "USD", "cost")


def _ceiling(read: Callable[[Answer], float | None], limit: float, unit: str, name: str) -> Measure:
    def measure(answer: Answer) -> Measured:
        value = read(answer)
        if value is None:
            raise CheckFault(f"unknown_{name}", f"the {name} of the call is not known")
        return yes_no(value <= limit, f"{name} {value:.6g} {unit}, at most {limit:g}")

    return measure
