"""Forgets old texts, or all of one user, in every place that has them.

Logged calls, sampling jobs and feedback; answers that wait for people, and jobs; what
annotators were shown and noted; kept answers; who spent what. Each place is changed whole or
not at all, and what was killed is finished by the next. What lies elsewhere is counted, and said.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from evalkit.call.cache_storage import URL_ENV, cache_path, clear_cache
from evalkit.call.ledger_forgetting import SpendingPurged, forget_spending
from evalkit.call.queue_forgetting import QueuePurged, forget_queued
from evalkit.score.label_forgetting import LabelsPurged, forget_labelled
from evalkit.settings import RetentionSettings, Settings
from evalkit.store.retention import Purged, PurgeRule, purge
from evalkit.store.unreached import Unreached, unreached
from evalkit.store.views import Store

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What went, or would go, place by place."""

    log: Purged
    queue: QueuePurged
    labels: LabelsPurged
    spending: SpendingPurged
    elsewhere: Unreached
    """What is at attached addresses, and stays there."""
    kept_answers: int | None
    """Answers that caches had; None when that is not known before it is done."""
    kept_in: str
    """Where these are: the file, or Redis."""

    def as_json(self) -> dict[str, Any]:
        return {
            **self.log.as_json(),
            **asdict(self.queue),
            **asdict(self.labels),
            **asdict(self.spending),
            "elsewhere": self.elsewhere.as_json(),
            "kept_answers": self.kept_answers,
            "kept_in": self.kept_in,
        }


def rule_of(keep: RetentionSettings, *, now: int) -> PurgeRule:
    """What `[retention]` says, as of `now` (microseconds since 1970)."""

    def before(days: int | None) -> int | None:
        return None if days is None else now - days * DAY_US

    return PurgeRule(
        texts_before=before(keep.text_days),
        texts_before_of={name: now - days * DAY_US for name, days in keep.features.items()},
        calls_before=before(keep.calls_days),
    )


def forget(
    store: Store, settings: Settings, rule: PurgeRule, *, dry_run: bool = False
) -> Forgotten:
    """Apply a rule everywhere. Labels first: the log knows whose calls they are of."""
    users: Collection[str] = rule.user_ids
    labels = LabelsPurged()
    if store.path.is_dir():
        labels = forget_labelled(store, rule.before, user_ids=users, dry_run=dry_run)
    return Forgotten(
        labels=labels,
        queue=forget_queued(store.path, rule.before, user_ids=users, dry_run=dry_run),
        log=purge(store, rule, dry_run=dry_run),
        spending=forget_spending(store.path, user_ids=users, dry_run=dry_run),
        elsewhere=unreached(store, rule),
        kept_answers=None if dry_run else _forget_kept(settings, rule),
        kept_in=_kept_in(settings),
    )


def _forget_kept(settings: Settings, rule: PurgeRule) -> int:
    """A cache does not know whose question an answer was for: of a user, all of it goes."""
    if rule.user_ids:
        return clear_cache(settings)
    deleted = sum(
        clear_cache(settings, feature, stored_before=at / 1e6)
        for feature, at in rule.texts_before_of.items()
    )
    if rule.texts_before is not None:
        deleted += clear_cache(settings, stored_before=rule.texts_before / 1e6)
    return deleted


def _kept_in(settings: Settings) -> str:
    return "Redis" if os.environ.get(URL_ENV) else str(cache_path(settings))
