"""Who answers: by kind of query, by a function, by confidence."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.routing import (
    ExampleTagger,
    Route,
    Tag,
    answer_by_function,
    is_unsure,
    make_tagger,
    read_examples,
    route,
)
from evalkit.errors import CallError, ConfigError
from evalkit.settings import FeatureSettings, Settings

ROUTES = {"code": "large", "password-reset": f"call:{__name__}:send_link"}


def feature(**more: Any) -> FeatureSettings:
    values: dict[str, Any] = {"model": "small", "fallbacks": ("large", "other"), **more}
    return FeatureSettings(name="ask", prompt_name="ask", prompt_version="v1", **values)


def send_link(input: Mapping[str, Any]) -> dict[str, Any]:
    return {"sent_to": input["user"]}


async def say_hello(input: Mapping[str, Any]) -> str:
    return "hello"


def fails(input: Mapping[str, Any]) -> str:
    raise RuntimeError("secret detail")


def kind_of(input: Mapping[str, Any]) -> str | None:
    return "code" if "def " in input["text"] else None


# --- by kind -----------------------------------------------------------------------------


async def routed(said: Any, **more: Any) -> Route:
    return await route(feature(routes=ROUTES, **more), {"text": "q"}, tagger=lambda input: said)


async def test_the_kind_of_a_query_decides_the_model() -> None:
    found = await routed(Tag(kind="code", confidence=0.93))

    assert found.model == "large"
    assert found.reason == "kind code (0.93) -> large"
    assert found.models(feature()) == ("large", "other")


async def test_a_route_may_be_a_function_and_then_no_model_is_asked() -> None:
    found = await routed("password-reset")

    assert found.function == f"{__name__}:send_link"
    assert found.models(feature()) == ()
    assert await answer_by_function(found.function, {"user": "ann"}) == (
        '{"sent_to": "ann"}',
        {"sent_to": "ann"},
    )


async def test_a_kind_without_a_route_and_no_kind_go_to_the_features_own_model() -> None:
    unknown, none = await routed("poetry"), await routed(None)

    assert (unknown.model, unknown.reason) == ("small", "kind poetry -> small")
    assert (none.model, none.reason) == ("small", "no kind fits")
    assert unknown.models(feature()) == ("small", "large", "other")


async def test_a_tagger_that_fails_or_says_nonsense_costs_no_call() -> None:
    broken = await route(feature(routes=ROUTES), {"text": "q"}, tagger=fails)
    nonsense = await routed(42)

    assert (broken.model, broken.reason) == ("small", "tagger failed: RuntimeError")
    assert (nonsense.model, nonsense.reason) == ("small", "tagger failed: TypeError")


async def test_a_feature_without_routes_asks_no_tagger() -> None:
    assert await route(feature(), {"text": "q"}, tagger=fails) == Route(model="small", reason="")


async def test_a_routes_function_may_be_async_and_its_failure_tells_no_secret() -> None:
    assert await answer_by_function(f"{__name__}:say_hello", {}) == ("hello", None)

    with pytest.raises(CallError) as caught:
        await answer_by_function(f"{__name__}:fails", {})
    assert caught.value.kind == "server"
    assert "secret" not in str(caught.value)


async def test_a_named_function_is_the_tagger() -> None:
    settings = Settings(root=Path())
    own = feature(routes=ROUTES, tagger=f"{__name__}:kind_of")

    tagger = make_tagger(own, settings)

    assert (await route(own, {"text": "def f(): ..."}, tagger=tagger)).model == "large"
    assert (await route(own, {"text": "hello"}, tagger=tagger)).model == "small"
    assert make_tagger(feature(), settings) is None


# --- examples ----------------------------------------------------------------------------


def write_examples(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


async def test_examples_teach_the_embedded_tagger(tmp_path: Path) -> None:
    rows = [{"kind": "password-reset", "text": "I forgot my password"},
            {"kind": "password-reset", "text": "reset the passcode of my account"},
            {"kind": "code", "text": "why does this function raise TypeError"}]  # fmt: skip
    write_examples(tmp_path / "kinds.jsonl", rows)
    own = feature(routes=ROUTES, tagger="kinds.jsonl")
    tagger = make_tagger(own, Settings(root=tmp_path))

    reset = await route(own, {"text": "I have forgotten the password of my account"}, tagger=tagger)
    other = await route(own, {"text": "Who wrote Moby Dick?"}, tagger=tagger)

    assert reset.function is not None
    assert (other.model, other.reason) == ("small", "no kind fits")


def test_every_bad_line_of_the_examples_is_named(tmp_path: Path) -> None:
    path = write_examples(tmp_path / "kinds.jsonl", [{"kind": "a", "text": "t"}, {"kind": "a"}, []])

    with pytest.raises(ConfigError) as caught:
        read_examples(path)

    assert [p.split(": ")[0] for p in caught.value.problems] == ["kinds.jsonl:2", "kinds.jsonl:3"]


def test_one_kind_alone_is_no_choice(tmp_path: Path) -> None:
    path = write_examples(tmp_path / "kinds.jsonl", [{"kind": "a", "text": "t"}])

    with pytest.raises(ConfigError, match="two at least"):
        read_examples(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_examples(tmp_path / "missing.jsonl")


def test_a_wrong_route_to_a_function_is_rare_on_real_questions(
    shared_data: Callable[[str], Path],
) -> None:
    with shared_data("tasks/banking77_test.csv").open(encoding="utf-8", newline="") as file:
        rows = [tuple(row) for row in csv.reader(file)][1:]
    wanted = {"passcode_forgotten", "lost_or_stolen_card", "exchange_rate", "change_pin"}
    by_intent: dict[str, list[str]] = {}
    for text, intent in rows:
        by_intent.setdefault(intent if intent in wanted else "other", []).append(text)
    tagger = ExampleTagger(
        {intent: texts[: 200 if intent == "other" else 10] for intent, texts in by_intent.items()}
    )

    tagged = [
        (intent, tagger({"text": text}))
        for intent, texts in by_intent.items()
        for text in texts[-30:]
    ]

    routed = [(intent, tag.kind) for intent, tag in tagged if tag and tag.kind in wanted]
    right = sum(intent == kind for intent, kind in routed)
    assert len(routed) > 60
    assert right / len(routed) > 0.8


# --- the cascade -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("confidence", "below", "unsure"),
    [
        (0.5, 0.6, True),
        (0.6, 0.6, False),
        (None, 0.6, False),
        (0.1, None, False),
        (0.0, 0.0, False),
    ],
)
def test_a_confidence_not_known_is_no_low_one(
    confidence: float | None, below: float | None, unsure: bool
) -> None:
    assert is_unsure(confidence, below) is unsure
