"""Calls in provider batches: one file, each answer to who asked, and none paid for twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.batch import MAX_WAIT_S, BatchProvider, batch_settings
from evalkit.call.orchestrator import Orchestrator
from evalkit.call.providers import build_provider
from evalkit.config import load_settings
from evalkit.errors import ConfigError
from evalkit.session import run_golden_sets
from evalkit.settings import ModelSettings, Price, ProviderSettings, Settings
from evalkit.wiring import RunRequest
from tests.call.providers.asking import KEY, KEY_NAME, PATHS, SCHEMA, ask, eventually
from tests.loopback import Behaviour, Loopback, Request, Rule
from tests.project import write_project

ROOT = Path(__file__).resolve().parents[2]
both_wires = pytest.mark.parametrize("wire", ["openai", "anthropic"])


def echo(request: Request) -> str:
    """Answers a request with its last message."""
    content = request.json["messages"][-1]["content"]
    return f"answer to {content}"


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(answer=echo) as server:
        yield server


class Sleeps:
    """Waits no time, and remembers how long it should have."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def batching(
    wire: str, server: Loopback, *, sleep: Any = None, **options: Any
) -> AsyncIterator[BatchProvider]:
    options = {"batch": True, "batch_linger_s": 0.02, **options}
    settings = ProviderSettings(
        name="loop", wire=wire, base_url=server.url + PATHS[wire], options=options
    )
    provider = BatchProvider(settings, sleep=sleep or Sleeps())
    try:
        yield provider
    finally:
        await provider.aclose()


def taken_down(server: Loopback) -> bool:
    """Whether whoever handed a batch in knows of it: he asks for it."""
    return any(batch.polls for batch in list(server.batches.batches.values()))


def question(text: str) -> dict[str, Any]:
    return {"messages": ({"role": "user", "content": text},)}


async def ask_many(provider: BatchProvider, count: int, **more: Any) -> list[Any]:
    """The answers' texts, or the errors."""
    asked = (ask(provider, **question(f"q{n}"), **more) for n in range(count))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    return [answer if isinstance(answer, BaseException) else answer[0] for answer in answers]


@both_wires
def test_what_a_configuration_says_of_batches_leaves_other_runs_alone(wire: str) -> None:
    options = {"batch": False, "batch_linger_s": 1, "batch_poll_s": 30}
    settings = ProviderSettings(name="p", wire=wire, base_url="http://127.0.0.1:9", options=options)

    assert not isinstance(build_provider(settings), BatchProvider)


@both_wires
async def test_many_requests_are_one_batch_and_each_gets_its_own_answer(
    wire: str, server: Loopback
) -> None:
    server.batches.polls_needed = 3
    sleep = Sleeps()

    async with batching(wire, server, sleep=sleep, batch_poll_s=7.0) as provider:
        answers = await ask_many(provider, 50)

    assert answers == [f"answer to q{n}" for n in range(50)]
    assert [len(batch.lines) for batch in server.batches.batches.values()] == [50]
    assert sleep.slept == [7.0, 7.0]
    assert not {"/v1/chat/completions", "/v1/messages"} & set(server.stats.by_path)


@both_wires
async def test_answers_carry_usage_and_the_models_own_name(wire: str, server: Loopback) -> None:
    server.script(Rule(Behaviour(text="yes", served_model="m-1-2026", usage={"prompt": 40})))

    async with batching(wire, server) as provider:
        text, finish = await ask(provider)

    assert (text, finish.served_model, finish.finish_reason) == ("yes", "m-1-2026", "stop")
    assert finish.usage.prompt_tokens == 40


@both_wires
async def test_a_schema_is_asked_for_as_in_a_single_call(wire: str, server: Loopback) -> None:
    server.script(Rule(Behaviour()))

    async with batching(wire, server) as provider:
        text, _ = await ask(provider, response_schema=SCHEMA, stream=True)

    assert json.loads(text)["label"] in ("billing", "other")
    (batch,) = server.batches.batches.values()
    assert "stream" not in batch.lines[0].get("body", batch.lines[0].get("params"))


async def test_a_forced_tools_answer_is_read_back(server: Loopback) -> None:
    server.script(Rule(Behaviour()))

    async with batching("anthropic", server, structured="tool") as provider:
        text, _ = await ask(provider, response_schema=SCHEMA)

    assert json.loads(text)["label"] in ("billing", "other")


