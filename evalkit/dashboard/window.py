"""The time a dashboard shows, in steps of an hour, a day or a week."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOURLY_UP_TO = 3 * DAY_US
DAILY_UP_TO = 120 * DAY_US


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Whole hours of UTC; times are microseconds since 1970."""

    since: int
    until: int
    """Excluded."""

    @classmethod
    def of(cls, since: int, until: int) -> Window:
        """The window, widened to whole hours."""
        started = since // HOUR_US * HOUR_US
        return cls(since=started, until=max(-(-until // HOUR_US) * HOUR_US, started + HOUR_US))

    @property
    def step_us(self) -> int:
        """Few enough steps to be seen: at most 72 hours, 120 days, else weeks."""
        length = self.until - self.since
        if length <= HOURLY_UP_TO:
            return HOUR_US
        return DAY_US if length <= DAILY_UP_TO else 7 * DAY_US

    @property
    def step_name(self) -> str:
        return {HOUR_US: "hour", DAY_US: "day"}.get(self.step_us, "week")

    @property
    def steps(self) -> list[int]:
        """Start of each step, UTC; the first may begin before the window does."""
        first = self.since // self.step_us * self.step_us
        return list(range(first, self.until, self.step_us))

    @property
    def before(self) -> Window:
        """The time of equal length that ended when this one began."""
        return Window(since=2 * self.since - self.until, until=self.since)

    def label(self, at: int) -> str:
        """A step in words: `8 Mar`, `8 Mar 14:00`."""
        when = moment(at)
        day = f"{when.day} {when:%b}"
        return f"{day} {when:%H:%M}" if self.step_us == HOUR_US else day

    @property
    def words(self) -> str:
        """`2 Mar 2026, 00:00 to 9 Mar 2026, 00:00 UTC`."""
        first, last = moment(self.since), moment(self.until)
        return f"{first.day} {first:%b %Y, %H:%M} to {last.day} {last:%b %Y, %H:%M} UTC"


def moment(at: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at)


def iso(at: int) -> str:
    return moment(at).isoformat()
