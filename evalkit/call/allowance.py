"""What one call may spend: set aside before it, more as its attempts need it, then settled.

How many attempts a call makes is not known before: it may be asked again, fail over, be
hedged, be given more room. What is set aside at first is enough for the usual ones. Each
attempt is let through only while what is set aside covers the most that it may cost, so
that no call passes a limit, however it goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from evalkit.call.budget import Budget
from evalkit.call.tokens import TokenEstimator
from evalkit.call.trace import Call
from evalkit.config import ModelSettings
from evalkit.errors import CallError, ConfigError
from evalkit.records import Attempt, ModelRequest

if TYPE_CHECKING:
    from evalkit.call.ledger import Hold, Ledger


class Most(NamedTuple):
    """The most that one attempt may use."""

    usd: float
    tokens: int


@dataclass(slots=True, kw_only=True)
class Allowance:
    """One call's share of the limits. Every one that is reserved is settled."""

    request: ModelRequest
    models: Sequence[ModelSettings]
    """Those that may answer; without a price of the first, limits in USD see the others alone."""
    once: Most
    """Of `request` at any of them."""
    estimator: TokenEstimator
    budget: Budget | None
    ledger: Ledger | None
    reserved_usd: float = 0.0
    hold: Hold | None = None
    left_usd: float = 0.0
    left_tokens: int = 0
    used_tokens: int = 0
    known_usd: float = 0.0
    """What attempts did cost, of those whose cost is known."""
    is_open: bool = False
    """Whether an attempt may have cost what was set aside for it: nothing is given back then."""

    async def take(self, request: ModelRequest, model: ModelSettings, *, wait_s: float) -> Most:
        """Let one attempt through. Raises CallError budget when it may pass a limit.

        That is also what a ledger says to which nobody could write for `wait_s`.
        """
        most = self._most(request, model)
        usd = most.usd - max(0.0, self.left_usd)
        tokens = most.tokens - max(0, self.left_tokens)
        # Taken before anything is waited for: a hedge may ask meanwhile.
        self.left_usd -= most.usd
        self.left_tokens -= most.tokens
        if usd > 1e-12 or tokens > 0:
            try:
                await self._set_aside(max(0.0, usd), max(0, tokens), wait_s)
            except BaseException:
                self.left_usd += most.usd
                self.left_tokens += most.tokens
                raise
        return most

    def ended(self, most: Most, attempt: Attempt, *, paid: bool) -> None:
        """What the attempt left is there for the next; what is not known is used up."""
        counts = attempt.prompt_tokens, attempt.completion_tokens
        known = sum(n for n in counts if n is not None)
        used = known if None not in counts else (most.tokens if paid else 0)
        self.used_tokens += used
        self.known_usd += attempt.cost_usd or 0.0
        self.is_open = self.is_open or (attempt.cost_usd is None and most.usd > 0)
        cost_usd = most.usd if attempt.cost_usd is None else attempt.cost_usd
        self.left_usd += most.usd - cost_usd
        self.left_tokens += most.tokens - used

    def settle(self, cost_usd: float | None, *, asked: bool) -> None:
        """Replace what is set aside by what the call cost; nothing when nobody was `asked`."""
        if self.budget is not None:
            self.budget.settle(self.reserved_usd, cost_usd if asked else 0.0)
        if self.hold is None or self.ledger is None:
            return
        if asked:
            in_part = cost_usd is None
            if in_part and not self.is_open:
                cost_usd = self.known_usd
            self.ledger.settle(self.hold, cost_usd, self.used_tokens, in_part=in_part)
        else:
            self.ledger.release(self.hold)

    def _most(self, request: ModelRequest, model: ModelSettings) -> Most:
        first, most = self.request, self.once
        if request.messages is not first.messages or request.max_tokens != first.max_tokens:
            tokens = self.estimator.estimate(request, model)
            # A fallback without a price counts as the dearest of those that have one.
            models = self.models if model.price is None else (model,)
            usd = _most_usd(models, tokens, request.max_tokens)
            most = Most(usd or 0.0, tokens + request.max_tokens)
        if model.price is None and self.models[0].price is None:
            return most._replace(usd=0.0)  # else each local answer would use up a dear one's share
        return most

    async def _set_aside(self, usd: float, tokens: int, wait_s: float) -> None:
        if self.budget is not None and usd > 0:
            if not await self.budget.reserve_more(usd):
                raise CallError("budget", f"{usd:.4f} USD more would pass the spending limit")
            self.reserved_usd += usd
        if self.hold is not None and self.ledger is not None:
            await self.ledger.extend(self.hold, usd, tokens, wait_s=wait_s)
        self.left_usd += usd
        self.left_tokens += tokens


async def set_aside(
    call: Call,
    request: ModelRequest,
    models: Sequence[ModelSettings],
    *,
    estimator: TokenEstimator,
    budget: Budget | None,
    ledger: Ledger | None,
    wait_s: float,
) -> Allowance:
    """Set aside what the call's usual attempts may cost, at the dearest of its models.

    A run's own budget needs a price; caps of users and features count tokens and calls of
    a model without one. Raises CallError budget, also where the ledger cannot be written
    for `wait_s`, ConfigError for a missing price.
    """
    first, times = models[0], 1 + call.feature.retries
    tokens = estimator.estimate(request, first)
    usd = _most_usd(models, tokens, request.max_tokens)
    allowance = Allowance(
        request=request,
        models=models,
        once=Most(usd or 0.0, tokens + request.max_tokens),
        estimator=estimator,
        budget=budget,
        ledger=ledger,
    )
    most_usd = None if usd is None else usd * times
    if budget is not None:
        await _reserve_in_run(budget, first, most_usd)
        allowance.reserved_usd = most_usd or 0.0
    allowance.left_usd = most_usd or 0.0
    allowance.left_tokens = allowance.once.tokens * times
    if ledger is not None:
        try:
            allowance.hold = await ledger.reserve(
                most_usd,
                allowance.left_tokens,
                user=call.user_id,
                tenant=call.tenant,
                feature=call.feature.name,
                wait_s=wait_s,
            )
        except BaseException:
            allowance.settle(0.0, asked=False)
            raise
    return allowance


def _most_usd(models: Sequence[ModelSettings], tokens: int, max_tokens: int) -> float | None:
    """What one attempt may cost at most, at the dearest model; None if none has a price."""
    prices = [model.price for model in models if model.price is not None]
    if not prices:
        return None
    return max(tokens * p.input + max_tokens * p.output for p in prices) / 1_000_000


async def _reserve_in_run(budget: Budget, model: ModelSettings, most_usd: float | None) -> None:
    if model.price is None or most_usd is None:
        raise ConfigError(
            f"a spending limit needs the price of model {model.name}. "
            f"Add price = {{ input = …, output = … }} under [models.{model.name}]."
        )
    if not await budget.reserve(most_usd):
        raise CallError("budget", f"{most_usd:.4f} USD more would pass the spending limit")
