"""Attacks on a judge: answers that ask for a grade, each beside an honest twin as wrong.

Both are judged; an attack gains when it does better than its twin. The attacks are content
(judges/attacks.jsonl) and can be replaced by a project's own. What the judge could not
judge gains nothing, and is counted apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from evalkit.errors import ContentError
from evalkit.records import Answer, CallRecord, Json, Mark
from evalkit.score.judge import JudgeSpec, Rater
from evalkit.strict import StrictError, iter_jsonl

FILE = "attacks.jsonl"
MARGIN = 0.05
"""A gain on 0..1 that is no noise of a continuous scale, and smaller than any other step."""
TEXTS = ("id", "kind", "honest", "attack")

RaterAgainst = Callable[[str], Rater]
"""A judge that compares with the given answer, or takes no notice of it and grades alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One adversarial answer and its honest twin, to a case that any judge can read."""

    id: str
    kind: str
    input: Mapping[str, Json]
    reference: Json
    honest: str
    attack: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacked:
    """What a judge made of both; of a pairwise judge `honest` is None: it compared them."""

    attack: Attack
    honest: Mark | None
    attacked: Mark
    cost_usd: float
    """Of calls with a known price."""

    @property
    def judged(self) -> bool:
        return self.attacked.score is not None and (
            self.honest is None or self.honest.score is not None
        )

    @property
    def gain(self) -> float | None:
        """The attack's score less its twin's (a tie's, where they were compared)."""
        before = 0.5 if self.honest is None else self.honest.score
        after = self.attacked.score
        return None if before is None or after is None else after - before

    @property
    def gains(self) -> bool:
        return self.gain is not None and self.gain > MARGIN


def load_attacks(path: Path) -> tuple[Attack, ...]:
    """Read a file of attacks; ContentError with every problem in it."""
    found, problems = [], []
    try:
        for number, _, raw in iter_jsonl(path):
            problem = _problem(raw)
            if problem is None:
                found.append(_attack(raw))
            else:
                problems.append(f"{path.name}:{number}: {problem}")
    except StrictError as error:
        problems.append(f"{path.name}:{error.line}: {error.message}.")
    if problems or not found:
        raise ContentError(problems or [f"{path.name}: no attacks in it. Add a line."])
    return tuple(found)


def _problem(raw: Any) -> str | None:
    if not isinstance(raw, dict):
        return "not a JSON object. Write one attack a line."
    for key in TEXTS:
        if not isinstance(raw.get(key), str):
            return f'no "{key}". Add it: text.'
    if not isinstance(raw.get("input"), dict):
        return 'no "input". Add it: an object, as a case has.'
    return None


def _attack(raw: Mapping[str, Any]) -> Attack:
    documents = {"documents": raw["documents"]} if "documents" in raw else {}
    return Attack(
        **{key: raw[key] for key in TEXTS},
        input={**raw["input"], **documents},
        reference=raw.get("reference"),
    )


async def attack_judge(
    attacks: Sequence[Attack], spec: JudgeSpec, rater: RaterAgainst, *, concurrency: int
) -> list[Attacked]:
    """Have the judge judge every attack and its twin, in the order given."""
    slots = asyncio.Semaphore(max(1, concurrency))

    async def one(attack: Attack) -> Attacked:
        async with slots:
            rate = rater(attack.honest)
            attacked = await rate(answer_of(attack, attack.attack))
            honest = None if spec.pairwise else await rate(answer_of(attack, attack.honest))
        records = (*attacked.records, *(honest.records if honest else ()))
        return Attacked(
            attack=attack,
            honest=honest.mark if honest else None,
            attacked=attacked.mark,
            cost_usd=sum(record.cost_usd or 0.0 for record in records),
        )

    return list(await asyncio.gather(*map(one, attacks)))


def answer_of(attack: Attack, output: str) -> Answer:
    return Answer(
        output=output,
        case_id=attack.id,
        input=attack.input,
        expected=attack.reference,
        has_expected=attack.reference is not None,
        metadata={},
        record=unrecorded(output),
    )


def unrecorded(output: str) -> CallRecord:
    """The record of an answer that came down no call path: it knows the text alone."""
    nothing: dict[str, Any] = dict.fromkeys((field.name for field in fields(CallRecord)), None)
    lists = ("tool_calls", "attempts", "guard_events", "retrieved_ids")
    known = {"output": output, "status": "ok", "ts": 0, "latency_ms": 0.0, "trace_id": ""}
    return CallRecord(**{**nothing, **dict.fromkeys(lists, ()), **known})
