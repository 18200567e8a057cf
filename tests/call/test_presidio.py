"""The recogniser that asks Presidio."""

from __future__ import annotations

import sys

import pytest

from evalkit.call import presidio
from evalkit.call.guards import Guard
from evalkit.errors import ConfigError
from evalkit.settings import GuardSettings

HERE = "evalkit.call.presidio:recognise"


def test_without_the_extra_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    presidio._analyzer.cache_clear()

    with pytest.raises(ConfigError, match=r"evalkit\[presidio\]"):
        Guard(GuardSettings(pii="replace", recognisers=(HERE,))).check_input({"text": "I am Anna"})


@pytest.mark.filterwarnings("ignore")
def test_names_and_places_become_placeholders_too() -> None:
    pytest.importorskip("presidio_analyzer", reason="needs the extra [presidio]")
    guard = Guard(GuardSettings(pii="replace", recognisers=(HERE,)))

    guarded = guard.check_input({"text": "My name is Anna Schmidt, I live in Berlin, a@b.example"})

    assert guarded.input == {"text": "My name is [PERSON_1], I live in [LOCATION_1], [EMAIL_1]"}


@pytest.mark.filterwarnings("ignore")
def test_kind_that_presidio_does_not_know_is_a_configuration_error() -> None:
    pytest.importorskip("presidio_analyzer", reason="needs the extra [presidio]")

    with pytest.raises(ConfigError, match="'PERSONN'"):
        presidio.recognise("I am Anna Schmidt", ["PERSONN", "email"])
