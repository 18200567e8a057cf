"""What a feature may use: which tools, which data sources, which tier of model.

The table is the configuration (`tools`, `sources`, `allow_frontier` of a feature).
Pure: it looks at names and raises, before anything is sent or done.
"""

from __future__ import annotations

from collections.abc import Iterable

from evalkit.errors import CallError
from evalkit.settings import FeatureSettings, ModelSettings


def check(
    feature: FeatureSettings,
    *,
    tools: Iterable[str] = (),
    sources: Iterable[str] = (),
    model: ModelSettings | None = None,
) -> None:
    """Raise CallError policy, naming all that `feature` does not allow.

    A tool has to be declared; a feature that lists no sources may use any that its
    retriever has.
    """
    problems = _undeclared("tool", tools, feature.tools)
    if feature.sources:
        problems += _undeclared("source", sources, feature.sources)
    if model is not None and model.tier == "frontier" and not feature.allow_frontier:
        problems.append(f"model {model.name} is frontier, and allow_frontier is not set")
    if problems:
        raise CallError("policy", f"feature {feature.name}: {'; '.join(problems)}")


def _undeclared(what: str, used: Iterable[str], allowed: tuple[str, ...]) -> list[str]:
    known = ", ".join(allowed) or "none"
    return [
        f"{what} {name[:60]!r} is not allowed (allowed: {known})"
        for name in dict.fromkeys(used)
        if name not in allowed
    ]
