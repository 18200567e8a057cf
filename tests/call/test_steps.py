"""Sequences of features: each step once, whoever is killed in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.orchestrator import Orchestrator
from evalkit.call.review import ReviewQueue
from evalkit.call.steps import MAX_STEPS, Answers, Checkpoints, Step, run_steps
from evalkit.errors import CallError, ConfigError
from evalkit.records import ModelRequest
from tests.call.scripted import Scripted, answer
from tests.call.test_orchestrator import Project

ORDER = {"text": "Where is order A-1?"}


def asks_for(answers: Answers) -> dict[str, Any]:
    return {"text": f"Say what is asked: {answers['input']}"}


def looks_up(answers: Answers) -> dict[str, Any]:
    return {"text": f"Look up {answers['plan']}"}


STEPS = {
    "plan": Step(feature="plan", input=asks_for, then="look_up"),
    "look_up": Step(feature="look_up", input=looks_up),
}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    checkpoints = Checkpoints(tmp_path / "steps.sqlite")
    yield checkpoints
    checkpoints.close()


def orchestrator(
    folder: Path, *steps: Any, model: type[Scripted] = Scripted
) -> tuple[Orchestrator, Scripted]:
    """Features plan, look_up and guess on one scripted model."""
    project = Project(folder / "project", []).change(output_schema=None, retries=0)
    project.one = model(list(steps))
    names = ("plan", "look_up", "guess")
    features = {name: replace(project.feature, name=name) for name in names}
    project.settings = replace(project.settings, features=features)
    return project.orchestrator(), project.one


def asked(one: Scripted) -> list[str]:
    return [str(request.messages[-1]["content"]).splitlines()[1] for request in one.asked]


async def test_each_step_sees_what_those_before_it_answered(
    tmp_path: Path, checkpoints: Checkpoints
) -> None:
    calls, model = orchestrator(tmp_path, answer("the place"), answer("It is in Ulm."))

    outcome = await run_steps(calls, STEPS, ORDER, key="k", checkpoints=checkpoints)

    assert outcome.stopped is None
    assert [one.name for one in outcome.ended] == ["plan", "look_up"]
    assert outcome.answers["look_up"] == "It is in Ulm."
    assert asked(model)[1] == "Look up the place"


async def test_a_sequence_that_was_killed_goes_on_where_it_was(
    tmp_path: Path, checkpoints: Checkpoints
) -> None:
    class Hangs(Scripted):
        async def stream(self, request: ModelRequest):  # type: ignore[no-untyped-def]
            if len(self.asked) == 1:
                self.asked.append(request)
                await asyncio.Event().wait()
            async for event in super().stream(request):
                yield event

    first, model = orchestrator(tmp_path / "a", answer("the place"), model=Hangs)
    running = asyncio.create_task(run_steps(first, STEPS, ORDER, key="k", checkpoints=checkpoints))
    while len(model.asked) < 2:  # noqa: ASYNC110 - the model sets no event
        await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.wait({running})

    second, model = orchestrator(tmp_path / "b", answer("It is in Ulm."))
    outcome = await run_steps(second, STEPS, ORDER, key="k", checkpoints=checkpoints)
    again = await run_steps(second, STEPS, ORDER, key="k", checkpoints=checkpoints)

    assert asked(model) == ["Look up the place"]
    assert [one.name for one in outcome.ended] == ["plan", "look_up"]
    assert again == outcome


async def test_a_step_that_fails_stops_the_sequence_and_has_its_turn_again(
    tmp_path: Path, checkpoints: Checkpoints
) -> None:
    calls, model = orchestrator(
        tmp_path, answer("the place"), CallError("server", "down"), answer("It is in Ulm.")
    )

    failed = await run_steps(calls, STEPS, ORDER, key="k", checkpoints=checkpoints)
    outcome = await run_steps(calls, STEPS, ORDER, key="k", checkpoints=checkpoints)

    assert failed.stopped is not None
    assert failed.stopped.error_kind == "server"
    assert outcome.stopped is None
    assert len(model.asked) == 3


async def test_another_step_takes_over_from_one_that_fails(
    tmp_path: Path, checkpoints: Checkpoints
) -> None:
    steps = {
        "plan": Step(feature="plan", input=asks_for, then="look_up", otherwise="guess"),
        "look_up": Step(feature="look_up", input=looks_up),
        "guess": Step(feature="guess", input=asks_for),
    }
    calls, _ = orchestrator(tmp_path, CallError("server", "down"), answer("Perhaps."))

    outcome = await run_steps(calls, steps, ORDER, key="k", checkpoints=checkpoints)

    assert [(one.name, one.status) for one in outcome.ended] == [("plan", "error"), ("guess", "ok")]
    assert outcome.answers["guess"] == "Perhaps."


def held(folder: Path, *answers: Any, **changes: Any) -> tuple[Orchestrator, Scripted, ReviewQueue]:
    """The same, where a person has to see each plan."""
    calls, model = orchestrator(folder, *answers)
    plan = replace(calls.settings.features["plan"], review="always", **changes)
    settings = replace(calls.settings, features={**calls.settings.features, "plan": plan})
    project = Project(folder / "other", [])
    project.settings, project.one = settings, model
    return project.orchestrator(), model, ReviewQueue(Path(settings.store_path) / "queue.sqlite")


WITH_OTHERWISE = {
    "plan": Step(feature="plan", input=asks_for, then="look_up", otherwise="guess"),
    "look_up": Step(feature="look_up", input=looks_up),
    "guess": Step(feature="guess", input=asks_for),
}


@pytest.mark.parametrize("steps", [STEPS, WITH_OTHERWISE], ids=["stop", "otherwise"])
async def test_a_step_that_waits_for_a_person_stops_the_sequence_until_it_is_released(
    tmp_path: Path, checkpoints: Checkpoints, steps: dict[str, Step]
) -> None:
    calls, model, queue = held(tmp_path, answer("the place"), answer("It is in Ulm."))

    first = await run_steps(calls, steps, ORDER, key="k", checkpoints=checkpoints)
    again = await run_steps(calls, steps, ORDER, key="k", checkpoints=checkpoints)
    [review] = queue.list()
    queue.approve(review.id, "ann", "the depot")
    await queue.resume(review.id)
    outcome = await run_steps(calls, steps, ORDER, key="k", checkpoints=checkpoints)

    for waiting in (first, again):
        assert waiting.stopped is not None
        assert (waiting.stopped.status, waiting.stopped.output) == ("pending_review", None)
        assert waiting.ended == ()
    assert outcome.stopped is None
    assert outcome.answers["plan"] == "the depot"
    assert [one.name for one in outcome.ended] == ["plan", "look_up"]
    assert len(model.asked) == 2


async def test_a_step_whose_answer_a_person_rejects_has_failed(
    tmp_path: Path, checkpoints: Checkpoints
) -> None:
    calls, model, queue = held(tmp_path, answer("the place"), answer("Perhaps."))
    await run_steps(calls, WITH_OTHERWISE, ORDER, key="k", checkpoints=checkpoints)
    queue.reject(queue.list()[0].id, "ann", "no")

    outcome = await run_steps(calls, WITH_OTHERWISE, ORDER, key="k", checkpoints=checkpoints)

    ended = [(one.name, one.status) for one in outcome.ended]
    assert ended == [("plan", "refused"), ("guess", "ok")]
    assert len(model.asked) == 2


async def test_a_released_answer_of_a_feature_with_a_schema_is_parsed(
    tmp_path: Path, checkpoints: Checkpoints
) -> None:
    schema = tmp_path / "plan.schema.json"
    schema.write_text('{"type": "object"}')
    calls, _, queue = held(tmp_path, answer('{"at": 1}'), answer("Ulm."), output_schema=schema)
    await run_steps(calls, STEPS, ORDER, key="k", checkpoints=checkpoints)
    [review] = queue.list()
    queue.approve(review.id, "ann")
    await queue.resume(review.id)

    outcome = await run_steps(calls, STEPS, ORDER, key="k", checkpoints=checkpoints)

    assert outcome.answers["plan"] == {"at": 1}


async def test_a_state_machine_without_an_end_is_ended(
    tmp_path: Path, checkpoints: Checkpoints
) -> None:
    steps = {"plan": Step(feature="plan", input=asks_for, then=lambda answers: "plan")}
    calls, model = orchestrator(tmp_path, answer("on and on"))

    with pytest.raises(ConfigError, match="no end"):
        await run_steps(calls, steps, ORDER, key="k", checkpoints=checkpoints)

    assert len(model.asked) == MAX_STEPS


async def test_a_tool_that_the_steps_feature_has_not_declared_is_refused(
    tmp_path: Path, checkpoints: Checkpoints
) -> None:
    tool = {"name": "refund", "parameters": {"type": "object"}}
    steps = {"plan": Step(feature="plan", input=asks_for, tools=[tool])}
    calls, model = orchestrator(tmp_path, answer("x"))

    outcome = await run_steps(calls, steps, ORDER, key="k", checkpoints=checkpoints)

    assert outcome.stopped is not None
    assert outcome.stopped.error_kind == "policy"
    assert model.asked == []


async def test_a_key_is_for_one_input_until_it_is_forgotten(
    tmp_path: Path, checkpoints: Checkpoints
) -> None:
    calls, _ = orchestrator(tmp_path, answer("x"))
    await run_steps(calls, STEPS, ORDER, key="k", checkpoints=checkpoints)

    with pytest.raises(ConfigError, match="another input"):
        await run_steps(calls, STEPS, {"text": "Else"}, key="k", checkpoints=checkpoints)

    assert checkpoints.forget("k") == 2
    outcome = await run_steps(calls, STEPS, {"text": "Else"}, key="k", checkpoints=checkpoints)
    assert json.loads(json.dumps(outcome.answers["input"])) == {"text": "Else"}
