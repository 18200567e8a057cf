"""Forgets old texts, or all of one user, in every place that has them.

Logged calls, sampling jobs and feedback; answers that wait for people, and jobs; what
annotators were shown and noted; kept answers. Each place is changed whole or not at all,
and what was killed is finished by the next.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from evalkit.call.cache_storage import SqliteCache, cache_path, clear_cache, open_cache
from evalkit.call.queue_forgetting import QueuePurged, forget_queued
from evalkit.score.label_forgetting import LabelsPurged, forget_labelled
from evalkit.settings import RetentionSettings, Settings
from evalkit.store.retention import Purged, PurgeRule, purge
from evalkit.store.views import Store

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What went, or would go, place by place."""

    log: Purged
    queue: QueuePurged
    labels: LabelsPurged
    kept_answers: int | None
    """Answers that caches had; None when that is not known before it is done."""

    def as_json(self) -> dict[str, Any]:
        return {
            **self.log.as_json(),
            **asdict(self.queue),
            **asdict(self.labels),
            "kept_answers": self.kept_answers,
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
        kept_answers=None if dry_run else _forget_kept(settings, rule),
    )


def _forget_kept(settings: Settings, rule: PurgeRule) -> int:
    """A cache does not know whose question an answer was for: of a user, all of it goes.

    Redis forgets by itself, as `[retention]` bounds what is kept.
    """
    if rule.user_ids:
        return clear_cache(settings)
    cache = open_cache(settings)
    if not isinstance(cache, SqliteCache) or not cache_path(settings).exists():
        return 0
    deleted = sum(
        cache.clear(feature, stored_before=at / 1e6) for feature, at in rule.texts_before_of.items()
    )
    if rule.texts_before is not None:
        deleted += cache.clear(stored_before=rule.texts_before / 1e6)
    return deleted
