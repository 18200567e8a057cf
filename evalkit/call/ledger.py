"""Spending limits that many calls at once, in several processes, cannot pass together.

Before a call the most it may cost is reserved, after it what it did cost is settled, in
transactions on `budget.sqlite`. Many calls at once share them: what is to be settled is
written when the next call reserves. While another process writes, those who reserve wait
for it and the event loop goes on. Amounts are whole numbers of 1e-12 US dollars, so that
sums are exact. A cost that is not known is never 0: it is counted, and what was reserved
for it stays spent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from evalkit.call.durable import (
    BUSY_S,
    RETRY_S,
    is_busy,
    open_sqlite,
    transaction,
    wait_no_more,
    when_free,
)
from evalkit.call.processes import is_alive, is_gone, this_process
from evalkit.errors import CallError
from evalkit.frozen import frozen
from evalkit.settings import BudgetSettings, SpendCap

log = logging.getLogger(__name__)

T = TypeVar("T")

PER_USD = 10**12
HOLD_S = 900.0
"""How long a hold lives whose process cannot be seen from here."""

BUSY_CALLS = 8
"""With as many calls under way, a settlement waits for the next of them to reserve."""
MAX_UNSETTLED = 64

VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS spent (   -- the newest day of each scope, and the month it is in
    scope TEXT NOT NULL,             -- total | user | tenant | feature
    name TEXT NOT NULL,              -- of the user, tenant or feature; '' for total
    day TEXT NOT NULL,               -- UTC, as 2026-01-31
    day_amount INTEGER NOT NULL,     -- 1e-12 USD, what is on hold included
    day_tokens INTEGER NOT NULL,     -- what is on hold included
    day_calls INTEGER NOT NULL,
    day_unknown INTEGER NOT NULL,    -- calls whose cost is not known
    month_amount INTEGER NOT NULL,
    month_tokens INTEGER NOT NULL,
    month_calls INTEGER NOT NULL,
    month_unknown INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holds (   -- calls that are under way
    id INTEGER PRIMARY KEY,          -- random: never that of an expired one again
    owner TEXT NOT NULL,             -- process, see processes.py
    until REAL NOT NULL,             -- seconds since 1970
    day TEXT NOT NULL,
    user TEXT, tenant TEXT, feature TEXT,
    amount INTEGER,                  -- null: price not known
    tokens INTEGER NOT NULL
);
"""


def _adding(n_scopes: int) -> str:
    """SQL that adds ?2 to ?5 to the day ?1 and its month, in rows named by ?6, ?7 and on.

    A row of an earlier day begins anew; one of a later day is left as it is, and its month
    too if that is another: who settles after midnight changes what it had reserved.
    """
    changes = ["day = max(day, ?1)"]
    for number, unit in enumerate(("amount", "tokens", "calls", "unknown"), 2):
        for span, same in (("day", "day = ?1"), ("month", "substr(day, 1, 7) = substr(?1, 1, 7)")):
            column = f"{span}_{unit}"
            changes.append(
                f"{column} = CASE WHEN {same} THEN {column} + ?{number} "
                f"WHEN day < ?1 THEN ?{number} ELSE {column} END"
            )
    row = "(?{}, ?{}, ?1, ?2, ?3, ?4, ?5, ?2, ?3, ?4, ?5)"
    rows = ", ".join(row.format(6 + 2 * i, 7 + 2 * i) for i in range(n_scopes))
    return f"INSERT INTO spent VALUES {rows} ON CONFLICT DO UPDATE SET {', '.join(changes)}"


_ADD = {n: _adding(n) for n in range(1, 5)}
_ADD_AND_TELL = {
    n: f"{sql} RETURNING scope, name, day_amount, day_tokens, day_calls, "
    "month_amount, month_tokens, month_calls"
    for n, sql in _ADD.items()
}

Scope = tuple[str, str]
"""(scope, name), e.g. ("user", "alice")."""


@dataclass(slots=True, kw_only=True)
class Hold:
    """What is set aside for one call until it is settled or released."""

    id: int
    day: str
    scopes: tuple[Scope, ...]
    amount: int | None
    """1e-12 USD; None when the model's price is not known."""
    tokens: int


