"""Asks a judge's model once, and once more when its reply is no judgement.

A question -> the call path -> exactly one JSON object, read strictly -> a vote, or a mark
that says why there is none. A judge that fails or answers rubbish is a judge error with
its kind, never a low score. A vote may be taken from those that were kept.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from evalkit.frozen import frozen
from evalkit.records import CallRecord, CallResult, Json, Mark, Message
from evalkit.score.judge_messages import (
    Blocks,
    opening_messages,
    question_text,
    readable,
    response_schema,
)
from evalkit.score.rubric import JudgeSpec
from evalkit.strict import StrictError, loads_json

MAX_JUDGED_CHARS = 400_000
"""All blocks of one question together; more is no question for a judge."""
MAX_REPLY_CHARS = 50_000
MAX_REASON_CHARS = 500


@frozen
class Vote:
    """One usable judgement."""

    grades: Mapping[str, float]
    reason: str


Ballot = tuple[Vote | Mark, list[CallRecord]]
"""What one vote came to, and the calls it took."""


class Execute(Protocol):
    """Sends messages down the call path; `trial` differs for every call about one answer."""

    def __call__(
        self, messages: tuple[Message, ...], schema: Mapping[str, Any], /, *, trial: int
    ) -> Awaitable[CallResult]: ...


class Kept(Protocol):
    """Votes cast before, by judge, question and number; `judge_cache` has the real one."""

    def key(self, spec: JudgeSpec, blocks: Blocks, number: int) -> str: ...

    async def get(self, key: str, spec: JudgeSpec) -> Vote | None: ...

    async def put(self, key: str, spec: JudgeSpec, vote: Vote, record: CallRecord) -> None: ...


class Asker:
    """Asks for votes by one spec; keeps nothing itself.

    Its two nonces, for asking and for asking again, are drawn once: no judged text has seen
    them, and providers compile a schema anew, at the cost of seconds, whenever it differs.
    """

    def __init__(
        self,
        spec: JudgeSpec,
        *,
        execute: Execute,
        kept: Kept | None = None,
        new_nonce: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self.spec = spec
        self.nonces = (new_nonce(), new_nonce())
        self._schemas = tuple(response_schema(spec, nonce) for nonce in self.nonces)
        self._execute = execute
        self._kept = kept
        self._opening = opening_messages(spec)

    async def vote(self, blocks: Blocks, number: int, *, of: int) -> Ballot:
        """Vote `number` of `of` about one case; each asks under trial numbers of its own."""
        trials = (number, of + number)
        if self._kept is None:
            return await self._ask(blocks, trials)
        key = self._kept.key(self.spec, blocks, number)
        vote = await self._kept.get(key, self.spec)
        if vote is not None:
            return vote, []
        vote_or_mark, records = await self._ask(blocks, trials)
        if isinstance(vote_or_mark, Vote):
            await self._kept.put(key, self.spec, vote_or_mark, records[-1])
        return vote_or_mark, records

    async def _ask(self, blocks: Blocks, trials: tuple[int, int]) -> Ballot:
        records: list[CallRecord] = []
        problem: str | None = None
        for trial, nonce, schema in zip(trials, self.nonces, self._schemas, strict=True):
            question = {"role": "user", "content": question_text(self.spec, blocks, nonce, problem)}
            result = await self._execute((*self._opening, question), schema, trial=trial)
            records.append(result.record)
            if result.error_kind is not None:
                return _call_failed(result), records
            try:
                return read_reply(result.output or "", self.spec, nonce), records
            except Unusable as error:
                problem = str(error)
        return judge_error("judge_reply", f"reply not usable, twice: {problem}"), records


def _call_failed(result: CallResult) -> Mark:
    kind = result.error_kind or "error"
    if kind == "budget":
        return Mark(score=None, passed=None, outcome="budget_stop", error_kind=kind)
    said = result.record.route_reason or result.message or ""
    return judge_error(kind, f"the judge's call failed ({kind}): {said}")


def judge_error(kind: str, reason: str) -> Mark:
    """The mark of an answer that the judge could not judge."""
    return Mark(
        score=None,
        passed=None,
        outcome="judge_error",
        error_kind=kind,
        reason=readable(reason, MAX_REASON_CHARS),
    )


def unjudgeable(blocks: Blocks, spec: JudgeSpec) -> Mark | None:
    """Why a case cannot be judged at all; None when it can."""
    for kind in spec.inputs:
        if kind not in blocks and kind not in spec.optional:
            what = "no expected value" if kind == "reference" else f"no {kind}"
            return judge_error(
                f"no_{kind}", f"judge {spec.name} needs one, and the case has {what}"
            )
    size = sum(map(len, blocks.values()))
    if size > MAX_JUDGED_CHARS:
        return judge_error(
            "too_long", f"{size} characters to judge, of which {MAX_JUDGED_CHARS} are the most"
        )
    return None


# --- reading the reply -----------------------------------------------------------


class Unusable(Exception):
    """A reply is not a judgement; the message says why, without quoting the reply."""


def read_reply(reply: str, spec: JudgeSpec, nonce: str) -> Vote:
    """The judgement that a reply is; raises Unusable for anything else."""
    if len(reply) > MAX_REPLY_CHARS:
        raise Unusable(f"it is longer than {MAX_REPLY_CHARS} characters")
    try:
        value = loads_json(reply, where="reply")
    except StrictError as error:
        raise Unusable(
            f"it is not exactly one strict JSON object (line {error.line} column {error.column})"
        ) from None
    if not isinstance(value, dict) or value.keys() != {"judgement_tag", "reason", "grades"}:
        raise Unusable("it is not an object of judgement_tag, reason and grades alone")
    if value["judgement_tag"] != nonce:
        raise Unusable("judgement_tag is not the nonce of the last message's blocks")
    if not isinstance(value["reason"], str):
        raise Unusable("reason is not text")
    return Vote(grades=_read_grades(value["grades"], spec), reason=value["reason"])


def _read_grades(grades: Json, spec: JudgeSpec) -> dict[str, float]:
    names = [one.name for one in spec.criteria]
    if not isinstance(grades, dict) or grades.keys() != set(names):
        raise Unusable(f"grades is not an object of {', '.join(names)} alone")
    for one in spec.criteria:
        if not one.scale.has(grades[one.name]):
            raise Unusable(f"the grade of {one.name} is not {one.scale.words}")
    return {name: grades[name] for name in names}
