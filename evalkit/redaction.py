"""A call record as it may be written down.

Used by the call path before its sink, and by whatever brings in or keeps records of others.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from evalkit.pii import find_pii, redact
from evalkit.records import CallRecord


def redact_record(record: CallRecord, *, clean_input: bool = False) -> CallRecord:
    """`record` as it may be written down: what users and models said without personal data.

    Ids stay usable for counting: one that is personal data becomes the same pseudonym
    each time. `clean_input`: the input has been looked through already.
    """
    told = [
        None if clean_input else record.input,
        record.output,
        record.route_reason,
        record.user_feedback,
        [call.arguments for call in record.tool_calls],
        [attempt.reply for attempt in record.attempts],
    ]
    clean, count = redact(told)
    ids = (record.user_id, record.tenant, record.session_id)
    user_id, tenant, session_id = pseudonyms = tuple(map(_pseudonym, ids))
    retrieved_ids = tuple(_pseudonym(one) or one for one in record.retrieved_ids)
    if not count and pseudonyms == ids and retrieved_ids == record.retrieved_ids:
        return record
    input, output, route_reason, user_feedback, arguments, replies = clean
    calls = zip(record.tool_calls, arguments, strict=True)
    attempts = zip(record.attempts, replies, strict=True)
    return replace(
        record,
        user_id=user_id,
        tenant=tenant,
        session_id=session_id,
        retrieved_ids=retrieved_ids,
        input=record.input if clean_input else input,
        output=output,
        route_reason=route_reason,
        user_feedback=user_feedback,
        tool_calls=tuple(replace(call, arguments=text) for call, text in calls),
        attempts=tuple(
            attempt if text is None else replace(attempt, reply=text) for attempt, text in attempts
        ),
        redactions=record.redactions + count,
    )


def without_texts(record: CallRecord) -> CallRecord:
    """`record` without what was asked and answered, as `log_text = false` wants it written."""
    return replace(
        record,
        input=None,
        output=None,
        tool_calls=tuple(replace(call, arguments="") for call in record.tool_calls),
        attempts=tuple(replace(attempt, reply=None) for attempt in record.attempts),
    )


def _pseudonym(name: str | None) -> str | None:
    if name is None or next(find_pii(name), None) is None:
        return name
    return "anon-" + hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]
