"""What servers send back: JSON read strictly, and errors as kinds of the failure table.

Replies are foreign data: every value is checked before it becomes part of a record.
Error bodies differ from server to server; the tables below say which word means what.
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, NoReturn

from evalkit.errors import CallError

MAX_RETRY_AFTER_S = 3600.0
MAX_QUOTED_CHARS = 300
MAX_VALUES = 400_000
"""A reply of more parts takes many times its size in memory, and says nothing that is asked."""
SMALL_BYTES = 2 * MAX_VALUES
"""Has no room for so many parts."""

KIND_OF_STATUS: dict[int, str] = {
    400: "bad_request",
    401: "auth",
    402: "quota_exhausted",
    403: "auth",
    404: "not_found",
    408: "server",
    409: "server",
    410: "not_found",
    413: "context_length",
    422: "bad_request",
    429: "rate_limit",
    529: "rate_limit",
}
"""Others: 5xx is server, 3xx and 4xx are bad_request."""

KIND_OF_CODE: dict[str, str] = {
    "insufficient_quota": "quota_exhausted",
    "billing_hard_limit_reached": "quota_exhausted",
    "billing_not_active": "quota_exhausted",
    "billing_error": "quota_exhausted",
    "context_length_exceeded": "context_length",
    "exceed_context_size_error": "context_length",
    "string_above_max_length": "context_length",
    "request_too_large": "context_length",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_error": "rate_limit",
    "overloaded_error": "rate_limit",
    "invalid_api_key": "auth",
    "authentication_error": "auth",
    "permission_error": "auth",
    "model_not_found": "not_found",
    "not_found_error": "not_found",
}
"""`error.code` or `error.type`, whatever the status: they say more than it does."""

KIND_OF_MESSAGE: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"context (length|window|size)|prompt is too long|too many (input )?tokens"
            r"|input is too long|input token count",
            re.IGNORECASE,
        ),
        "context_length",
    ),
    (re.compile(r"credit balance is too low|exceeded your current quota", re.I), "quota_exhausted"),
)
"""For servers that answer 400 with a sentence and no code of its own."""


# --- reading values ----------------------------------------------------------------


def _no_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def read_json(text: str | bytes) -> Any:
    """Parse a reply. Raises CallError(bad_reply) for anything but JSON in UTF-8."""
    if len(text) > SMALL_BYTES:
        _refuse_many_values(text)
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else _first_line(error)
        raise CallError("bad_reply", f"the reply is not JSON: {reason}") from None


def _refuse_many_values(text: str | bytes) -> None:
    n = text.count(",") if isinstance(text, str) else text.count(b",")
    if n > MAX_VALUES:
        raise CallError("too_large", f"the reply has more than {MAX_VALUES:,} parts")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:MAX_QUOTED_CHARS]


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise CallError("bad_reply", f"{what} of the reply is not an object")


def items(value: Any, what: str) -> Sequence[Any]:
    if isinstance(value, list):
        return value
    raise CallError("bad_reply", f"{what} of the reply is not a list")


def text(value: Any, what: str) -> str:
    """A text that can be written as UTF-8: half a surrogate pair becomes U+FFFD."""
    if not isinstance(value, str):
        raise CallError("bad_reply", f"{what} of the reply is not text")
    return value if value.isascii() else mended(value)


def mended(value: str) -> str:
    """Join surrogate pairs; replace halves that stand alone."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def text_or_none(value: Any) -> str | None:
    return mended(value) if isinstance(value, str) else None


MAX_COUNT = 1_000_000_000
"""Of tokens in one reply; no context is as long."""


def count(value: Any) -> int | None:
    """A number of tokens; None for what cannot be one: a cost of it would spend every budget."""
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return value if is_count and 0 <= value <= MAX_COUNT else None


# --- errors ------------------------------------------------------------------------


