"""What the stages of a call use, each opened when it is first needed.

State that lives over many calls: files, connections, breakers, compiled schemas. Built
from the settings alone; one for each orchestrator.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.call.flags import Flags, FlagSource
from evalkit.call.guards import Guard
from evalkit.call.limits import ProviderGate
from evalkit.call.one_attempt import Clock, Target
from evalkit.call.prompts import PromptRegistry
from evalkit.call.providers import READS_INPUT, LazyProviders
from evalkit.call.providers.base import Provider
from evalkit.call.tokens import TokenEstimator
from evalkit.config import FeatureSettings, ModelSettings, ProviderSettings, Settings
from evalkit.errors import ConfigError
from evalkit.json_schema import Validate, load_schema

if TYPE_CHECKING:
    from evalkit.call.cache import ResponseCache
    from evalkit.call.kept_answers import KeptAnswers
    from evalkit.call.ledger import Ledger
    from evalkit.call.retrieval import Retrievers
    from evalkit.call.review import ReviewQueue
    from evalkit.call.routing import Tagger
    from evalkit.call.sharing import Gates


class Parts:
    """The tools of one orchestrator. Whatever a test hands in is used in place of its own.

    What most calls never need is not even imported before it is.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        providers: Mapping[str, Provider] | None = None,
        clock: Clock | None = None,
        cache: ResponseCache | None = None,
        flags: FlagSource | None = None,
        secret: str | None = None,
        gates: Gates | None = None,
    ) -> None:
        self.settings = settings
        self._secret = secret
        self.clock = clock or Clock()
        self.prompts = PromptRegistry(settings.root)
        self.tokens = TokenEstimator()
        self.flags = flags or Flags(settings, self.clock)
        self._providers = LazyProviders(settings.providers) if providers is None else providers
        self._cache = cache
        self._make_gate = gates or self._own_gate
        self._gates: dict[str, ProviderGate] = {}
        self._taggers: dict[str, Tagger | None] = {}
        self._schemas: dict[Path, tuple[Mapping[str, Any], Validate]] = {}

    @cached_property
    def guard(self) -> Guard:
        return Guard(self.settings.guard, secret=self._secret)

    @cached_property
    def retrievers(self) -> Retrievers:
        from evalkit.call.retrieval import Retrievers

        return Retrievers(self.settings)

    @cached_property
    def kept_answers(self) -> KeptAnswers:
        from evalkit.call.kept_answers import KeptAnswers

        return KeptAnswers(self.storage, most_days=self.settings.retention.cache_days)

    @cached_property
    def storage(self) -> ResponseCache:
        """Where answers are kept, for whoever keeps something else there: judges do."""
        from evalkit.call.cache_storage import open_cache

        return self._cache or open_cache(self.settings)

    @cached_property
    def ledger(self) -> Ledger:
        from evalkit.call.ledger import Ledger

        return Ledger(Path(self.settings.store_path) / "budget.sqlite", self.settings.budgets)

    @cached_property
    def reviews(self) -> ReviewQueue:
        from evalkit.call.review import ReviewQueue

        return ReviewQueue(self._queue)

    @property
    def has_reviews(self) -> bool:
        """Whether there is a queue in which something may be held for a person."""
        return self._queue.exists()

    @property
    def _queue(self) -> Path:
        return Path(self.settings.store_path) / "queue.sqlite"

    def tagger(self, feature: FeatureSettings) -> Tagger | None:
        if feature.name not in self._taggers:
            from evalkit.call.routing import make_tagger

            self._taggers[feature.name] = make_tagger(feature, self.settings)
        return self._taggers[feature.name]

    def model(self, name: str, feature: FeatureSettings) -> ModelSettings:
        """Raises ConfigError, with the models there are, when there is none of that name."""
        model = self.settings.models.get(name)
        if model is None:
            known = ", ".join(sorted(self.settings.models)) or "none"
            raise ConfigError(f"feature {feature.name}: no model {name!r}. There are: {known}.")
        return model

    def reads_input(self, feature: FeatureSettings) -> bool:
        """Whether one who may answer gets the input itself, not only the messages."""
        names = (feature.model, *feature.fallbacks)
        providers = (self.settings.providers[self.model(n, feature).provider] for n in names)
        return any(provider.wire in READS_INPUT for provider in providers)

    def targets(self, feature: FeatureSettings) -> list[Target]:
        """The feature's models in the order in which they are asked, each of them once.

        A call of its own model, and a flag's variant, may name one of the fallbacks.
        """
        names = dict.fromkeys((feature.model, *feature.fallbacks))
        return [self._target(self.model(name, feature)) for name in names]

    def _target(self, model: ModelSettings) -> Target:
        gate = self._gates.get(model.provider)
        if gate is None:
            settings = self.settings.providers[model.provider]
            gate = self._gates[model.provider] = self._make_gate(settings)
        provider = self._providers[model.provider]
        return Target(model=model, provider=provider, gate=gate, tokens=self.tokens)

    def _own_gate(self, settings: ProviderSettings) -> ProviderGate:
        return ProviderGate.of(settings, monotonic=self.clock.monotonic, sleep=self.clock.sleep)

    def output_schema(
        self, feature: FeatureSettings
    ) -> tuple[Mapping[str, Any] | None, Validate | None]:
        """The schema of the feature's answers. Raises ConfigError for a broken one."""
        return self._schema(feature, "output_schema", feature.output_schema)

    def input_schema(self, feature: FeatureSettings) -> Validate | None:
        """Validates the feature's input; None where it has no schema. Raises ConfigError."""
        return self._schema(feature, "input_schema", feature.input_schema)[1]

    def _schema(
        self, feature: FeatureSettings, key: str, path: Path | None
    ) -> tuple[Mapping[str, Any] | None, Validate | None]:
        """A schema, read and compiled once."""
        if path is None:
            return None, None
        if path not in self._schemas:
            try:
                self._schemas[path] = load_schema(path)
            except ValueError as error:
                raise ConfigError(f"{path}: {key} of feature {feature.name}: {error}") from None
        return self._schemas[path]

    async def aclose(self) -> None:
        """Close connections and files; what is needed again is opened again."""
        opened = (
            self._providers.opened()
            if isinstance(self._providers, LazyProviders)
            else list(self._providers.values())
        )
        for provider in opened:
            await provider.aclose()
        self.__dict__.pop("kept_answers", None)
        if (storage := self.__dict__.pop("storage", None)) is not None:
            await storage.aclose()
        if (ledger := self.__dict__.pop("ledger", None)) is not None:
            await ledger.aclose()
        if (reviews := self.__dict__.pop("reviews", None)) is not None:
            reviews.close()
