"""Find the run of a store that somebody names, for every command that takes a RUN.

What cannot be read is never passed over: where it may be the run that is meant, that is
said, and no other run is taken in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalkit.decide.selectors import LATEST, Manifest, find_run, is_newer
from evalkit.errors import ConfigError, DamagedStore

if TYPE_CHECKING:
    from evalkit.store.views import Store


def run_named(store: Store, text: str) -> Manifest:
    """The one run that `text` names: an id, the start of one, `latest`, `latest~1`, …

    Raises ConfigError when none or several fit, DamagedStore where a run whose manifest
    cannot be read may be meant.
    """
    runs = store.runs()
    store.refuse_unreadable(text)
    counts = LATEST.fullmatch(text) is not None
    try:
        run = find_run(runs, text)
    except ConfigError:
        if counts:
            _refuse_older(store, text, than=None)
        raise
    if counts:
        _refuse_older(store, text, than=str(run["run_id"]))
    return run


def _refuse_older(store: Store, text: str, *, than: str | None) -> None:
    """Raise DamagedStore where a run that cannot be read may be newer than the one found."""
    newer = [one for one in store.unreadable_runs if than is None or is_newer(one, than=than)]
    if newer:
        instead = "" if than is None else f" Name the run you mean, e.g. {than}."
        raise DamagedStore(
            f"{text}: run {max(newer)} cannot be read and may be meant.{instead} "
            f"{'; '.join(store.problems)}"
        )