async def test_every_model_has_a_batch_of_its_own(server: Loopback) -> None:
    async with batching("openai", server) as provider:
        await asyncio.gather(ask_many(provider, 3), ask_many(provider, 2, model_id="m-2"))

    assert sorted(len(b.lines) for b in server.batches.batches.values()) == [2, 3]


async def test_a_request_that_comes_later_is_in_the_next_batch(server: Loopback) -> None:
    async with batching("openai", server) as provider:
        await ask_many(provider, 3)
        await ask_many(provider, 2)

    assert [len(b.lines) for b in server.batches.batches.values()] == [3, 2]


@both_wires
async def test_a_failed_line_fails_its_own_request_alone(wire: str, server: Loopback) -> None:
    server.script(
        Rule(Behaviour(status=400, error_code="context_length_exceeded"), contains='"q1"', times=1),
        Rule(Behaviour(status=500), contains='"q2"'),
    )

    async with batching(wire, server) as provider:
        answers = await ask_many(provider, 4)

    assert answers[0] == "answer to q0"
    assert [error.kind for error in answers[1:3]] == ["context_length", "server"]
    assert answers[3] == "answer to q3"


@both_wires
async def test_what_expires_with_its_batch_is_a_timeout(wire: str, server: Loopback) -> None:
    server.batches.expires_after = 2

    async with batching(wire, server) as provider:
        answers = await ask_many(provider, 3)

    assert answers[:2] == ["answer to q0", "answer to q1"]
    assert answers[2].kind == "timeout"


async def test_a_batch_that_is_refused_fails_its_requests_with_the_reason(
    server: Loopback,
) -> None:
    server.batches.refuses = "line 1: no such model"

    async with batching("openai", server) as provider:
        answers = await ask_many(provider, 2)

    assert [error.kind for error in answers] == ["bad_request"] * 2
    assert "no such model" in str(answers[0])


@both_wires
async def test_an_answer_that_is_missing_is_a_failure_of_the_server(
    wire: str, server: Loopback
) -> None:
    async with batching(wire, server) as provider:
        server.batches.held = True
        asked = asyncio.create_task(ask_many(provider, 2))
        await eventually(lambda: bool(server.batches.batches))
        (batch,) = server.batches.batches.values()
        del batch.lines[0]
        server.batches.held = False
        answers = await asked

    assert [getattr(a, "kind", a) for a in answers] == ["server", "answer to q1"]


@both_wires
async def test_trouble_while_waiting_passes(wire: str, server: Loopback) -> None:
    trouble = Behaviour(status=503, headers={"retry-after": "9"})
    server.script(
        Rule(trouble, path="/batches", times=3),
        Rule(Behaviour(body="not json"), path="/batches/", times=2),
    )
    sleep = Sleeps()

    async with batching(wire, server, sleep=sleep, batch_poll_s=1.0) as provider:
        answers = await ask_many(provider, 2)

    assert answers == ["answer to q0", "answer to q1"]
    assert sleep.slept == [9.0, 9.0, 9.0, 2.0, 4.0]


async def test_results_cut_in_the_middle_are_read_again(server: Loopback) -> None:
    cut = Behaviour(body='{"custom_id": "half', content_type="application/jsonl")
    server.script(Rule(cut, path="/content", times=1))

    async with batching("openai", server) as provider:
        assert await ask_many(provider, 2) == ["answer to q0", "answer to q1"]


async def test_a_provider_that_takes_no_batch_fails_every_request(server: Loopback) -> None:
    server.script(Rule(Behaviour(status=401, error_message=f"bad key {KEY}"), path="/files"))

    async with batching("openai", server) as provider:
        answers = await ask_many(provider, 3)

    assert [error.kind for error in answers] == ["auth"] * 3


async def test_the_key_is_sent_and_never_quoted(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_NAME, KEY)
    server.script(Rule(Behaviour(status=400, error_message=f"you sent {KEY}"), contains='"q0"'))
    settings = ProviderSettings(
        name="loop", wire="openai", base_url=server.url + "/v1", api_key_env=KEY_NAME,
        options={"batch": True, "batch_linger_s": 0.02},
    )  # fmt: skip
    provider = build_provider(settings)
    assert isinstance(provider, BatchProvider)

    (answer,) = await ask_many(provider, 1)
    await provider.aclose()

    assert KEY not in str(answer)
    assert "you sent ***" in str(answer)
    assert all(r.headers["authorization"] == f"Bearer {KEY}" for r in server.requests)


