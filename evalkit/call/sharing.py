"""What calls of several processes spend and wait for together; by itself a process needs none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from evalkit.call.budget import Budget
from evalkit.call.limits import ProviderGate
from evalkit.settings import ProviderSettings

Gates: TypeAlias = Callable[[ProviderSettings], ProviderGate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """The budget of all, and the gate of each provider that lets all of them in."""

    budget: Budget | None
    gates: Gates
