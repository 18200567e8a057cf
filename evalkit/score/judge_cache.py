"""Keeps the votes of judges, so that the same question is paid once.

A vote is known by the judge's hash and model, the case as this judge sees it, the text
that is judged, and the vote's number: another rubric, model or answer is another question.
Failures are never kept. The storage is that of the response cache, which fails open.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from evalkit import json_bytes
from evalkit.call.cache import Cached, ResponseCache
from evalkit.records import CallRecord, Finish, Pair, Usage
from evalkit.score.judge_asking import Unusable, Vote, read_reply
from evalkit.score.judge_messages import Blocks
from evalkit.score.rubric import JudgeSpec

KEPT_DAYS = 90
"""How long a vote is kept unless the configuration says less: it can only become unused."""
DAY_S = 86_400.0
_TAG = "kept"


@dataclass(frozen=True, slots=True)
class JudgementCache:
    """Votes of one judge model in a storage that others share."""

    storage: ResponseCache
    model: str
    """Its name in the configuration, as in a score's scorer_version."""
    model_id: str
    """The provider's name: the same configured name may come to mean another model."""
    fresh: bool = False
    """Nothing kept is used; what is said now is kept."""
    most_days: int | None = None
    """The configuration's limit on what caches keep; 0 keeps nothing."""

    async def get(self, key: str, spec: JudgeSpec) -> Vote | None:
        """The vote that was kept under a `key`, if one was."""
        if self.fresh:
            return None
        cached = await self.storage.get(key)
        if cached is None:
            return None
        try:
            return read_reply(cached.output, spec, _TAG)
        except Unusable:
            return None

    async def put(self, key: str, spec: JudgeSpec, vote: Vote, record: CallRecord) -> None:
        """Keep the vote that the call of `record` was."""
        said = {"judgement_tag": _TAG, "reason": vote.reason, "grades": dict(vote.grades)}
        usage = Usage(
            prompt_tokens=record.prompt_tokens, completion_tokens=record.completion_tokens
        )
        kept = Cached(
            output=json_bytes.encode(said).decode(),
            finish=Finish(finish_reason="stop", usage=usage, served_model=record.served_model),
            model=self.model,
            served_model=record.served_model,
            pair=Pair(model=self.model, prompt_name=spec.name, prompt_version=spec.version),
        )
        days = KEPT_DAYS if self.most_days is None else min(self.most_days, KEPT_DAYS)
        await self.storage.put(key, kept, days * DAY_S)

    def key(self, spec: JudgeSpec, blocks: Blocks, number: int) -> str:
        """`judge/NAME:hash`; the case and what is judged stand apart."""
        case = {kind: line for kind, line in blocks.items() if kind not in spec.judged}
        judged = {kind: blocks[kind] for kind in spec.judged}
        whole = json_bytes.encode_sorted(
            [spec.hash, self.model, self.model_id, case, judged, number]
        )
        return f"judge/{spec.name}:{sha256(whole).hexdigest()}"
