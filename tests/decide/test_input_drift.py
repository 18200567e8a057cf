"""Inputs that change: their language, what they are about, and what they are answered with."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.decide.monitor import Watched, watch_all
from evalkit.decide.series import alpha_shares, series_of
from evalkit.score.inputs import describe_inputs
from evalkit.score.topics import HASHED, UNFAMILIAR, Topics, hashed_vectors, learn_topics
from evalkit.settings import FeatureSettings
from evalkit.store.input_profiles import FOLDER, saved_days
from evalkit.store.retention import PurgeRule, purge
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import call, plain

DAY = 86_400_000_000
FROM = 1_772_409_600_000_000
"""2 March 2026."""
A_DAY = 80

CARD = ("My card was charged twice for order {}", "Please refund the charge on my card, order {}",
        "Why is there a second charge on the card for {}?")  # fmt: skip
PARCEL = ("Where is the parcel of order {}? It has not arrived", "The parcel {} is late again",
          "When will the parcel with order {} be delivered?")  # fmt: skip
GERMAN = (
    "Wo ist das Paket der Bestellung {}? Es ist noch nicht da",
    "Ich habe für {} zweimal gezahlt, bitte das Geld zurück",
    "Warum kommt die Lieferung von {} nicht an?",
)
GARDEN = ("How often should I water tomato plants in balcony box {}?",
          "Which soil do roses and tomato plants need in garden {}?",
          "When may I plant roses outside after winter {}?")  # fmt: skip


def day_of(number: int, rng: random.Random, texts: Mapping[tuple[str, ...], float]) -> list[Any]:
    """Calls of one day, drawn from kinds of texts with their chances."""
    calls = []
    for n in range(A_DAY):
        kind = rng.choices(list(texts), list(texts.values()))[0]
        label = "payment" if kind is CARD else "delivery"
        calls.append(
            call(
                trace_id=f"t-{number}-{n}", ts=FROM + number * DAY + n * 60_000_000,
                input={"text": rng.choice(kind).format(rng.randint(1, 999))},
                output=json.dumps({"label": label}),
            )
        )  # fmt: skip
    return calls


def production(folder: Path, *mixes: tuple[int, Mapping[tuple[str, ...], float]]) -> Store:
    """A log of so many days of each mix, one after another."""
    store, rng, number = open_store(folder / ".evalkit"), random.Random(4), 0
    for days, texts in mixes:
        for _ in range(days):
            store.add_calls("log", [plain(one) for one in day_of(number, rng, texts)])
            number += 1
    return store


def watched(store: Store, days: int) -> dict[str, Watched]:
    describe_inputs(store, {}, now=FROM + (days + 1) * DAY)
    return {one.series.names[3]: one for one in watch_all(series_of(store))}


@pytest.fixture(autouse=True)
def _without_sentence_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalkit.score.inputs.backend_here", lambda: HASHED)


USUAL = {CARD: 0.5, PARCEL: 0.5}


def test_more_german_is_found_and_named(tmp_path: Path) -> None:
    store = production(tmp_path, (10, USUAL | {GERMAN: 0.1}), (8, USUAL | {GERMAN: 1.0}))

    found = watched(store, 18)

    assert found["language de"].state == "drift"
    assert found["language en"].state == "steady"
    assert found["language de"].since is not None
    assert abs(found["language de"].since - (FROM + 10 * DAY)) <= DAY
    assert found["language de"].series.names[:3] == ("classify-ticket", "", "")


def test_a_new_subject_is_unfamiliar(tmp_path: Path) -> None:
    store = production(tmp_path, (10, USUAL), (8, USUAL | {GARDEN: 0.5}))

    found = watched(store, 18)

    assert found[f"topic {UNFAMILIAR}"].state == "drift"
    assert [one.state for name, one in found.items() if name.startswith("language")] == [
        "steady"
    ] * 2  # fmt: skip


def test_another_mix_of_the_same_subjects_is_found_by_topic_and_by_answer(tmp_path: Path) -> None:
    store = production(tmp_path, (14, USUAL), (8, {CARD: 1.0}))

    found = watched(store, 22)

    moved = [name for name, one in found.items() if one.state == "drift"]
    assert "answer payment" in moved
    assert any(name.startswith("topic ") for name in moved)
    assert not any("parcel" in name or "delivery" in name for name in moved)
    assert found["answer payment"].series.names[:3] == ("classify-ticket", "small", "v2")


def test_the_same_inputs_every_day_are_steady(tmp_path: Path) -> None:
    store = production(tmp_path, (16, USUAL | {GERMAN: 0.2}))

    found = watched(store, 16)

    assert {one.state for one in found.values()} == {"steady"}
    assert sum(alpha_shares(series_of(store))) < 1


def test_a_day_is_described_once_and_stays_when_its_texts_go(tmp_path: Path) -> None:
    store = production(tmp_path, (9, USUAL))
    describe_inputs(store, {}, now=FROM + 10 * DAY)
    before = list(saved_days(store))

    purge(store, PurgeRule(texts_before=FROM + 8 * DAY))
    again = describe_inputs(store, {}, now=FROM + 10 * DAY)

    assert again == []
    assert list(saved_days(store)) == before
    assert len(before) == 9


def test_topics_that_were_deleted_are_learnt_from_the_days_that_follow(tmp_path: Path) -> None:
    store = production(tmp_path, (9, USUAL), (9, {GARDEN: 1.0}))
    describe_inputs(store, {}, now=FROM + 10 * DAY)
    (first,) = (store.path / FOLDER).glob("*.topics.json")
    names = json.loads(first.read_text("utf-8"))["names"]
    first.unlink()

    describe_inputs(store, {}, now=FROM + 19 * DAY)

    again = json.loads(first.read_text("utf-8"))
    assert (again["since"], again["until"]) == ("2026-03-11", "2026-03-17")
    assert not {one for one in again["names"] if ":" in one} & set(names)


def test_a_day_that_is_not_over_waits(tmp_path: Path) -> None:
    store = production(tmp_path, (2, USUAL))

    first = describe_inputs(store, {}, now=FROM + 2 * DAY)

    assert first == ["2026-03-02"]


def test_what_is_kept_has_nobodys_words(tmp_path: Path) -> None:
    store = production(tmp_path, (9, USUAL))
    said = ("Dear xylophone, hello!", "the xylophone is with Ann", '{"label": "xylophone"}')
    odd = [
        call(trace_id=f"odd-{n}", ts=FROM + DAY, input={"text": "xylophone"}, output=text)
        for n, text in enumerate(said)
    ]
    store.add_calls("odd", list(map(plain, odd)))

    describe_inputs(store, {}, now=FROM + 10 * DAY)

    kept = b"".join(path.read_bytes() for path in (store.path / FOLDER).iterdir())
    assert b"xylophone" not in kept
    assert b"topics" in b"".join(p.name.encode() for p in (store.path / FOLDER).iterdir())


def test_answers_count_as_the_labels_of_their_schema(tmp_path: Path) -> None:
    schema = tmp_path / "answer.json"
    schema.write_text(
        json.dumps({"type": "object", "properties": {"kind": {"enum": ["a", "b"]}}}), "utf-8"
    )
    feature = FeatureSettings(
        name="classify-ticket", prompt_name="p", prompt_version="v1", model="m",
        output_schema=schema,
    )  # fmt: skip
    store = open_store(tmp_path / ".evalkit")
    outputs = ['{"kind": "a"}', '{"kind": "a"}', '{"kind": "made up"}', "no JSON at all"]
    rows = [plain(call(trace_id=f"t-{n}", ts=FROM, output=text)) for n, text in enumerate(outputs)]
    store.add_calls("log", rows)

    describe_inputs(store, {"classify-ticket": feature}, now=FROM + 3 * DAY)

    ((_, counts),) = saved_days(store)
    assert {c.kind: c.n for c in counts if c.what == "answer"} == {"a": 2, "other": 2}


def test_documents_that_come_with_a_question_do_not_hide_its_language(tmp_path: Path) -> None:
    store = open_store(tmp_path / ".evalkit")
    documents = [{"id": "d1", "text": "The library is open on all weekdays and it is free. " * 9}]
    asked = {"question": "Wann öffnet die Bibliothek am Montag?", "documents": documents}
    store.add_calls("log", [plain(call(ts=FROM, input=asked))])

    describe_inputs(store, {}, now=FROM + 3 * DAY)

    ((_, counts),) = saved_days(store)
    assert [one.kind for one in counts if one.what == "language"] == ["de"]


def test_routes_are_counted_by_their_kind(tmp_path: Path) -> None:
    store = open_store(tmp_path / ".evalkit")
    reasons = ["kind refund (0.91) -> small", "kind refund -> small", "kind faq -> call:m:f"]
    rows = [
        plain(call(trace_id=f"t-{n}", ts=FROM, route_reason=text)) for n, text in enumerate(reasons)
    ]
    store.add_calls("log", rows)

    describe_inputs(store, {}, now=FROM + 3 * DAY)

    ((_, counts),) = saved_days(store)
    assert {c.kind: c.n for c in counts if c.what == "route"} == {"refund": 2, "faq": 1}


def test_topics_are_the_same_after_they_were_kept() -> None:
    texts = [text.format(n) for n in range(30) for text in (*CARD, *PARCEL)]
    vectors = hashed_vectors(texts)

    topics = learn_topics(texts, vectors, backend=HASHED)
    assert topics is not None
    kept = Topics.from_json(json.loads(json.dumps(topics.as_json())))

    assert kept.of(vectors) == topics.of(vectors)
    assert topics.of(hashed_vectors([GARDEN[0].format(3)])) == [UNFAMILIAR]
    assert learn_topics(texts[:10], vectors[:10], backend=HASHED) is None


def test_inputs_that_are_all_of_a_few_are_familiar_once_topics_were_kept() -> None:
    asked = ["When is the library open on Monday?", "Can I borrow a laptop there?",
             "How do I renew a book?"]  # fmt: skip
    learnt = learn_topics(asked * 30, hashed_vectors(asked * 30), backend=HASHED)
    assert learnt is not None

    kept = Topics.from_json(json.loads(json.dumps(learnt.as_json())))

    assert len(set(kept.names)) == len(kept.names) == 3
    assert UNFAMILIAR not in kept.of(hashed_vectors(asked))


def test_the_command_shows_the_mixes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")
    production(tmp_path, (10, USUAL), (8, USUAL | {GERMAN: 1.0}))
    options = ["--config", str(tmp_path / "evalkit.toml")]

    assert main(["drift", *options]) == 1
    told = capsys.readouterr().out
    assert main(["alerts", "--at", "2026-03-21", "--json", *options]) == 1

    assert "language other" in told or "language de" in told
    keys = [one["key"] for one in json.loads(capsys.readouterr().out)["firing"]]
    assert any(key.startswith("drift/classify-ticket/language") for key in keys)
