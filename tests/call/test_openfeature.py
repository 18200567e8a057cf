"""Flags through OpenFeature, in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("openfeature")

from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from evalkit.call.flags import Flags, Variant
from evalkit.call.openfeature import EvalkitProvider, OpenFeatureFlags
from evalkit.config import FlagSettings, Settings


@pytest.fixture(autouse=True)
def _no_provider_left() -> Iterator[None]:
    yield
    api.clear_providers()


def own_flags(**flags: FlagSettings) -> Flags:
    return Flags(Settings(root=Path(), flags=flags))


EXPERIMENT = FlagSettings(name="llm", share=0.5, prompt="classify@v2", model="embedded")


def test_the_applications_provider_decides() -> None:
    flag = InMemoryFlag("on", {"on": True, "off": False})
    killed = InMemoryFlag("off", {"on": True, "off": False})
    api.set_provider(InMemoryProvider({"llm": flag, "old": killed}))
    flags = OpenFeatureFlags()

    assert flags.variant("llm", user_id="u-1") == Variant(True, "on")
    assert flags.variant("old", user_id="u-1") == Variant(False, "off")
    assert flags.variant("nobody wrote it", user_id="u-1") == Variant(True, "on")
    assert flags.errors == 0


def test_what_goes_out_through_our_provider_comes_back_the_same() -> None:
    own = own_flags(llm=EXPERIMENT, old=FlagSettings(name="old", enabled=False))
    api.set_provider(EvalkitProvider(own))
    flags = OpenFeatureFlags()

    users = [f"u-{n}" for n in range(30)]

    for name in ("llm", "old", "nobody wrote it"):
        for user in users:
            assert flags.variant(name, user_id=user) == own.variant(name, user_id=user)


def test_a_provider_that_fails_turns_no_switch_back_on() -> None:
    class Flaky(EvalkitProvider):
        down = False

        def resolve_boolean_details(self, *arguments, **named):
            if self.down:
                raise ConnectionError("the flag service is down")
            return super().resolve_boolean_details(*arguments, **named)

    provider = Flaky(own_flags(llm=FlagSettings(name="llm", enabled=False)))
    api.set_provider(provider)
    flags = OpenFeatureFlags()
    before = flags.variant("llm", user_id="u-1")

    provider.down = True
    during = flags.variant("llm", user_id="u-1")

    assert not before.enabled
    assert not during.enabled
    assert flags.errors == 1


def test_the_rest_of_the_application_sees_arms_and_their_prompts() -> None:
    api.set_provider(EvalkitProvider(own_flags(llm=EXPERIMENT)))
    client = api.get_client()
    user = next(f"u-{n}" for n in range(50) if treated(f"u-{n}"))

    context = EvaluationContext(targeting_key=user)

    assert client.get_boolean_value("llm", False, context) is True
    assert client.get_string_value("llm", "?", context) == "treatment"
    assert client.get_object_value("llm", {}, context)["prompt"] == "classify@v2"
    assert client.get_boolean_details("llm", False, context).flag_metadata == {
        "prompt": "classify@v2",
        "model": "embedded",
    }


def treated(user: str) -> bool:
    return own_flags(llm=EXPERIMENT).variant("llm", user_id=user).arm == "treatment"


def test_a_flag_is_not_a_number_and_an_unknown_one_is_the_default() -> None:
    api.set_provider(EvalkitProvider(own_flags(llm=EXPERIMENT)))
    client = api.get_client()

    assert client.get_integer_value("llm", 7) == 7
    assert client.get_float_value("llm", 0.5) == 0.5
    assert client.get_boolean_details("unknown", False).value is False