async def test_a_request_cancelled_in_time_is_not_handed_in(server: Loopback) -> None:
    async with batching("openai", server, batch_linger_s=0.1) as provider:
        given_up = asyncio.create_task(ask(provider, **question("given up")))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await ask_many(provider, 1) == ["answer to q0"]

    (batch,) = server.batches.batches.values()
    assert len(batch.lines) == 1


@both_wires
async def test_closing_cancels_a_batch_that_nobody_could_find_again(
    wire: str, server: Loopback
) -> None:
    server.batches.held = True
    async with batching(wire, server) as provider:
        asked = asyncio.create_task(ask_many(provider, 2))
        await eventually(lambda: taken_down(server))
    answers = await asked

    (batch,) = server.batches.batches.values()
    assert batch.cancelled
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers)


# --- a run that is resumed -----------------------------------------------------------------


@both_wires
async def test_a_resumed_run_takes_up_its_batches_and_another_run_does_not(
    wire: str, server: Loopback, tmp_path: Path
) -> None:
    path = str(tmp_path / "queue.sqlite")
    server.batches.held = True
    async with batching(wire, server, batch_file=path, batch_scope="run-1") as provider:
        asked = asyncio.create_task(ask_many(provider, 4))
        await eventually(lambda: taken_down(server))
    await asked
    server.batches.held = False

    async with batching(wire, server, batch_file=path, batch_scope="run-1") as provider:
        resumed = await ask_many(provider, 3)
        later = await ask(provider, **question("q3"))
    n_batches = len(server.batches.batches)
    async with batching(wire, server, batch_file=path, batch_scope="run-2") as provider:
        await ask_many(provider, 4)

    assert resumed == ["answer to q0", "answer to q1", "answer to q2"]
    assert later[0] == "answer to q3"
    assert n_batches == 1
    assert len(server.batches.batches) == 2
    assert not any(batch.cancelled for batch in server.batches.batches.values())


async def test_equal_requests_of_several_trials_get_an_answer_each(
    server: Loopback, tmp_path: Path
) -> None:
    path = str(tmp_path / "queue.sqlite")
    server.batches.held = True
    async with batching("openai", server, batch_file=path, batch_scope="r") as provider:
        trials = asyncio.gather(*(ask(provider) for _ in range(3)), return_exceptions=True)
        await eventually(lambda: taken_down(server))
    await trials
    server.batches.held = False

    async with batching("openai", server, batch_file=path, batch_scope="r") as provider:
        await asyncio.gather(*(ask(provider) for _ in range(4)))

    assert [len(b.lines) for b in server.batches.batches.values()] == [3, 1]


async def test_a_batch_the_provider_no_longer_has_is_handed_in_anew(
    server: Loopback, tmp_path: Path
) -> None:
    path = str(tmp_path / "queue.sqlite")
    server.batches.held = True
    async with batching("openai", server, batch_file=path, batch_scope="r") as provider:
        asked = asyncio.create_task(ask_many(provider, 2))
        await eventually(lambda: taken_down(server))
    await asked
    server.batches.held = False
    server.batches.batches.clear()

    async with batching("openai", server, batch_file=path, batch_scope="r") as provider:
        answers = await ask_many(provider, 2)

    assert answers == ["answer to q0", "answer to q1"]


# --- whole runs ------------------------------------------------------------------------------


def by_label(request: Request) -> dict[str, str]:
    text = request.json["messages"][-1]["content"]
    return {"label": "billing" if "billing" in text else "delivery"}


def batched_project(folder: Path, server: Loopback, **more: Any) -> Path:
    project = write_project(folder, base_url=server.url + "/v1", run="concurrency = 500", **more)
    config = project / "evalkit.toml"
    options = "options = { batch = true, batch_linger_s = 0.1, batch_poll_s = 0.02 }\n"
    text = config.read_text(encoding="utf-8").replace("[models.small]", f"{options}[models.small]")
    config.write_text(text, encoding="utf-8")
    return project


def test_a_golden_set_runs_in_one_batch_at_half_the_price(tmp_path: Path) -> None:
    with Loopback(answer=by_label) as server:
        project = batched_project(tmp_path, server, cases=40)
        settings = batch_settings(load_settings(start=project), scope="run-1")

        finished = run_golden_sets(settings, RunRequest())

        paths = set(server.stats.by_path)
    told = finished.as_json()
    assert told["status"] == "complete"
    assert [m["mean"] for m in told["metrics"]] == [1.0, 1.0]
    assert [len(batch.lines) for batch in server.batches.batches.values()] == [40]
    assert "/v1/chat/completions" not in paths
    (batch,) = server.batches.batches.values()
    usage = [row["response"]["body"]["usage"] for row in batch.results]
    full = sum(u["prompt_tokens"] * 1.0 + u["completion_tokens"] * 2.0 for u in usage) / 1e6
    assert finished.summary.cost_usd == pytest.approx(full / 2)