def error_of_status(
    status: int, body: bytes, *, headers: Mapping[str, str], secrets: Sequence[str] = ()
) -> CallError:
    """What a reply with another status than 200 means."""
    try:
        value = _DECODER.decode(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        value = None
    codes, message = _said(value)
    kind = _kind_of(codes, message if status in (400, 413, 422, 429) else "", status)
    if kind is None:
        default = "server" if status >= 500 else "bad_request"
        kind = KIND_OF_STATUS.get(status, default)
    if 300 <= status < 400:
        message = "it redirects, which is not followed; correct base_url"
    told = f"status {status}" + (f": {quoted(message, secrets)}" if message else "")
    return CallError(kind, told, status=status, retry_after_s=retry_after_s(headers))


def read_event(data: str, name: str, *, secrets: Sequence[str] = ()) -> Any:
    """Parse an event of a stream. Raises CallError for one that is an error, or no JSON."""
    try:
        value = read_json(data)
    except CallError:
        if name != "error":
            raise
        value = data  # said in plain words
    raise_if_error(value, named=name == "error", secrets=secrets)
    return value


def raise_if_error(value: Any, *, named: bool = False, secrets: Sequence[str] = ()) -> None:
    """Raise the error that a reply or event with status 200 carries, or is, by its name too."""
    if not (named or _is_error(value)):
        return
    codes, message = _said(value)
    numbers = [int(code) for code in codes if code.isdecimal() and len(code) == 3]
    status = numbers[0] if numbers else 500
    kind = _kind_of(codes, message, status)
    if kind is None:
        kind = KIND_OF_STATUS.get(status, "server")
        if not numbers and "invalid_request_error" in codes:
            kind = "bad_request"
    told = quoted(message, secrets) or "no reason given"
    raise CallError(kind, f"an error inside the reply: {told}", status=200)


def _is_error(value: Any) -> bool:
    """Whether it holds an error, or says that it is one."""
    if not isinstance(value, dict):
        return False
    return bool(value.get("error")) or "error" in (value.get("type"), value.get("object"))


def _said(value: Any) -> tuple[list[str], str]:
    """Codes and message of an error body, in any of the shapes servers use."""
    error = (value.get("error") or value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        return [], error if isinstance(error, str) else ""
    codes = [str(error[key]) for key in ("code", "type", "status") if error.get(key) is not None]
    message = error.get("message") or error.get("detail") or ""
    return codes, message if isinstance(message, str) else ""


def _kind_of(codes: Sequence[str], message: str, status: int) -> str | None:
    for code in codes:
        if code in KIND_OF_CODE:
            return KIND_OF_CODE[code]
    for pattern, kind in KIND_OF_MESSAGE:
        # "Too many tokens" of a 429 are those of a minute: the request itself is not too long.
        if not (status == 429 and kind == "context_length") and pattern.search(message[:10_000]):
            return kind
    return None


def quoted(message: str, secrets: Sequence[str] = ()) -> str:
    """A server's own words in one short line, without keys: some servers echo them."""
    for secret in secrets:
        message = message.replace(secret, "***")
    shown = "".join(c if c.isprintable() else " " for c in mended(message[:10_000]))
    line = " ".join(shown.split())
    return line if len(line) <= MAX_QUOTED_CHARS else line[: MAX_QUOTED_CHARS - 1] + "…"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as the server asks, at most an hour; None where it does not say."""
    millis = _number(headers.get("retry-after-ms"))
    seconds = millis / 1000 if millis is not None else _number(headers.get("retry-after"))
    if seconds is None and (date := headers.get("retry-after")):
        try:
            at = email.utils.parsedate_to_datetime(date)
            if at.tzinfo is None:  # the old form of HTTP dates names no zone; all are GMT
                at = at.replace(tzinfo=UTC)
            seconds = at.timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _number(header: str | None) -> float | None:
    found = re.fullmatch(r"\s*(\d{1,30}(\.\d{1,9})?)\s*", header or "", re.ASCII)
    return float(found[1]) if found else None
