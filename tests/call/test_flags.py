"""Flags: kill switches that act while a service runs, arms that a user keeps."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.flags import LOOK_EVERY_S, Flags, bucket
from evalkit.call.orchestrator import Orchestrator
from evalkit.config import (
    FeatureSettings,
    FlagSettings,
    ModelSettings,
    ProviderSettings,
    Settings,
)
from tests.call.scripted import ManualClock, Scripted, answer


class World:
    """A project with a file of flags, and a clock that a test moves."""

    def __init__(self, folder: Path, name: str = "flags.toml", **flags: FlagSettings) -> None:
        self.file = folder / name
        self.clock = ManualClock()
        for version in ("v1", "v2"):
            prompt = folder / "prompts" / "classify" / f"{version}.md"
            prompt.parent.mkdir(parents=True, exist_ok=True)
            prompt.write_text("## user\n{{ text }}\n", encoding="utf-8")
        self.settings = Settings(root=folder, flags=flags, flags_file=self.file)
        self.flags = Flags(self.settings, self.clock.clock())

    def write(self, text: str) -> None:
        self.file.write_text(text, encoding="utf-8")

    def later(self, seconds: float = LOOK_EVERY_S) -> None:
        self.clock.now += seconds

    def enabled(self, name: str = "llm", user_id: str | None = "u-1") -> bool:
        return self.flags.variant(name, user_id=user_id).enabled


def flag(**values: Any) -> FlagSettings:
    return FlagSettings(name="llm", **values)


# --- the file ----------------------------------------------------------------------


def test_a_flag_turned_off_in_the_file_is_off_within_a_second(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write("llm = true\n")
    before = world.enabled()

    world.write("llm = false\n")
    at_once = world.enabled()
    world.later(0.5)
    after = world.enabled()

    assert (before, at_once, after) == (True, True, False)


def test_the_file_is_looked_at_twice_a_second_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evalkit.call import flags

    world = World(tmp_path)
    world.write("llm = true\n")
    reads = []
    read = flags.read_text
    monkeypatch.setattr(flags, "read_text", lambda *a, **k: (reads.append(a), read(*a, **k))[1])

    for _ in range(100):
        world.enabled()
        world.later(0.01)

    assert len(reads) == 2


def test_the_file_overrides_the_configuration_and_leaves_the_rest(tmp_path: Path) -> None:
    world = World(tmp_path, llm=flag(enabled=True), other=FlagSettings(name="other", enabled=False))
    world.write("llm = false\n")

    assert not world.enabled("llm")
    assert not world.enabled("other")
    assert world.enabled("nobody wrote it")


def test_a_file_that_is_not_there_yet_is_no_problem(tmp_path: Path) -> None:
    world = World(tmp_path, llm=flag(enabled=True))
    before = world.enabled()

    world.write("llm = false\n")
    world.later()

    assert before
    assert not world.enabled()
    assert world.flags.errors == 0


BROKEN = {
    "llm = tru": "flags.toml:1: not valid TOML",
    'llm = "off"': "flags.toml:1:",
    "ok = true\nllm = { enabeld = false }": "flags.toml:2:",
    "llm = { share = 1.5 }": "flags.toml:1:",
    'file = "other.toml"': "file is a key of evalkit.toml",
    'llm = { model = "nobody" }': 'there is no model "nobody"',
    'llm = { prompt = "classify@v9" }': "there is no prompts/classify/v9.md",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_keeps_the_last_good_state_and_is_counted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    world = World(tmp_path)
    world.write("llm = false\n")
    world.enabled()

    with caplog.at_level(logging.ERROR):
        world.write(text)
        for _ in range(3):
            world.later()
            world.enabled()

    assert not world.enabled()
    assert world.flags.errors == 1
    assert BROKEN[text] in (world.flags.problem or "")
    assert len(caplog.records) == 1


def test_a_file_that_is_mended_counts_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write("llm = tru")
    world.enabled()

    world.write("llm = false")
    world.later()

    assert not world.enabled()
    assert (world.flags.errors, world.flags.problem) == (1, None)


def test_a_file_that_vanishes_turns_no_switch_back_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write("llm = false\n")
    world.enabled()

    world.file.unlink()
    world.later()
    gone = world.enabled()
    world.write("llm = false\n")
    world.later()
    back = world.enabled()

    assert (gone, back) == (False, False)
    assert (world.flags.errors, world.flags.problem) == (1, None)


def test_a_file_caught_half_written_turns_no_switch_back_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write("llm = false\n")
    world.enabled()

    world.write("")
    world.later()
    caught = world.enabled()
    world.later()
    emptied = world.enabled()

    assert (caught, emptied) == (False, True)


def test_json_is_read_as_well(tmp_path: Path) -> None:
    world = World(tmp_path, "flags.json")
    world.write(json.dumps({"llm": {"enabled": True, "prompt": "classify@v2"}}))

    variant = world.flags.variant("llm", user_id=None)

    assert (variant.enabled, variant.arm, variant.prompt) == (True, "treatment", "classify@v2")


@pytest.mark.parametrize("text", ["[1, 2]", '{"llm": true, "llm": false}', '{"llm": NaN}'])
def test_json_that_is_no_table_of_flags_is_refused(tmp_path: Path, text: str) -> None:
    world = World(tmp_path, "flags.json", llm=flag(enabled=False))
    world.write(text)

    assert not world.enabled()
    assert world.flags.errors == 1


def test_without_a_file_the_configuration_holds(tmp_path: Path) -> None:
    flags = Flags(Settings(root=tmp_path, flags={"llm": flag(enabled=False)}))

    assert not flags.variant("llm", user_id=None).enabled


# --- arms --------------------------------------------------------------------------


def arms(flags: Flags, users: int = 2000) -> list[str]:
    return [flags.variant("llm", user_id=f"u-{n}").arm for n in range(users)]


def flags_of(**values: Any) -> Flags:
    return Flags(Settings(root=Path(), flags={"llm": flag(**values)}))


def test_a_user_stays_in_an_arm(tmp_path: Path) -> None:
    share = {"share": 0.5, "prompt": "classify@v2"}

    assert arms(flags_of(**share)) == arms(flags_of(**share))


def test_an_arm_gets_its_share_of_users() -> None:
    n = 2000

    treated = arms(flags_of(share=0.3, prompt="classify@v2"), n).count("treatment")

    # Binomial(2000, 0.3): standard deviation 20.5; four of them either side.
    assert abs(treated - 600) < 82


def test_who_is_inside_a_share_stays_inside_when_it_grows() -> None:
    few = arms(flags_of(share=0.1, prompt="classify@v2"))
    more = arms(flags_of(share=0.4, prompt="classify@v2"))

    assert all(m == "treatment" for f, m in zip(few, more, strict=True) if f == "treatment")
    assert more.count("treatment") > few.count("treatment")


def test_two_flags_divide_users_independently() -> None:
    users = [f"u-{n}" for n in range(2000)]

    both = sum(bucket("a", user) < 0.5 and bucket("b", user) < 0.5 for user in users)

    # Binomial(2000, 0.25): standard deviation 19.4.
    assert abs(both - 500) < 78


def test_buckets_are_the_same_for_ever() -> None:
    assert bucket("llm", "u-1") == pytest.approx(0.8943, abs=1e-4)
    assert 0.0 <= bucket("llm", "\ud800") < 1.0


def test_an_arm_has_its_prompt_and_model_and_the_control_has_none() -> None:
    flags = flags_of(share=0.5, prompt="classify@v2", model="embedded")

    variants = {flags.variant("llm", user_id=f"u-{n}") for n in range(50)}

    assert {(v.enabled, v.arm, v.prompt, v.model) for v in variants} == {
        (True, "treatment", "classify@v2", "embedded"),
        (True, "control", None, None),
    }


def test_a_share_without_an_arm_turns_the_feature_off_for_the_others() -> None:
    flags = flags_of(share=0.5)

    variants = {flags.variant("llm", user_id=f"u-{n}") for n in range(50)}

    assert {(v.enabled, v.arm) for v in variants} == {(True, "on"), (False, "off")}


def test_nobody_in_particular_is_outside_every_share_but_the_whole() -> None:
    half = flags_of(share=0.5, prompt="classify@v2").variant("llm", user_id=None)
    whole = flags_of(share=1.0, prompt="classify@v2").variant("llm", user_id=None)
    everybody = flags_of(prompt="classify@v2").variant("llm", user_id=None)

    assert (half.arm, whole.arm, everybody.arm) == ("control", "treatment", "treatment")


def test_a_killed_flag_has_no_arm() -> None:
    variant = flags_of(enabled=False, share=0.5, prompt="classify@v2").variant("llm", user_id="u")

    assert (variant.enabled, variant.arm, variant.prompt) == (False, "off", None)


# --- on the call path ----------------------------------------------------------------


def service(world: World, **changes: Any) -> tuple[Orchestrator, Scripted]:
    """A service with one feature under the flag llm."""
    feature = FeatureSettings(
        name="classify",
        prompt_name="classify",
        prompt_version="v1",
        model="small",
        flag="llm",
        **changes,
    )
    settings = replace(
        world.settings,
        providers={"one": ProviderSettings(name="one", wire="openai")},
        models={"small": ModelSettings(name="small", provider="one", id="small-1")},
        features={"classify": feature},
    )
    model = Scripted([answer("billing")])
    clock = world.clock.clock()
    return Orchestrator(settings, providers={"one": model}, clock=clock), model


async def test_a_running_service_degrades_within_a_second_of_the_switch(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write("llm = true\n")
    orchestrator, model = service(world, on_failure="text:Please call us.")
    before = await orchestrator.execute("classify", "x")

    world.write("llm = false\n")
    world.later(0.999)
    after = await orchestrator.execute("classify", "x")

    assert (before.status, before.record.flag_variant) == ("ok", "on")
    assert (after.status, after.output) == ("degraded", "Please call us.")
    assert (after.error_kind, after.record.flag_variant) == ("killed", "off")
    assert len(model.asked) == 1


async def test_each_user_keeps_an_arm_and_the_record_names_it_with_its_prompt(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    world.write('llm = { share = 0.5, prompt = "classify@v2" }\n')
    orchestrator, _ = service(world)

    calls = [
        (await orchestrator.execute("classify", "x", user_id=f"u-{n % 20}")).record
        for n in range(40)
    ]

    seen = {(one.user_id, one.flag_variant, one.prompt_version) for one in calls}
    assert len(seen) == 20
    assert {(arm, version) for _, arm, version in seen} == {("treatment", "v2"), ("control", "v1")}
