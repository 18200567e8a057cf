"""Near-equal questions: what may differ between two that share an answer, and what may not."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.call.cache import Cached, cache_key
from evalkit.call.cache_audit import SHIPPED_PAIRS, load_pairs
from evalkit.call.semantic_cache import (
    MAX_WORDS,
    SemanticCache,
    cosine,
    embedder,
    semantic_key,
    split_asked,
    telling_words,
    vectors_here,
)
from evalkit.records import Finish, Pair, Usage

ANSWER = Cached(
    output="Choose Forgot password.",
    finish=Finish(finish_reason="stop", usage=Usage(), served_model=None),
    model="small",
    served_model="small",
    pair=Pair(model="small", prompt_name="help", prompt_version="v1"),
)


class Kept:
    """A storage in memory."""

    errors = 0

    def __init__(self) -> None:
        self.answers: dict[str, Cached] = {}

    async def get(self, key: str) -> Cached | None:
        return self.answers.get(key)

    async def put(self, key: str, cached: Cached, ttl_s: float) -> None:
        self.answers[key] = cached

    async def aclose(self) -> None: ...


def semantic(*, threshold: float = 0.5) -> SemanticCache:
    return SemanticCache(Kept(), threshold=threshold, embed=embedder("hashed"))


def same_words(one: str, other: str) -> bool:
    return semantic_key(one, "n") == semantic_key(other, "n") is not None


# --- hits and misses ------------------------------------------------------------------


async def test_a_paraphrase_is_answered_with_the_kept_answer_and_its_nearness() -> None:
    cache = semantic()
    await cache.store("How do I reset my password?", "help:1", ANSWER, 60)

    near = await cache.lookup("Hi! How can I reset my password please?", "help:1")

    assert near is not None
    assert near.cached.output == ANSWER.output
    assert near.cached.asked == "How do I reset my password?"
    assert 0.5 <= near.similarity <= 1.0 + 1e-9


async def test_equal_words_below_the_threshold_are_a_miss() -> None:
    cache = SemanticCache(
        Kept(), threshold=0.95, embed=lambda text: (1.0, 0.0) if "Hi" in text else (0.9, 0.436)
    )
    await cache.store("Where is it sold?", "help:1", ANSWER, 60)

    assert await cache.lookup("Hi, where is it sold?", "help:1") is None


async def test_other_namespaces_share_nothing() -> None:
    cache = semantic()
    await cache.store("Where is my order?", "help:1", ANSWER, 60)

    assert await cache.lookup("Where is my order?", "help:2") is None


async def test_a_miss_makes_no_vector() -> None:
    def no_vector(text: str) -> list[float]:
        raise AssertionError("a vector was made")

    cache = SemanticCache(Kept(), threshold=0.9, embed=no_vector)
    await cache.store("Where is my order?", "help:1", ANSWER, 60)

    assert await cache.lookup("Do not cancel my order", "help:1") is None


async def test_the_newest_answer_to_the_same_words_counts() -> None:
    cache = semantic()
    await cache.store("Where is my order?", "help:1", ANSWER, 60)
    await cache.store("Please, where is my order?", "help:1", replace(ANSWER, output="new"), 60)

    near = await cache.lookup("where is my order", "help:1")

    assert near is not None
    assert near.cached.output == "new"


@pytest.mark.parametrize(
    "text",
    ["", "   ", "?!", "could I", "word " * (MAX_WORDS + 1), "x" * 10**6],
    ids=["empty", "blank", "signs", "small words", "too many words", "too long"],
)
async def test_what_says_nothing_or_too_much_is_not_compared(text: str) -> None:
    kept = Kept()
    cache = SemanticCache(kept, threshold=0.0, embed=embedder("hashed"))

    await cache.store(text, "help:1", ANSWER, 60)

    assert kept.answers == {}
    assert await cache.lookup(text, "help:1") is None


# --- which words tell -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [(p.a, p.b) for p in load_pairs(SHIPPED_PAIRS) if not p.same],
)
def test_pairs_that_need_different_answers_never_share_words(one: str, other: str) -> None:
    assert not same_words(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where is my order?", "Could you please tell me where my order is?"),
        ("I can't log in.", "i cannot log in"),
        ("It costs 1,000 euros", "It costs 1000 euros."),
        ("Can I return shoes after five days?", "Can I return shoes after 5 days?"),
        ("Is it possible to pay later?", "Can I pay later?"),
        ("When will my card arrive?", "Hi there, I would like to know when my card will arrive."),
        ("How do I delete messages?", "how to delete a message"),
        ("What’s my balance?", "What is my balance?"),
    ],
)
def test_politeness_grammar_and_word_forms_may_differ(one: str, other: str) -> None:
    assert same_words(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Storniere meine Bestellung", "Storniere meine Bestellung nicht"),
        ("Annule ma commande", "N'annule pas ma commande"),
        ("取消我的订单", "不要取消我的订单"),
        ("Cancela mi pedido", "No canceles mi pedido"),
        ("Wann kommt mein Paket?", "Warum kommt mein Paket?"),
    ],
)
def test_in_other_languages_every_word_tells(one: str, other: str) -> None:
    assert same_words(one, one)
    assert not same_words(one, other)


def test_capitals_that_are_a_name_are_not_a_small_word() -> None:
    assert telling_words("Do you ship to the US?") != telling_words("Do you ship to us?")
    assert telling_words("Who is it?") != telling_words("WHO is it?")


def test_texts_that_differ_in_intent_hardly_ever_share_words(
    shared_data: Callable[[str], Path],
) -> None:
    """77 intents of bank customers, 3,080 texts by others: 4.7 million pairs of two intents.

    Five share their telling words; each is one question that was filed under two intents
    ("What are the fees for top ups?", "What are the fees for top-ups?").
    """
    with shared_data("tasks/banking77_test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    intents: dict[tuple[str, ...], Counter[str]] = {}
    for row in rows:
        words = telling_words(row["text"])
        if words is not None:
            intents.setdefault(words, Counter())[row["category"]] += 1

    def pairs(counts: Counter[str]) -> int:
        n = sum(counts.values())
        return (n * n - sum(count * count for count in counts.values())) // 2

    confused = sum(pairs(counts) for counts in intents.values())
    hits = sum(n * (n - 1) // 2 for counts in intents.values() for n in counts.values())

    assert confused <= 5
    assert hits >= 90


# --- the request without what was asked -----------------------------------------------


def test_what_the_user_wrote_is_what_stands_in_data_blocks() -> None:
    system = {"role": "system", "content": "Be kind."}
    user = {"role": "user", "content": "Question:\n<data>\nWhere is it?\n</data>\nAnswer briefly."}

    split = split_asked((system, user))

    assert split is not None
    frame, text = split
    assert text == "Where is it?"
    assert frame[0] == system
    assert frame[1]["content"] == "Question:\n<data>\n\n</data>\nAnswer briefly."


def test_a_message_without_data_blocks_is_what_the_user_wrote() -> None:
    split = split_asked(({"role": "user", "content": "Where is it?"},))

    assert split == (({"role": "user", "content": ""},), "Where is it?")


def test_words_do_not_move_from_one_data_block_to_another() -> None:
    def asked(one: str, other: str) -> str | None:
        content = f"<data>\n{one}\n</data>\n<data>\n{other}\n</data>"
        split = split_asked(({"role": "user", "content": content},))
        assert split is not None
        return semantic_key(split[1], "n")

    assert asked("gold customer", "refund") != asked("gold", "customer refund")


@pytest.mark.parametrize(
    "messages",
    [
        (),
        ({"role": "assistant", "content": "Where is it?"},),
        ({"role": "user", "content": [{"type": "image", "data": "AAAA"}]},),
    ],
    ids=["none", "assistant", "image"],
)
def test_what_is_no_text_of_a_user_is_not_compared(messages: tuple[dict[str, object], ...]) -> None:
    assert split_asked(messages) is None


async def test_everything_else_of_a_request_has_to_be_equal() -> None:
    def namespace(system: str, text: str) -> tuple[str, str]:
        split = split_asked(
            ({"role": "system", "content": system}, {"role": "user", "content": text})
        )
        assert split is not None
        frame, asked = split
        return asked, cache_key(messages=frame, model_id="m", params={}, namespace="help")

    cache = semantic()
    await cache.store(*namespace("Be kind.", "Where is my order?"), ANSWER, 60)

    assert await cache.lookup(*namespace("Be kind.", "where is my order")) is not None
    assert await cache.lookup(*namespace("Be brief.", "where is my order")) is None


# --- vectors --------------------------------------------------------------------------


def test_counted_vectors_have_length_one_and_order_by_what_texts_share() -> None:
    embed = embedder("hashed")

    same = cosine(embed, "Where is my order?", "Where is my order?")
    near = cosine(embed, "Where is my order?", "Where are my orders?")
    far = cosine(embed, "Where is my order?", "Do you sell gift cards?")

    assert same == pytest.approx(1.0)
    assert same > near > 0.5 > far >= 0.0


def test_a_sentence_model_alone_takes_a_negation_for_a_paraphrase() -> None:
    if vectors_here() == "hashed":
        pytest.skip("the extra local is not installed")
    embed = embedder("local")

    negated = cosine(embed, "Cancel my order", "Do not cancel my order")
    paraphrased = cosine(embed, "Is my order late?", "Please tell me, is my order late?")

    assert negated > 0.9
    assert negated > paraphrased - 0.1
    assert not same_words("Cancel my order", "Do not cancel my order")
