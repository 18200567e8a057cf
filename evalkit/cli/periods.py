"""Moments as people write them on a command line: an ISO 8601 date or time, or 24h, 7d."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

DAY = 86_400_000_000
"""Microseconds."""
_AGO = re.compile(r"(\d{1,5})([mhdw])")
_UNIT = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Moment(click.ParamType):
    """Microseconds since 1970; without a time zone it is UTC, with a number it is so long ago."""

    name = "WHEN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        ago = _AGO.fullmatch(value)
        if ago:
            return now() - timedelta(**{_UNIT[ago[2]]: int(ago[1])}) // timedelta(microseconds=1)
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no moment: 2026-03-01, 2026-03-01T12:00, 90m, 24h or 7d is.")
        return micros(at if at.tzinfo else at.replace(tzinfo=UTC))


MOMENT = Moment()


def now() -> int:
    """UTC, microseconds since 1970."""
    return micros(datetime.now(UTC))


def micros(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def iso(at: int) -> str:
    """Microseconds since 1970 as people and JSON read them."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)).isoformat()