RUN = """
import asyncio, sys
from pathlib import Path
from evalkit.call.batch import batch_settings
from evalkit.call.orchestrator import Orchestrator
from evalkit.config import load_settings
async def main():
    settings = batch_settings(load_settings(start=Path(sys.argv[1])), scope="run-1")
    async with Orchestrator.from_config(settings) as orchestrator:
        calls = [orchestrator.execute("classify", {"text": f"a billing question {n}"})
                 for n in range(20)]
        results = await asyncio.gather(*calls)
        print([r.value["label"] for r in results], flush=True)
asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to see processes in")
def test_kill_9_while_a_batch_is_out_pays_for_nothing_twice(tmp_path: Path) -> None:
    with Loopback(answer=by_label) as server:
        project = batched_project(tmp_path, server, cases=1)
        server.batches.held = True
        command = [sys.executable, "-c", RUN, str(project)]
        with subprocess.Popen(command, cwd=ROOT) as first:
            asyncio.run(eventually(lambda: taken_down(server)))
            os.kill(first.pid, signal.SIGKILL)
        server.batches.held = False

        second = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
        )

    assert second.stdout.strip() == str(["billing"] * 20)
    assert [len(batch.lines) for batch in server.batches.batches.values()] == [20]


# --- settings --------------------------------------------------------------------------------


def test_batch_settings_have_patience_and_half_the_price() -> None:
    settings = Settings(
        root=Path("/project"),
        providers={
            "a": ProviderSettings(
                name="a", wire="anthropic", rpm=5, tpm=9, options={"cache": True}
            ),
            "p": ProviderSettings(name="p", wire="python", rpm=5),
        },
        models={
            "m": ModelSettings(
                name="m", provider="a", id="m",
                price=Price(input=1.0, output=4.0, cached_input=0.1),
            ),
            "n": ModelSettings(name="n", provider="a", id="n"),
            "o": ModelSettings(name="o", provider="p", id="o", price=Price(input=1.0, output=1.0)),
        },
        features=dict(load_settings(start=ROOT).features),
    )  # fmt: skip

    changed = batch_settings(settings, scope="run-1")

    provider = changed.providers["a"]
    assert (provider.rpm, provider.tpm) == (None, None)
    assert provider.options == {
        "cache": True, "batch": True, "batch_scope": "run-1",
        "batch_file": "/project/.evalkit/queue.sqlite",
    }  # fmt: skip
    assert changed.providers["p"] == settings.providers["p"]
    assert changed.models["m"].price == Price(input=0.5, output=2.0, cached_input=0.05)
    assert changed.models["n"].price is None
    assert changed.models["o"].price == Price(input=1.0, output=1.0)
    assert {f.max_latency_ms for f in changed.features.values()} == {MAX_WAIT_S * 1000}


def test_without_a_batch_endpoint_there_is_nothing_to_batch() -> None:
    with pytest.raises(ConfigError, match="openai and anthropic"):
        batch_settings(Settings(root=Path("/project")), scope="run-1")


@pytest.mark.parametrize(
    ("wire", "options", "told"),
    [
        ("python", {"batch": True}, "wire python has no batch endpoints"),
        ("openai", {"batch": True, "batch_poll_s": "often"}, "batch_poll_s: 'often'"),
        ("openai", {"batch": True, "batch_pol_s": 1}, "no such option"),
    ],
)
def test_options_that_cannot_work_are_refused(
    wire: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        build_provider(ProviderSettings(name="p", wire=wire, target="a:b", options=options))


async def test_a_failed_batch_is_a_failed_call_like_any_other(tmp_path: Path) -> None:
    with Loopback(Rule(Behaviour(status=401), path="/files")) as server:
        project = batched_project(tmp_path, server, cases=1)
        settings = batch_settings(load_settings(start=project), scope="run-1")
        async with Orchestrator.from_config(settings) as orchestrator:
            result = await orchestrator.execute("classify", {"text": "x"})

    assert (result.status, result.error_kind) == ("error", "auth")
