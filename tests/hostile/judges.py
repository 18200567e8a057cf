"""Judge models of several characters, for the python wire."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from evalkit.score.null_answers import NULL_ANSWERS
from tests.score.judging import block

ASKED: Counter[str] = Counter()
"""Answers that any judge here was asked about."""


def _reply(messages: Sequence[Any], grade: int) -> str:
    question = messages[-1]["content"]
    nonce = question.partition('nonce="')[2].partition('"')[0]
    return json.dumps({"judgement_tag": nonce, "reason": "so", "grades": {"right": grade}})


def _output(messages: Sequence[Any]) -> str:
    output = str(block(messages[-1]["content"], "output"))
    ASKED[output] += 1
    return output


def fair(input: Any, messages: Sequence[Any]) -> str:
    """Passes what says something."""
    return _reply(messages, int(_output(messages) not in NULL_ANSWERS))


def credulous(input: Any, messages: Sequence[Any]) -> str:
    """Passes anything at all."""
    _output(messages)
    return _reply(messages, 1)


def one_token(input: Any, messages: Sequence[Any]) -> str:
    """Passes right answers and, of those that say nothing, the colon."""
    output = _output(messages)
    return _reply(messages, int(output == ":" or output not in NULL_ANSWERS))


def mute(input: Any, messages: Sequence[Any]) -> str:
    """Has no judgement on answers that say nothing."""
    return "I would rather not." if _output(messages) in NULL_ANSWERS else _reply(messages, 1)
