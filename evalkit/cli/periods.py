"""Moments as people write them on a command line: an ISO 8601 date or time, or 24h, 7d."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

DAY = 86_400_000_000
"""Microseconds."""
_AGO = re.compile(r"(\d{1,5})([mhdw])")
_UNIT = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str) -> int:
    """Microseconds since 1970: of a time, UTC unless it says its zone, or of so long ago."""
    ago = _AGO.fullmatch(text)
    if ago:
        return now() - timedelta(**{_UNIT[ago[2]]: int(ago[1])}) // timedelta(microseconds=1)
    try:
        at = datetime.fromisoformat(text)
        return micros((at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC))
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no moment: 2026-03-01, 2026-03-01T12:00, 90m, 24h or 7d is."
        ) from None


def refuse_backwards(since: int | None, until: int | None) -> None:
    """Raise UsageError for a window that ends before it begins; an empty one is a scheduler's."""
    if since is not None and until is not None and since > until:
        raise click.UsageError("--since is after --until.")


def span(text: str) -> float:
    """Seconds: of 90m, 24h, 7d."""
    found = _AGO.fullmatch(text)
    if not found:
        raise click.BadParameter(f"{text!r} is no length of time: 90m, 24h or 7d is.")
    return timedelta(**{_UNIT[found[2]]: int(found[1])}).total_seconds()


def now() -> int:
    """UTC, microseconds since 1970."""
    return micros(datetime.now(UTC))


def micros(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def iso(at: int) -> str:
    """Microseconds since 1970 as people and JSON read them."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)).isoformat()
