"""What a purge does not reach: calls at attached addresses, where nothing is ever overwritten.

It only looks, so that what has to be forgotten there as well can be said, and is not passed over
in silence.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from evalkit.errors import StoreError
from evalkit.store.engine import Engine
from evalkit.store.remote import attached, remote_calls

if TYPE_CHECKING:
    from evalkit.store.retention import PurgeRule
    from evalkit.store.views import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreached:
    """What stays elsewhere."""

    addresses: tuple[str, ...] = ()
    calls: int = 0
    """Calls there that are due, those that are here as well among them."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def unreached(store: Store, rule: PurgeRule) -> Unreached:
    """Count what is due at attached addresses. One that does not answer is named as a problem."""
    addresses = attached(store.path) if store.path.is_dir() else []
    if not addresses:
        return Unreached()
    try:
        return Unreached(addresses=tuple(addresses), calls=_due(store, rule))
    except StoreError as error:
        store.problems.append(f"what is to be forgotten elsewhere is not known: {error}")
        return Unreached(addresses=tuple(addresses))


def _due(store: Store, rule: PurgeRule) -> int:
    limits = [at for at in (rule.calls_before, rule.latest) if at is not None]
    last = "~" if rule.user_ids else _date(max(limits, default=0))
    # Also what is here: a purge of the one copy is none of the other.
    datasets = remote_calls(store.path, [], ("", last))
    if not datasets:
        return 0
    if not rule.user_ids:
        return sum(_old(one, rule) for dataset in datasets for one in dataset.get_fragments())
    with Engine() as engine:
        engine.add_files("calls", [])
        engine.add_datasets("calls", datasets)
        query = "SELECT count(*) AS n FROM calls WHERE user_id IN (SELECT unnest($1))"
        return int(engine.rows(query, [sorted(rule.user_ids)])[0]["n"])


def _old(file: Any, rule: PurgeRule) -> int:
    """Calls of a file that are due for their age, by its day and its footer: no text is read."""
    date = PurePosixPath(file.path).parent.name.removeprefix("date=")
    if rule.calls_before is not None and date < _date(rule.calls_before):
        return int(file.metadata.num_rows)
    if rule.latest is None or date >= _date(rule.latest):
        return 0
    return max(_with_value(file.metadata, name) for name in ("input", "output"))


def _with_value(metadata: Any, name: str) -> int:
    """Rows that have a value in a column; all of a part that does not say."""
    at = metadata.schema.names.index(name)
    n = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        facts = group.column(at).statistics
        n += group.num_rows - (facts.null_count if facts is not None else 0)
    return n


def _date(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, tz=UTC).date().isoformat()
