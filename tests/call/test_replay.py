"""Replays: every way a call can go comes out the same from its recorded replies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.orchestrator import Orchestrator
from evalkit.call.replay import decisions, replay
from evalkit.config import (
    FeatureSettings,
    GuardSettings,
    ModelSettings,
    Price,
    ProviderSettings,
    RetentionSettings,
    Settings,
)
from evalkit.errors import CallError, ConfigError
from evalkit.records import CallRecord, Event, Finish, ModelRequest, Pair, TextDelta, Usage
from evalkit.score.stored import call_record
from evalkit.store.views import open_store
from tests.call.scripted import ManualClock, Scripted, Step, answer, finish

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["billing", "delivery"]}},
    "required": ["label"],
}
GOOD, BAD = '{"label": "billing"}', '{"label": "colour"}'
Change = Callable[[FeatureSettings], FeatureSettings]


def settings_of(folder: Path, **changes: Any) -> Settings:
    """A feature on model small (at one), with spare (at two) beside it."""
    prompt = folder / "prompts" / "classify" / "v1.md"
    prompt.parent.mkdir(parents=True, exist_ok=True)
    prompt.write_text("## system\nGive the label.\n\n## user\n{{ text }}\n", encoding="utf-8")
    schema = folder / "label.schema.json"
    schema.write_text(json.dumps(SCHEMA), encoding="utf-8")
    feature = FeatureSettings(
        name="classify",
        task="classify",
        prompt_name="classify",
        prompt_version="v1",
        model="small",
        output_schema=schema,
        max_tokens=64,
        max_latency_ms=5000,
    )
    price = Price(input=1.0, output=2.0)
    return Settings(
        root=folder,
        retention=RetentionSettings(redact=False),
        providers={
            name: ProviderSettings(name=name, wire="openai", base_url="http://127.0.0.1:9")
            for name in ("one", "two")
        },
        models={
            "small": ModelSettings(name="small", provider="one", id="small-1", price=price),
            "spare": ModelSettings(name="spare", provider="two", id="spare-1", price=price),
        },
        features={"classify": replace(feature, **changes)},
    )


async def recorded(
    settings: Settings,
    steps: Sequence[Step],
    spare: Sequence[Step] = (),
    *,
    takes_s: float = 0.1,
    stream: bool = False,
    input: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> CallRecord:
    """The record that a call leaves when the providers play these steps."""
    clock = ManualClock()
    providers = {
        "one": Scripted(list(steps), clock=clock, takes_s=takes_s),
        "two": Scripted(list(spare) or [answer(GOOD)], clock=clock, takes_s=takes_s),
    }
    orchestrator = Orchestrator(settings, providers=providers, clock=clock.clock())
    if not stream:
        return (await orchestrator.execute("classify", input or {"text": "x"}, **overrides)).record
    pieces = [p async for p in orchestrator.stream("classify", {"text": "x"}, **overrides)]
    last: Any = pieces[-1]
    record: CallRecord = last.record
    return record


def server_down() -> CallError:
    return CallError("server", "503")


def busy(seconds: float) -> CallError:
    return CallError("rate_limit", "429", retry_after_s=seconds)


CALLS: dict[str, tuple[Mapping[str, Any], Sequence[Step], str, str | None]] = {
    "answered": ({}, [answer(GOOD)], "ok", None),
    "repaired": ({}, [answer(f"Here:\n```json\n{GOOD}\n```")], "ok", None),
    "asked again": ({}, [answer(BAD), answer(BAD), answer(GOOD)], "ok", None),
    "never valid": ({}, [answer(BAD)], "error", "invalid_output"),
    "retried": ({}, [server_down(), answer(GOOD)], "ok", None),
    "retry after": ({}, [busy(2), answer(GOOD)], "ok", None),
    "too long a wait": ({}, [busy(60)], "error", "rate_limit"),
    "failed over": ({"fallbacks": ("spare",)}, [server_down()], "ok", None),
    "quota": ({"fallbacks": ("spare",)}, [CallError("quota_exhausted", "402")], "ok", None),
    "all down": ({}, [server_down()], "error", "server"),
    "no key": ({"fallbacks": ("spare",)}, [CallError("auth", "401")], "error", "auth"),
    "truncated": ({}, [answer('{"la', "length")], "error", "truncated"),
    "truncated once": ({}, [answer('{"la', "length"), answer(GOOD)], "ok", None),
    "filtered": ({}, [answer("", "content_filter")], "refused", "content_filter"),
    "empty": ({}, [answer(" ")], "error", "empty"),
    "timed out": ({}, [CallError("timeout", "slow"), answer(GOOD)], "ok", None),
    "cut": ({}, [[TextDelta('{"lab')], answer(GOOD)], "ok", None),
    "too long": ({}, [CallError("context_length", "400")], "error", "context_length"),
    "degraded": ({"on_failure": "text:Call us."}, [server_down()], "degraded", "server"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_is_decided_again_as_it_was(tmp_path: Path, name: str) -> None:
    changes, steps, status, error_kind = CALLS[name]
    settings = settings_of(tmp_path, **changes)
    record = stored(await recorded(settings, steps), tmp_path)
    assert (record.status, record.error_kind) == (status, error_kind)

    again = await replay(record, settings)

    assert again.differences == ()
    assert again.record is not None
    assert decisions(again.record) == decisions(record)
    if status == "ok":
        assert again.value == {"label": "billing"}


def stored(record: CallRecord, folder: Path) -> CallRecord:
    """The record as it comes back from Parquet."""
    store = open_store(folder / "store")
    store.add_calls("log-1", [asdict(record)])
    (row,) = store.sql("FROM calls")
    return call_record(row)


@pytest.mark.parametrize(
    ("resume", "status"), [(False, "error"), (True, "ok")], ids=["left incomplete", "resumed"]
)
async def test_a_stream_that_was_cut_in_the_middle_replays(
    tmp_path: Path, resume: bool, status: str
) -> None:
    settings = settings_of(tmp_path, output_schema=None, resume_stream=resume)
    cut = [TextDelta("The parcel is "), TextDelta("on its way ")]
    rest = (TextDelta("on its way to you."), finish())
    record = stored(await recorded(settings, [cut, rest], stream=True), tmp_path)
    assert (record.status, record.resumed) == (status, int(resume))

    again = await replay(record, settings)

    assert again.differences == ()


async def test_a_cascade_replays(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, fallbacks=("spare",), escalate_below=0.6)
    unsure = (TextDelta('{"label": "delivery"}'), replace(finish(), confidence=0.4))
    sure = (TextDelta(GOOD), replace(finish(), confidence=0.9))
    record = stored(await recorded(settings, [unsure], [sure]), tmp_path)
    assert record.served_model == "spare"

    again = await replay(record, settings)

    assert again.differences == ()


async def test_a_breaker_that_was_open_is_open_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, fallbacks=("spare",))
    clock = ManualClock()
    quota = Scripted([CallError("quota_exhausted", "402")])
    orchestrator = Orchestrator(
        settings, providers={"one": quota, "two": Scripted([answer(GOOD)])}, clock=clock.clock()
    )
    await orchestrator.execute("classify", {"text": "x"})
    record = stored((await orchestrator.execute("classify", {"text": "x"})).record, tmp_path)
    assert [a.error_kind for a in record.attempts] == ["breaker_open", None]

    again = await replay(record, settings)

    assert again.differences == ()


async def test_a_fall_back_on_the_provider_whose_quota_is_gone_replays(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, fallbacks=("spare",))
    beside = replace(settings.models["spare"], provider="one")
    settings = replace(settings, models={**settings.models, "spare": beside})
    record = stored(await recorded(settings, [CallError("quota_exhausted", "402")]), tmp_path)
    assert [a.error_kind for a in record.attempts] == ["quota_exhausted", "breaker_open"]

    again = await replay(record, settings)

    assert again.differences == ()


async def test_an_evaluation_that_used_no_fallback_replays_without_one(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, fallbacks=("spare",), on_failure="text:Call us.")
    alone = {"fallbacks": (), "on_failure": "error"}
    record = stored(await recorded(settings, [server_down()], **alone), tmp_path)

    again = await replay(record, settings)

    assert again.differences == ()


async def test_a_killed_call_replays_whatever_the_flag_says_now(tmp_path: Path) -> None:
    from evalkit.config import FlagSettings

    settings = settings_of(tmp_path, flag="llm")
    off = replace(settings, flags={"llm": FlagSettings(name="llm", enabled=False)})
    record = stored(await recorded(off, [answer(GOOD)]), tmp_path)
    assert record.error_kind == "killed"

    again = await replay(record, settings)

    assert again.differences == ()


async def test_a_call_that_met_a_spending_limit_replays(tmp_path: Path) -> None:
    from evalkit.call.budget import Budget

    settings = settings_of(tmp_path)
    budget = Budget(limit_usd=0.0)
    record = stored(await recorded(settings, [answer(GOOD)], budget=budget), tmp_path)
    assert record.error_kind == "budget"

    again = await replay(record, settings)

    assert again.differences == ()


async def test_a_retry_that_met_a_spending_limit_replays(tmp_path: Path) -> None:
    from evalkit.call.budget import Budget

    settings = settings_of(tmp_path)
    usage = Usage(prompt_tokens=100, completion_tokens=64)
    cut = Finish(finish_reason="length", usage=usage, served_model=None)
    limit = Budget(limit_usd=0.0005)
    record = await recorded(settings, [(TextDelta("Dear"), cut)], budget=limit, retries=1)
    record = stored(record, tmp_path)
    assert [one.error_kind for one in record.attempts] == ["truncated", "budget"]

    again = await replay(record, settings)

    assert again.differences == ()


async def test_a_leak_of_the_system_prompt_is_blocked_again(tmp_path: Path) -> None:
    def leak(request: ModelRequest) -> Sequence[Event]:
        return answer(json.dumps({"label": str(request.messages[0]["content"])}))

    settings = replace(settings_of(tmp_path), guard=GuardSettings(output_leak="block"))
    record = stored(await recorded(settings, [leak]), tmp_path)
    assert record.error_kind == "guard_block"

    again = await replay(record, settings)

    assert again.differences == ()


async def test_a_decision_that_comes_out_otherwise_is_shown(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    record = stored(await recorded(settings, [answer(GOOD)]), tmp_path)
    schema = {"type": "object", "required": ["label", "team"]}
    (tmp_path / "label.schema.json").write_text(json.dumps(schema), encoding="utf-8")

    again = await replay(record, settings)

    assert not again.same
    assert again.record is None
    (left,) = again.differences
    assert left.recorded == ["small at one: answered"]
    assert (
        "the record ends after 1 attempts; now small-1 at one is asked once more" in left.replayed
    )


async def test_a_record_that_was_changed_does_not_pass(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    record = await recorded(settings, [answer(BAD), answer(GOOD)])

    again = await replay(replace(record, repaired=True, served_model="spare"), settings)

    assert {d.decision: (d.recorded, d.replayed) for d in again.differences} == {
        "served_model": ("spare", "small"),
        "repaired": (True, False),
    }


async def test_an_edited_prompt_and_redactions_are_noted(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    record = replace(await recorded(settings, [answer(GOOD)]), prompt_hash="0" * 16, redactions=2)

    again = await replay(record, settings)

    assert again.same
    assert "prompt classify@v1 has been edited since" in again.notes[0]
    assert again.notes[1].startswith("2 places were redacted")


async def test_a_record_without_texts_or_feature_says_why_it_cannot_be_replayed(
    tmp_path: Path,
) -> None:
    settings = settings_of(tmp_path)
    record = await recorded(settings, [answer(GOOD)])

    with pytest.raises(ConfigError, match="has no texts"):
        await replay(replace(record, input=None), settings)
    with pytest.raises(ConfigError, match="no feature 'judge:helpfulness'"):
        await replay(replace(record, feature="judge:helpfulness"), settings)


async def test_an_answer_from_a_cache_is_read_again_as_its_models_own(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, cache_ttl=60)
    providers = {"one": Scripted([answer(GOOD)]), "two": Scripted([answer(GOOD)])}
    async with Orchestrator(settings, providers=providers) as orchestrator:
        await orchestrator.execute("classify", {"text": "x"})
        kept = await orchestrator.execute("classify", {"text": "x"})
    assert kept.record.cache_kind == "exact"

    again = await replay(kept.record, settings)

    assert again.same, again


async def test_a_replay_writes_nothing(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, cache_ttl=60, review="never")
    record = await recorded(settings, [answer(GOOD)], cache_ttl=0)
    before = files_in(tmp_path)

    await replay(record, settings)

    assert files_in(tmp_path) == before


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


async def test_another_pair_is_asked_for_real(tmp_path: Path) -> None:
    from evalkit.call.replay import run_against

    settings = settings_of(tmp_path)
    app = ProviderSettings(name="two", wire="python", target=f"{__name__}:delivery")
    settings = replace(settings, providers={**settings.providers, "two": app})
    record = await recorded(settings, [answer(GOOD)])

    result = await run_against(
        record, settings, Pair(model="spare", prompt_name="classify", prompt_version="v1")
    )

    assert result.value == {"label": "delivery"}
    assert result.record.served_model == "spare"
    assert result.record.input == record.input


def delivery(input: Mapping[str, Any]) -> str:
    return '{"label": "delivery"}'


# --- what a record keeps for a replay ------------------------------------------------


async def test_a_record_keeps_the_replies_that_were_not_the_answer(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)

    record = await recorded(settings, [answer(BAD), answer('{"la', "length"), answer(GOOD)])

    assert [one.reply for one in record.attempts] == [BAD, '{"la', None]
    assert record.output == GOOD


async def test_an_answer_replaced_by_a_degraded_one_is_kept(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, on_failure="text:Call us.", retries=0)

    record = await recorded(settings, [answer(BAD)])

    assert (record.output, record.attempts[0].reply) == ("Call us.", BAD)


async def test_what_was_redacted_before_the_write_replays(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    settings = replace(settings, retention=RetentionSettings(redact=True))
    schema = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    (tmp_path / "label.schema.json").write_text(json.dumps(schema), encoding="utf-8")
    mail = "jane.doe@example.com"
    steps = [answer(f'{{"name": "{mail}"}}'), answer(f'{{"label": "write to {mail}"}}')]

    record = stored(await recorded(settings, steps), tmp_path)
    again = await replay(record, settings)

    assert mail not in str(record)
    assert record.attempts[0].reply is not None
    assert again.differences == ()
    assert again.notes == ("2 places were redacted: the replay sees what was written",)


# --- what is not asked again -----------------------------------------------------------


def parcels(query: str, **_: Any) -> list[dict[str, Any]]:
    raise AssertionError("a replay asks no retriever")


async def test_documents_are_those_on_record(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    record = await recorded(settings, [answer(GOOD)])
    feature = replace(settings.features["classify"], retriever=f"{__name__}:parcels")
    settings = replace(settings, features={"classify": feature})
    own = replace(record, input={"text": "x", "documents": [{"id": "d1", "text": "Paid."}]})

    with_texts = await replay(own, settings)
    with_ids = await replay(replace(record, retrieved_ids=("d1",)), settings)

    assert (with_texts.differences, with_ids.differences) == ((), ())


def nothing(query: str, **_: Any) -> list[dict[str, Any]]:
    return []


def fails(query: str, **_: Any) -> list[dict[str, Any]]:
    raise ConnectionError("the index is gone")


@pytest.mark.parametrize("retriever", ["nothing", "fails"])
async def test_a_call_that_found_no_documents_finds_none_again(
    tmp_path: Path, retriever: str
) -> None:
    settings = settings_of(tmp_path, retriever=f"{__name__}:{retriever}")
    record = stored(await recorded(settings, [answer(GOOD)]), tmp_path)
    assert record.error_kind in {"no_documents", "retriever"}
    feature = replace(settings.features["classify"], retriever=f"{__name__}:parcels")

    again = await replay(record, replace(settings, features={"classify": feature}))

    assert again.differences == ()


called: list[Any] = []


def by_rule(input: Mapping[str, Any]) -> dict[str, str]:
    called.append(input)
    return {"label": "billing"}


async def test_a_function_that_answered_is_not_called_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, on_failure=f"degrade:{__name__}:by_rule")
    record = stored(await recorded(settings, [server_down()]), tmp_path)
    called.clear()

    degraded = await replay(record, settings)

    assert (degraded.differences, called) == ((), [])
    with pytest.raises(ConfigError, match="was answered by a function of yours"):
        await replay(replace(record, stage_ms={"function": 0.1}), settings)


async def test_what_refused_a_call_and_is_not_on_record_is_noted(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    record = replace(
        await recorded(settings, [answer(GOOD)]),
        attempts=(), status="refused", error_kind="policy", output=None, served_model=None,
    )  # fmt: skip

    again = await replay(record, settings)

    assert not again.same
    assert "what refused the call has changed, or is not on record" in again.notes


@pytest.mark.parametrize("pinned", [True, False], ids=["evaluation", "production"])
@pytest.mark.parametrize("pii", ["off", "replace"])
async def test_personal_data_replays_as_it_was_written(
    tmp_path: Path, pii: str, pinned: bool
) -> None:
    settings = settings_of(tmp_path, output_schema=None)
    settings = replace(settings, retention=RetentionSettings(), guard=GuardSettings(pii=pii))
    mail = "jane.doe@example.com"

    def repeat(request: ModelRequest) -> Sequence[Event]:
        found = re.search(r"\S+@\S+|\[EMAIL_\d+\]", str(request.messages[-1]["content"]))
        assert found is not None
        return answer(f"We write to {found[0]}.")

    made = await recorded(settings, [repeat], input={"text": f"Write to {mail}"}, pinned=pinned)
    record = stored(made, tmp_path)
    again = await replay(record, settings)

    assert (mail in str(record)) is pinned
    assert again.differences == ()