@frozen
class _Settlement:
    """What a hold is to be replaced by."""

    hold: Hold
    amount: int | None
    tokens: int
    calls: int
    in_part: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one user, tenant or feature, or all together, have spent today or this month."""

    scope: str
    name: str
    period: str
    """2026-01-31 or 2026-01"""
    cost_usd: float
    """Of the calls whose cost is known, and what is on hold."""
    tokens: int
    calls: int
    unknown_calls: int
    """Calls that cost something nobody knows."""


class Ledger:
    """Reserve before a call, settle after it. Threads and processes may share the file."""

    def __init__(
        self, path: str | Path, caps: BudgetSettings, *, now: Callable[[], float] = time.time
    ) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._day, self._day_ends = "", 0.0
        self._under_way = 0
        self._closing = False
        self._unsettled: list[_Settlement] = []
        self._again: asyncio.TimerHandle | None = None
        """Tries once more what could not be settled while another process wrote."""
        self._general = {
            "total": _limits(caps.total),
            "user": _limits(caps.user),
            "tenant": _limits(caps.tenant),
            "feature": _limits(caps.feature),
        }
        named = {"user": caps.users, "tenant": caps.tenants, "feature": caps.features}
        self._named = {
            (scope, name): _limits(cap) for scope, own in named.items() for name, cap in own.items()
        }
        self._file = open_sqlite(path, SCHEMA, version=VERSION)
        wait_no_more(self._file)
        with self._lock, suppress(sqlite3.OperationalError):
            self._swept()

    async def reserve(
        self,
        cost_usd: float | None,
        tokens: int,
        *,
        user: str | None = None,
        tenant: str | None = None,
        feature: str | None = None,
        wait_s: float = BUSY_S,
    ) -> Hold:
        """Set aside the most that one call may cost, all of its attempts together.

        `cost_usd` is None where no model has a price: limits in USD cannot see such a
        call, those on tokens and calls do. Raises CallError budget naming the limit that
        the call would pass, or when the ledger cannot be written, for `wait_s` if another
        process writes: a limit that cannot be kept stops the spending.
        """
        amount = None if cost_usd is None else round(cost_usd * PER_USD)
        scopes = _scopes(user, tenant, feature)

        def take() -> Hold | str:
            now = self._now()
            held = self._take(scopes, amount, tokens, now)
            if isinstance(held, str) and self._swept():
                held = self._take(scopes, amount, tokens, now)
            self._under_way += isinstance(held, Hold)
            return held

        held = await self._written(take, wait_s)
        if isinstance(held, str):
            raise CallError("budget", held)
        return held

    async def extend(
        self, hold: Hold, more_usd: float, more_tokens: int, *, wait_s: float = BUSY_S
    ) -> None:
        """Set more aside for a call that is under way. Raises CallError budget like `reserve`."""
        amount = None if hold.amount is None else round(more_usd * PER_USD)
        values = (hold.day, amount or 0, more_tokens, 0, 0, *chain.from_iterable(hold.scopes))

        def take_more() -> None:
            with transaction(self._file):
                totals = self._file.execute(_ADD_AND_TELL[len(hold.scopes)], values).fetchall()
                refusal = self._refusal(totals, hold.day, amount, more_tokens, calls=0)
                if refusal is not None:
                    raise CallError("budget", refusal)
                self._file.execute(_HOLD_MORE, (amount, more_tokens, hold.id))
            hold.amount = None if hold.amount is None else hold.amount + (amount or 0)
            hold.tokens += more_tokens

        await self._written(take_more, wait_s)

    def settle(
        self, hold: Hold, cost_usd: float | None, tokens: int | None, *, in_part: bool = False
    ) -> None:
        """Replace a hold by what the call used; what is not known counts as reserved.

        `in_part`: models without a price answered as well, and `cost_usd` is without them.
        """
        amount = None if cost_usd is None else round(cost_usd * PER_USD)
        used = hold.tokens if tokens is None else tokens
        self._end(hold, amount, used, calls=1, in_part=in_part)

    def release(self, hold: Hold) -> None:
        """Give a hold back: no request was made."""
        self._end(hold, 0, 0, calls=0)

    def spent(self) -> list[Spent]:
        """Today and this month, for everyone who has spent something."""
        with self._lock:
            with suppress(sqlite3.Error):  # else it stands there as it was reserved
                self._settle_now()
            today = self._today(self._now())
            rows = self._file.execute("SELECT * FROM spent ORDER BY scope, name").fetchall()
        found = []
        for scope, name, day, *counts in rows:
            for period, (amount, *others) in ((day, counts[:4]), (day[:7], counts[4:])):
                if today.startswith(period):
                    tokens, calls, unknown = others
                    found.append(
                        Spent(
                            scope=scope,
                            name=name,
                            period=period,
                            cost_usd=amount / PER_USD,
                            tokens=tokens,
                            calls=calls,
                            unknown_calls=unknown,
                        )
                    )
        return found

    async def aclose(self) -> None:
        """Close the file; calls that are under way still settle, and the last one closes it."""
        self._closing = True
        try:
            await self._written(self._settle_now, BUSY_S)
        except CallError as error:
            log.error("%s", error)
            self._unsettled.clear()
        with self._lock:
            self._close_if_unused()

    async def _written(self, write: Callable[[], T], wait_s: float) -> T:
        """What `write` returns, made inside the lock, when no other process writes."""

        def locked() -> T:
            with self._lock:
                return write()

        try:
            return await when_free(locked, wait_s=wait_s)
        except sqlite3.Error as error:
            raise CallError("budget", f"the spending ledger cannot be written: {error}") from None

    # --- inside the lock -----------------------------------------------------------

    def _today(self, now: float) -> str:
        if not self._day_ends - 86_400 <= now < self._day_ends:
            self._day = time.strftime("%Y-%m-%d", time.gmtime(now))
            self._day_ends = (now // 86_400 + 1) * 86_400
        return self._day

    def _take(
        self, scopes: tuple[Scope, ...], amount: int | None, tokens: int, now: float
    ) -> Hold | str:
        """Count the call, unless a limit forbids it: then nothing is written, and it is named."""
        file, day = self._file, self._today(now)
        file.execute("BEGIN IMMEDIATE")
        try:
            self._write_settlements()
            values = [day, amount or 0, tokens, 1, 0, *chain.from_iterable(scopes)]
            totals = file.execute(_ADD_AND_TELL[len(scopes)], values).fetchall()
            refusal = self._refusal(totals, day, amount, tokens)
            if refusal is not None:
                file.execute("ROLLBACK")
                return refusal
            names = dict(scopes)
            id = int.from_bytes(os.urandom(7))
            owned = (id, this_process(), now + HOLD_S, day)
            of = (names.get("user"), names.get("tenant"), names.get("feature"))
            file.execute(_HOLD, (*owned, *of, amount, tokens))
            file.execute("COMMIT")
            self._unsettled.clear()
        except BaseException:
            if file.in_transaction:
                file.execute("ROLLBACK")
            raise
        return Hold(id=id, day=day, scopes=scopes, amount=amount, tokens=tokens)

    def _add(self, hold: Hold, amount: int, tokens: int, calls: int, unknown: int) -> None:
        values = [hold.day, amount, tokens, calls, unknown, *chain.from_iterable(hold.scopes)]
        self._file.execute(_ADD[len(hold.scopes)], values)

    def _refusal(
        self,
        totals: list[tuple[Any, ...]],
        day: str,
        amount: int | None,
        tokens: int,
        *,
        calls: int = 1,
    ) -> str | None:
        """The first limit that the call passes, in words.

        A call whose price is not known passes a limit in USD until that is used up.
        """
        wanted = (amount, tokens, calls, amount, tokens, calls)
        for scope, name, *sums in totals:
            limits = self._named.get((scope, name))
            if limits is None:
                limits = self._general[scope]
            for (column, most), total, more in zip(limits, sums, wanted, strict=False):
                if most is None or total < most or more == 0:
                    continue
                if more is None or total > most:
                    period = day if column.startswith("day") else day[:7]
                    unit = column.partition("_")[2]
                    return (
                        f"{self._place(scope, name)}.{column} is {_shown(most, unit)}: "
                        f"{_shown(total - (more or 0), unit)} are spent or reserved in {period}, "
                        f"and this call may take {_shown(more, unit)}"
                    )
        return None

    def _place(self, scope: str, name: str) -> str:
        """Where in the configuration the limit of a scope stands."""
        if (scope, name) in self._named and scope != "total":
            return f"budgets.{scope}s.{name}"
        return "budgets.total" if scope == "total" else f"budgets.{scope} (for {name})"

    def _end(
        self, hold: Hold, amount: int | None, tokens: int, *, calls: int, in_part: bool = False
    ) -> None:
        with self._lock:
            self._under_way -= 1
            self._unsettled.append(
                _Settlement(hold=hold, amount=amount, tokens=tokens, calls=calls, in_part=in_part)
            )
            busy = self._under_way >= BUSY_CALLS and not self._closing
            if not busy or len(self._unsettled) >= MAX_UNSETTLED:
                self._settle_all()
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._closing and not self._under_way and not self._unsettled:
            self._file.close()

    def _settle_all(self) -> None:
        """Write what waits to be settled, soon again where another process writes now."""
        try:
            self._settle_now()
        except sqlite3.Error as error:
            if is_busy(error):
                self._settle_soon()
                return
            # The holds stay counted in full until they expire: the safe side of a limit.
            log.error("the spending ledger cannot be written: %s", error)
            self._unsettled.clear()

    def _settle_now(self) -> None:
        if self._unsettled:
            with transaction(self._file):
                self._write_settlements()
            self._unsettled.clear()

    def _settle_soon(self) -> None:
        if self._again is None:
            self._again = asyncio.get_running_loop().call_later(RETRY_S, self._settle_again)

    def _settle_again(self) -> None:
        with self._lock:
            self._again = None
            self._settle_all()
            self._close_if_unused()

    def _write_settlements(self) -> None:
        """Replace what each hold counted; one that expired meanwhile has nothing to replace."""
        for one in self._unsettled:
            hold = one.hold
            known = one.amount if one.amount is not None else hold.amount or 0
            tokens, calls = one.tokens, one.calls - 1
            unknown = int(one.amount is None or one.in_part)
            if self._file.execute("DELETE FROM holds WHERE id = ?", (hold.id,)).rowcount:
                self._add(hold, known - (hold.amount or 0), tokens - hold.tokens, calls, unknown)
            else:
                self._add(hold, known, tokens, calls, unknown - 1)

    def _swept(self) -> bool:
        """Whether holds of others were in the way that nobody will settle."""
        with transaction(self._file):
            return self._expire()

    def _expire(self) -> bool:
        """Give back the holds of ended processes; their calls stay counted, cost unknown."""
        found = [(_hold(row), row[1], row[2]) for row in self._file.execute("SELECT * FROM holds")]
        now, owners = self._now(), {owner for _, owner, _ in found}
        gone = {owner for owner in owners if is_gone(owner)}
        alive = {owner for owner in owners if is_alive(owner)}
        expired = [
            hold
            for hold, owner, until in found
            if owner in gone or (until < now and owner not in alive)
        ]
        for hold in expired:
            self._file.execute("DELETE FROM holds WHERE id = ?", (hold.id,))
            self._add(hold, -(hold.amount or 0), -hold.tokens, 0, 1)
        return bool(expired)


_HOLD = "INSERT INTO holds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_HOLD_MORE = "UPDATE holds SET amount = amount + ?, tokens = tokens + ? WHERE id = ?"
_Limits: TypeAlias = tuple[tuple[str, int | None], ...]


def _limits(cap: SpendCap) -> _Limits:
    """(name, limit) in the order of the sums in `spent`; () when nothing is limited."""
    if cap == SpendCap():
        return ()
    return (
        ("day_usd", _amount(cap.day_usd)),
        ("day_tokens", cap.day_tokens),
        ("day_calls", cap.day_calls),
        ("month_usd", _amount(cap.month_usd)),
        ("month_tokens", cap.month_tokens),
        ("month_calls", cap.month_calls),
    )


def _hold(row: tuple[Any, ...]) -> Hold:
    id, _, _, day, user, tenant, feature, amount, tokens = row
    scopes = _scopes(user, tenant, feature)
    return Hold(id=id, day=day, scopes=scopes, amount=amount, tokens=tokens)


def _scopes(user: str | None, tenant: str | None, feature: str | None) -> tuple[Scope, ...]:
    named = (("user", user), ("tenant", tenant), ("feature", feature))
    return (("total", ""), *((scope, name) for scope, name in named if name is not None))


def _amount(usd: float | None) -> int | None:
    return None if usd is None else round(usd * PER_USD)


def _shown(value: int | None, unit: str) -> str:
    if value is None:
        return "an unknown amount"
    return f"{value / PER_USD:.6g} USD" if unit == "usd" else f"{value:,} {unit}"
