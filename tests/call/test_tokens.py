"""Token estimates: on the high side, corrected by what models report, exact where they can be."""

from __future__ import annotations

import base64
import json
import random
import socket
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.call.tokens import CORRECTIONS, IMAGE_TOKENS, TokenEstimator, rough_tokens
from evalkit.call.vocabularies import exact_counter, vocabulary_of
from evalkit.config import ModelSettings
from evalkit.records import ModelRequest, Usage
from tests.call.failing import World
from tests.loopback import Behaviour

ENGLISH = (
    "The customer writes that her order has not come; she asks for her money back and "
    "wants to speak to somebody about it. "
)
MODEL = ModelSettings(name="m", provider="p", id="some-model")
DRAW = random.Random(7)

TEXTS = {
    "english": ENGLISH * 4,
    "capitals": "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG AND RUNS AWAY " * 8,
    "german": "Die Kundin möchte ihr Geld zurück und überlegt, künftig woanders zu kaufen. " * 5,
    "finnish": "Asiakas haluaa rahansa takaisin mahdollisimman nopeasti. " * 8,
    "russian": "Клиентка пишет, что заказ ещё не пришёл, и хочет вернуть деньги. " * 6,
    "chinese": "客户写道，订单还没有到，她要求退款，并希望与经理谈谈这件事。" * 8,
    "japanese": "注文した商品がまだ届いていないので返金してほしいとの連絡がありました。" * 7,
    "arabic": "كتبت العميلة أن الطلب لم يصل بعد وتريد استرداد أموالها. " * 7,
    "hindi": "ग्राहक लिखती है कि ऑर्डर अभी तक नहीं आया है। " * 8,
    "thai": "ลูกค้าเขียนว่าสินค้าที่สั่งยังไม่มาถึง และต้องการเงินคืน " * 6,
    "emoji": "😀🎉👩‍💻🔥❤️🙏🏽" * 20,
    "json": json.dumps([{"id": n, "label": "billing", "amount": n * 37.5} for n in range(40)]),
    "compact json": json.dumps([{"id": n, "open": True} for n in range(60)], separators=(",", ":")),
    "code": Path(__file__).read_text(encoding="utf-8")[:3000],
    "table": "\n".join(f"| {n} | {n * 7.3:.2f} | yes | no |" for n in range(40)),
    "base64": base64.b64encode(DRAW.randbytes(600)).decode(),
    "hex": DRAW.randbytes(400).hex(),
    "digits": "".join(str(DRAW.randint(0, 9)) for _ in range(600)),
    "numbers": " ".join(str(DRAW.randint(0, 9999)) for _ in range(150)),
    "punctuation": "".join(DRAW.choice("!@#$%^&*()[]{}<>?/|") for _ in range(500)),
    "any ascii": "".join(chr(DRAW.randint(33, 126)) for _ in range(500)),
    "short lines": "a\nb\nc\n" * 100,
    "ids": " ".join(DRAW.randbytes(4).hex() + "-" + DRAW.randbytes(6).hex() for _ in range(30)),
}
VOCABULARIES = [
    "o200k_base", "cl100k_base", "llama3", "mistral_v3", "deepseek_v3", "qwen3", "glm4", "phi4",
]  # fmt: skip


def a_request(text: str, **more: Any) -> ModelRequest:
    return ModelRequest(
        model_id="", messages=({"role": "user", "content": text},), max_tokens=64, **more
    )


def usage(tokens: int | None) -> Usage:
    return Usage(prompt_tokens=tokens, completion_tokens=1)


def taught(estimator: TokenEstimator, ratio: float, times: int, text: str = ENGLISH) -> None:
    """A model that counts `ratio` times what is estimated without corrections."""
    plain = TokenEstimator(lambda model_id: None)
    estimator.estimate(a_request(text), MODEL)
    for _ in range(times):
        true = plain.estimate(a_request(text), MODEL) * ratio
        estimator.learn(a_request(text), MODEL, usage(round(true)))


@pytest.fixture
def estimator() -> TokenEstimator:
    return TokenEstimator(lambda model_id: None)


@cache
def tokenizer_of(vocabulary: str) -> Any:
    """Read once in a process: a vocabulary has 100,000 entries and more."""
    splintr = pytest.importorskip("splintr", reason="the extra [tokens] is not installed")
    return splintr.Tokenizer.from_pretrained(vocabulary)


# --- without a vocabulary -------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("kind", TEXTS)
def test_no_kind_of_text_is_estimated_more_than_a_third_under(kind: str, vocabulary: str) -> None:
    text = TEXTS[kind]

    true = len(tokenizer_of(vocabulary).encode_ordinary(text))

    assert rough_tokens(text) >= true * 2 / 3


@given(st.text())
def test_no_text_is_estimated_below_a_third_of_its_bytes_or_above_them_by_far(text: str) -> None:
    size = len(text.encode("utf-8", "replace"))

    assert size / 3 - 1 <= rough_tokens(text) <= size * 1.1 + 1


def test_schema_tools_and_images_count(estimator: TokenEstimator) -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {}}]
    image = ModelRequest(model_id="", messages=({"role": "user", "content": parts},), max_tokens=9)
    schema = {"type": "object", "properties": {"label": {"enum": ["billing", "delivery"]}}}

    plain = estimator.estimate(a_request("What is this?"), MODEL)

    assert estimator.estimate(image, MODEL) == plain + IMAGE_TOKENS
    assert (
        estimator.estimate(a_request("What is this?", response_schema=schema), MODEL) > plain + 20
    )
    assert estimator.estimate(a_request("What is this?", tools=(schema,)), MODEL) > plain + 20


