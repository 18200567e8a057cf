"""Drills: the failure table, run against a configuration on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.chunking import Chunk
from evalkit.call.drill import FAULTS, Drilled, drill_failover
from evalkit.call.failures import FAILURES
from evalkit.config import ProviderSettings, Settings
from tests.call.test_replay import settings_of

FAILS_OVER = {
    "rate_limit": 3, "quota_exhausted": 1, "server": 3, "connect": 2, "ttft_timeout": 1,
    "timeout": 3, "stream_cut": 3, "breaker_open": 1, "bad_reply": 2, "too_large": 1,
    "context_length": 1, "invalid_output": 3,
}  # fmt: skip
"""Kind -> failed attempts on the first model before the next one is asked, with 2 retries."""
ENDS = {
    "auth": 1, "bad_request": 1, "not_found": 1, "content_filter": 1, "refusal": 1,
    "truncated": 2, "empty": 1, "budget": 0, "killed": 0,
}  # fmt: skip


def project(folder: Path, **changes: Any) -> Settings:
    """Two applications in this process: `small` at one answers billing, `spare` at two too."""
    settings = settings_of(folder, **{"fallbacks": ("spare",), **changes})
    providers = {
        name: ProviderSettings(name=name, wire="python", target="tests.apps:always_billing")
        for name in ("one", "two")
    }
    return replace(settings, providers=providers)


async def drill(settings: Settings) -> dict[str, Drilled]:
    done = await drill_failover(settings, settings.features["classify"], {"text": "x"})
    return {one.kind: one for one in done}


async def test_every_fault_is_answered_as_the_table_says(tmp_path: Path) -> None:
    drilled = await drill(project(tmp_path))

    assert all(one.as_expected for one in drilled.values())
    assert drilled["(no fault)"].answered_by == "small"
    answered = {kind: one.failed for kind, one in drilled.items() if one.answered_by == "spare"}
    assert answered == FAILS_OVER
    nobody = {kind: one.failed for kind, one in drilled.items() if one.answered_by is None}
    assert nobody == ENDS


async def test_without_a_fallback_nobody_answers_and_the_drill_says_why(tmp_path: Path) -> None:
    drilled = await drill(project(tmp_path, fallbacks=()))

    assert drilled["server"].as_expected
    assert drilled["server"].answered_by is None
    assert drilled["server"].note == "no fallback is configured"
    assert drilled["auth"].note is None


async def test_a_fallback_at_the_same_provider_is_no_fallback(tmp_path: Path) -> None:
    settings = project(tmp_path)
    beside = replace(settings.models["spare"], provider="one")
    settings = replace(settings, models={**settings.models, "spare": beside})

    drilled = await drill(settings)

    assert not drilled["server"].as_expected
    assert drilled["server"].note == "spare is at the same provider, one"
    assert drilled["context_length"].as_expected


async def test_a_fallback_that_is_really_down_is_found(tmp_path: Path) -> None:
    settings = project(tmp_path)
    down = ProviderSettings(name="two", wire="python", target=f"{__name__}:is_down")
    settings = replace(settings, providers={**settings.providers, "two": down})

    drilled = await drill(settings)

    assert not drilled["server"].as_expected
    assert drilled["server"].answered_by is None


def is_down(input: Any) -> None:
    raise RuntimeError("the database is gone")


async def test_a_degraded_answer_is_shown_as_one(tmp_path: Path) -> None:
    drilled = await drill(project(tmp_path, fallbacks=(), on_failure="text:Call us."))

    assert drilled["server"].status == "degraded"
    assert drilled["killed"].status == "degraded"
    assert drilled["killed"].error_kind == "killed"


async def test_a_refusal_goes_on_where_the_feature_says_so(tmp_path: Path) -> None:
    drilled = await drill(project(tmp_path, on_refusal="fallback"))

    assert drilled["refusal"].answered_by == "spare"
    assert drilled["refusal"].as_expected


@pytest.mark.parametrize(("context", "answered_by"), [(8_000, None), (64_000, "spare")])
async def test_what_is_too_long_goes_to_a_larger_context_alone(
    tmp_path: Path, context: int, answered_by: str | None
) -> None:
    settings = project(tmp_path)
    models = {
        "small": replace(settings.models["small"], context=16_000),
        "spare": replace(settings.models["spare"], context=context),
    }

    drilled = await drill(replace(settings, models=models))

    assert drilled["context_length"].answered_by == answered_by
    assert drilled["context_length"].as_expected


def finds(query: str, **_: Any) -> list[Any]:
    return [Chunk(id="c1", text="Invoices come by mail.", score=1.0)]


@pytest.mark.parametrize(("on_empty", "answered_by"), [("refuse", None), ("allow", "small")])
async def test_a_retriever_that_fails_is_part_of_the_drill(
    tmp_path: Path, on_empty: str, answered_by: str | None
) -> None:
    drilled = await drill(project(tmp_path, retriever=f"{__name__}:finds", on_empty=on_empty))

    assert drilled["(no fault)"].as_expected
    assert drilled["retriever"].answered_by == answered_by
    assert drilled["retriever"].as_expected


@pytest.mark.parametrize("retries", [0, 1, 8])
async def test_the_number_of_retries_is_the_features(tmp_path: Path, retries: int) -> None:
    drilled = await drill(project(tmp_path, retries=retries))

    assert [one.kind for one in drilled.values() if not one.as_expected] == []


def test_every_fault_is_a_row_of_the_table() -> None:
    assert set(FAULTS) - {"(no fault)"} <= set(FAILURES)
