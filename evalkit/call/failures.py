"""The failure table, as data: what each kind of failure means and what is done about it.

`attempts` reads the columns that steer retries, `score` reads `outcome`.
A kind that is not here is a programming error and fails loudly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FailureOutcome = Literal["product_failure", "infra_error", "budget_stop", "cancelled"]


@dataclass(frozen=True, slots=True)
class Strategy:
    """One row of the table."""

    retries: int | None
    """Repeats on the same target at most; None: as many as the feature allows."""
    fail_over: bool
    """Whether the next model may be tried when this one has no retries left."""
    trips_breaker: bool
    backs_off: bool
    """Whether the repeat waits: what the provider could not do now, it may do later."""
    outcome: FailureOutcome
    """What a golden-set case counts as when the call ends with this kind."""
    message: str
    """What the caller's user may be told."""


_BUSY = "The service is busy. Please try again in a moment."
_DOWN = "The service is not available right now."
_SETUP = "The service is not set up correctly."
_NO_ANSWER = "No answer could be given to this request."
_NOT_UNDERSTOOD = "This request does not have the form that is expected."
_TOO_LONG = "This request is too long."
_CUT = "The answer was interrupted."
_NOTHING_FOUND = "Nothing was found that answers this."
_SPENT = "The spending limit has been reached."

# fmt: off
FAILURES: dict[str, Strategy] = {
    #                              again fails  trips  backs  counts as          message
    #                                    over   breaker off
    "rate_limit":          Strategy(None, True,  False, True,  "infra_error",     _BUSY),
    "quota_exhausted":     Strategy(0,    True,  True,  False, "infra_error",     _DOWN),
    "server":              Strategy(None, True,  True,  True,  "infra_error",     _DOWN),
    "connect":             Strategy(1,    True,  True,  True,  "infra_error",     _DOWN),
    "ttft_timeout":        Strategy(0,    True,  True,  False, "infra_error",     _BUSY),
    "timeout":             Strategy(None, True,  True,  True,  "infra_error",     _BUSY),
    "stream_cut":          Strategy(None, True,  True,  True,  "infra_error",     _DOWN),
    "bad_reply":           Strategy(1,    True,  True,  True,  "infra_error",     _DOWN),
    "too_large":           Strategy(0,    True,  False, False, "infra_error",     _DOWN),
    "breaker_open":        Strategy(0,    True,  False, False, "infra_error",     _DOWN),
    "bad_request":         Strategy(0,    False, False, False, "infra_error",     _SETUP),
    "auth":                Strategy(0,    False, False, False, "infra_error",     _SETUP),
    "not_found":           Strategy(0,    False, False, False, "infra_error",     _SETUP),
    "context_length":      Strategy(None, True,  False, False, "product_failure", _TOO_LONG),
    "content_filter":      Strategy(0,    False, False, False, "product_failure", _NO_ANSWER),
    "refusal":             Strategy(0,    False, False, False, "product_failure", _NO_ANSWER),
    "truncated":           Strategy(1,    False, False, False, "product_failure", _NO_ANSWER),
    "empty":               Strategy(0,    False, False, False, "product_failure", _NO_ANSWER),
    "incomplete":          Strategy(0,    False, False, False, "infra_error",     _CUT),
    "invalid_output":      Strategy(0,    True,  False, False, "product_failure", _NO_ANSWER),
    "unsupported":         Strategy(0,    True,  False, False, "product_failure", _NO_ANSWER),
    "over_latency_budget": Strategy(0,    False, False, False, "product_failure", _BUSY),
    "invalid_input":       Strategy(0,    False, False, False, "product_failure", _NOT_UNDERSTOOD),
    "guard_block":         Strategy(0,    False, False, False, "product_failure", _NO_ANSWER),
    "retriever":           Strategy(0,    False, False, False, "infra_error",     _DOWN),
    "no_documents":        Strategy(0,    False, False, False, "product_failure", _NOTHING_FOUND),
    "budget":              Strategy(0,    False, False, False, "budget_stop",     _SPENT),
    "policy":              Strategy(0,    False, False, False, "product_failure", _NO_ANSWER),
    "killed":              Strategy(0,    False, False, False, "cancelled",       _DOWN),
    "cancelled":           Strategy(0,    False, False, False, "cancelled",       _DOWN),
}
# fmt: on
