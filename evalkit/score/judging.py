"""Puts judges on the call path: each is a feature of its own, with its votes kept.

Specs and an orchestrator -> functions that judge an answer. Between `wiring`, which knows
golden sets, and the judges, which know neither settings nor providers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

from evalkit.call.budget import Budget
from evalkit.call.orchestrator import Orchestrator
from evalkit.call.trace import Rendered
from evalkit.config import FeatureSettings, Settings
from evalkit.content import find_content
from evalkit.errors import ConfigError
from evalkit.ids import drawn_from
from evalkit.records import Answer, CallResult, Mark, Message
from evalkit.score.judge import Judge, Judgement, JudgeSpec, Rater, load_judge
from evalkit.score.judge_asking import Asker, Execute, judge_error
from evalkit.score.judge_cache import JudgementCache
from evalkit.score.null_answers import NullAnswers
from evalkit.score.pairwise import PairwiseJudge
from evalkit.score.panel import Panel

JUDGE_TASK = "judge"
JUDGE_MAX_TOKENS = 512
JUDGE_LATENCY_MS = 60_000

Against = Callable[[Answer], "str | Mark"]
"""The answer that another is compared with, or a mark that says why there is none."""


def find_judge(name: str, *, settings: Settings) -> JudgeSpec:
    """A judge of the project, or one that evalkit brings; ContentError when there is none."""
    return load_judge(find_content("judges", f"{name}.yaml", project=settings.root))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """Makes judges that ask over one orchestrator."""

    orchestrator: Orchestrator
    budget: Budget | None = None
    keep: bool = True
    """Whether votes are kept at all."""
    fresh: bool = False
    """Whether models are asked even where a vote is kept."""
    secret: str | None = None
    """What nonces are drawn from, so that a resumed run asks as it did; None: they are random."""
    _null_answers: dict[str, NullAnswers] = field(default_factory=dict, init=False, repr=False)

    def rater(self, spec: JudgeSpec, *, against: Against | None = None) -> Rater:
        """What judges an answer by `spec`, against the answers that a pairwise judge needs."""
        if spec.members:
            members = {one.name: self.rater(one, against=against) for one in spec.members}
            return Panel(spec, members).judge
        nonces = (drawn_from(self.secret, f"nonce {spec.hash} {n}") for n in count())
        asker = Asker(
            spec,
            execute=self.execute(spec),
            kept=self._kept(spec),
            new_nonce=lambda: next(nonces),
        )
        if spec.pairwise:
            return partial(_compare, PairwiseJudge(asker), against)
        return Judge(asker).judge

    def null_answers(self, spec: JudgeSpec) -> NullAnswers:
        """The test that a judge has to stand before its first mark, one for all its metrics."""
        if spec.name not in self._null_answers:
            self._null_answers[spec.name] = NullAnswers(
                spec, lambda honest: self.rater(spec, against=lambda _: honest)
            )
        return self._null_answers[spec.name]

    def version(self, spec: JudgeSpec) -> str:
        """What a score's scorer_version says: another rubric or model is another judge.

        A model as NAME=ID, or ID where they are the same: the name may come to mean another.
        """
        settings = self.orchestrator.settings
        models = [
            settings.models[settings.features[judge_feature(one)].model] for one in spec.leaves
        ]
        told = [one.id if one.id == one.name else f"{one.name}={one.id}" for one in models]
        return f"{spec.hash}:{'+'.join(told)}"

    def execute(self, spec: JudgeSpec) -> Execute:
        """How a judge makes its calls: as a feature of its own, retries and records included."""

        async def execute(
            messages: tuple[Message, ...], response_schema: Mapping[str, Any], /, *, trial: int
        ) -> CallResult:
            return await self.orchestrator.execute(
                judge_feature(spec),
                {},
                rendered=Rendered(
                    name=judge_feature(spec),
                    version=spec.version,
                    hash=spec.hash,
                    messages=messages,
                ),
                response_schema=response_schema,
                seed=trial,
                pinned=True,
                budget=self.budget,
            )

        return execute

    def _kept(self, spec: JudgeSpec) -> JudgementCache | None:
        if not self.keep:
            return None
        settings = self.orchestrator.settings
        model = settings.models[settings.features[judge_feature(spec)].model]
        return JudgementCache(
            self.orchestrator.storage,
            model=model.name,
            model_id=model.id,
            fresh=self.fresh,
            most_days=settings.retention.cache_days,
        )


async def _compare(judge: PairwiseJudge, against: Against | None, answer: Answer) -> Judgement:
    other = no_opponent(judge.spec) if against is None else against(answer)
    if isinstance(other, Mark):
        return Judgement(mark=other, records=())
    return await judge.judge(answer, other)


def no_opponent(spec: JudgeSpec) -> Mark:
    """The mark of a pairwise judge in a run that is compared with no other."""
    return judge_error(
        "no_opponent",
        f"judge {spec.name} compares two answers: evalkit rescore RUN --judge {spec.name} "
        "--against BASELINE",
    )


def judge_feature(spec: JudgeSpec) -> str:
    """Name of the feature that a judge is on the call path."""
    return f"judge:{spec.name}"


def judge_model(spec: JudgeSpec, settings: Settings) -> str:
    """Name of the model that a judge asks. Raises ConfigError when there is none."""
    model = spec.model or settings.run.judge_model
    if model is None:
        raise ConfigError(
            f"judge {spec.name}: no model. Name one in judges/{spec.name}.yaml (model: …) "
            "or for all judges in evalkit.toml ([run] judge_model = …)."
        )
    if model not in settings.models:
        known = ", ".join(sorted(settings.models))
        raise ConfigError(f"judge {spec.name}: no model {model!r}. There are: {known}.")
    return model


def with_judge_features(settings: Settings, specs: Iterable[JudgeSpec]) -> Settings:
    """Settings in which every judge is a feature, on the model that it or `[run]` names."""
    features = dict(settings.features)
    for spec in (leaf for one in specs for leaf in one.leaves):
        features[judge_feature(spec)] = FeatureSettings(
            name=judge_feature(spec),
            task=JUDGE_TASK,
            prompt_name=judge_feature(spec),
            prompt_version=spec.version,
            model=judge_model(spec, settings),
            max_tokens=JUDGE_MAX_TOKENS,
            max_latency_ms=JUDGE_LATENCY_MS,
            retries=2,
            temperature=spec.temperature,
            guard=False,
        )
    return replace(settings, features=features)
