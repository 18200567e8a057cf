"""Models that think before they answer: no text of the answer, and no silence either."""

from __future__ import annotations

import pytest

from evalkit.records import Finish, TextDelta
from tests.call.providers.asking import a_request, provider_of
from tests.loopback import Behaviour, Loopback, Rule

WIRES = pytest.mark.parametrize("wire", ["openai", "anthropic"])


@WIRES
async def test_each_thought_is_a_sign_of_life_without_text(wire: str) -> None:
    thinks = Behaviour(reasoning="Let me see.", text="On Thursday.")
    with Loopback(Rule(thinks)) as server:
        async with provider_of(wire, server) as provider:
            *pieces, finish = [e async for e in provider.stream(a_request(stream=True))]

    said = [piece.text for piece in pieces if isinstance(piece, TextDelta)]
    assert said[:3] == ["", "", ""]
    assert "".join(said) == "On Thursday."
    assert isinstance(finish, Finish)


@WIRES
async def test_thoughts_of_a_whole_reply_are_no_answer(wire: str) -> None:
    thinks = Behaviour(reasoning="Let me see.", text="On Thursday.")
    with Loopback(Rule(thinks)) as server:
        async with provider_of(wire, server) as provider:
            *pieces, _ = [e async for e in provider.stream(a_request(stream=False))]

    assert [piece.text for piece in pieces if isinstance(piece, TextDelta)] == ["On Thursday."]