# --- learning ---------------------------------------------------------------------------------


def test_what_a_model_reports_corrects_its_estimates_and_no_other_models(
    estimator: TokenEstimator,
) -> None:
    other = ModelSettings(name="other", provider="p", id="other")
    before = estimator.estimate(a_request(ENGLISH), MODEL)

    taught(estimator, 1.6, times=40)

    assert estimator.estimate(a_request(ENGLISH), MODEL) == pytest.approx(before * 1.6, rel=0.03)
    assert estimator.estimate(a_request(ENGLISH), other) == before


def test_a_few_calls_change_nothing(estimator: TokenEstimator) -> None:
    before = estimator.estimate(a_request(ENGLISH), MODEL)

    taught(estimator, 0.8, times=10)

    assert estimator.estimate(a_request(ENGLISH), MODEL) == before


def test_one_odd_call_changes_nothing(estimator: TokenEstimator) -> None:
    taught(estimator, 0.9, times=60)
    before = estimator.estimate(a_request(ENGLISH), MODEL)

    taught(estimator, 500.0, times=1)

    assert estimator.estimate(a_request(ENGLISH), MODEL) == before


@pytest.mark.parametrize(("ratio", "bound"), [(0.01, CORRECTIONS[0]), (900.0, CORRECTIONS[1])])
def test_a_correction_is_bounded(estimator: TokenEstimator, ratio: float, bound: float) -> None:
    before = estimator.estimate(a_request(ENGLISH), MODEL)

    taught(estimator, ratio, times=60)

    assert estimator.estimate(a_request(ENGLISH), MODEL) == pytest.approx(before * bound, abs=2)


def test_a_model_that_counts_nothing_teaches_nothing(estimator: TokenEstimator) -> None:
    before = estimator.estimate(a_request(ENGLISH), MODEL)

    for _ in range(50):
        estimator.learn(a_request(ENGLISH), MODEL, usage(None))

    assert estimator.estimate(a_request(ENGLISH), MODEL) == before


def test_of_calls_alike_about_one_in_a_hundred_is_estimated_under(
    estimator: TokenEstimator,
) -> None:
    """2 of 201 by theory; seeded, 4,000 draws: 3 standard errors around 0.995 % are 0.5 points."""
    draw, under, drawn = random.Random(11), 0, 4000
    request = a_request(ENGLISH)
    raw = TokenEstimator(lambda model_id: None).estimate(request, MODEL)
    for n in range(300 + drawn):
        true = round(raw * draw.lognormvariate(0.0, 0.1) * 1.2)
        under += n >= 300 and estimator.estimate(request, MODEL) < true
        estimator.learn(request, MODEL, usage(true))

    assert under / drawn < 0.015


@pytest.mark.parametrize("kind", TEXTS)
def test_no_kind_of_text_is_more_than_half_under_after_learning_from_lean_english(
    kind: str,
) -> None:
    estimator = TokenEstimator(lambda model_id: None)
    taught(estimator, 0.5, times=60)

    estimated = estimator.estimate(a_request(TEXTS[kind]), MODEL)

    counts = [len(tokenizer_of(v).encode_ordinary(TEXTS[kind])) for v in VOCABULARIES]
    assert estimated >= max(counts) / 2


# --- exact ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_id", "vocabulary"),
    [
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("openai/gpt-4.1-nano", "o200k_base"),
        ("gpt-5.1", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("ft:gpt-4o-mini:acme", "o200k_base"),
        ("gpt-4-0613", "cl100k_base"),
        ("gpt-35-turbo", "cl100k_base"),
        ("openai/gpt-oss-20b", "gpt-oss"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen3"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", None),
        ("claude-3-5-haiku-latest", None),
        ("llama-30b", None),
        ("gpt-4omni", None),
    ],
)
def test_a_vocabulary_is_known_by_the_models_id(model_id: str, vocabulary: str | None) -> None:
    assert vocabulary_of(model_id) == vocabulary


def test_a_known_model_is_counted_exactly_without_a_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("splintr", reason="the extra [tokens] is not installed")

    def refused(*arguments: Any) -> None:
        raise OSError("there is no network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)

    count = exact_counter("gpt-4o-mini")

    assert count is not None
    # As OpenAI's own tokenizer counts them in o200k_base.
    assert [count(t) for t in ("", "hello world", "Grüße 😀 日本語テキスト", "0" * 9)] == [
        0,
        2,
        9,
        3,
    ]
    assert count("<|endoftext|>") > 1


def test_a_text_beyond_the_bound_is_counted_by_its_beginning() -> None:
    pytest.importorskip("splintr", reason="the extra [tokens] is not installed")
    count = exact_counter("gpt-4o-mini")
    assert count is not None

    assert count("word " * 400_000) == pytest.approx(400_000, rel=0.01)


# --- in the call path -------------------------------------------------------------------------


async def test_a_model_that_counts_more_than_was_thought_is_sent_less(tmp_path: Path) -> None:
    counts = Behaviour(text='{"label": "billing"}', usage={"prompt": 500})
    async with World(tmp_path, counts) as world:
        world.set_model("small", context=550)
        text = "I ordered a lamp and got a chair, and nobody answers. " * 10

        first = await world.call(text)
        for _ in range(30):
            last = await world.call(text)

        assert first.record.route_reason is None
        assert last.record.route_reason is not None
        assert last.record.route_reason.startswith("left out: ")
