"""Families of models, and the same answer given to many cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.config import ModelSettings, ProviderSettings, RunSettings, Settings
from evalkit.score.bias import Repeats, duplicate_output, family_of, same_answer, self_preference
from evalkit.score.judge import load_judge
from tests.score.judging import graded


@pytest.mark.parametrize(
    ("model_id", "family"),
    [
        ("gpt-4o-mini", "gpt"),
        ("openai/gpt-5", "gpt"),
        ("o3-mini", "gpt"),
        ("chatgpt-4o-latest", "gpt"),
        ("claude-sonnet-4-5", "claude"),
        ("anthropic.claude-3-5-sonnet-20240620-v1:0", "claude"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama"),
        ("us.meta.llama3-1-8b-instruct-v1:0", "llama"),
        ("qwen2.5:7b", "qwen"),
        ("open-mixtral-8x7b", "mistral"),
        ("house-model-7", "house"),
        ("7", "7"),
    ],
)
def test_the_family_of_a_model_is_in_its_id(model_id: str, family: str) -> None:
    assert family_of(model_id) == family


def settings(tmp_path: Path, judge_id: str, wire: str = "openai") -> Settings:
    return Settings(
        root=tmp_path,
        providers={"p": ProviderSettings(name="p", wire=wire, base_url="http://127.0.0.1:1")},
        models={
            "judge": ModelSettings(name="judge", provider="p", id=judge_id),
            "mini": ModelSettings(name="mini", provider="p", id="gpt-4o-mini"),
            "haiku": ModelSettings(name="haiku", provider="p", id="claude-haiku"),
        },
        run=RunSettings(judge_model="judge"),
    )


def test_a_judge_of_the_family_it_judges_is_named(tmp_path: Path) -> None:
    judges = {"right": load_judge(graded(tmp_path, "right"))}

    [note] = self_preference(judges, ["mini", "haiku"], settings(tmp_path, "gpt-4o"))

    assert note.startswith("judge right (gpt-4o) is of the same family as mini,")


@pytest.mark.parametrize(("judge_id", "wire"), [("gemini-pro", "openai"), ("gpt-4o", "embedded")])
def test_another_family_or_a_ruler_in_process_is_not(
    tmp_path: Path, judge_id: str, wire: str
) -> None:
    judges = {"right": load_judge(graded(tmp_path, "right"))}

    assert self_preference(judges, ["mini", "haiku"], settings(tmp_path, judge_id, wire)) == []


def test_a_judge_says_its_own_model_before_the_runs(tmp_path: Path) -> None:
    spec = replace(load_judge(graded(tmp_path, "right")), model="haiku")

    [note] = self_preference({"right": spec}, ["haiku"], settings(tmp_path, "gpt-4o"))

    assert "judge right (claude-haiku)" in note


# --- the same answer -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Billing.", " billing", True),
        ('{"label": "billing"}', '{"label":"Billing"}', True),
        (
            "Thank you for asking, your ticket is 17.",
            "Thank you for asking, your ticket is 4",
            True,
        ),
        ("It costs 5 euros.", "It costs 7 euros.", False),
        ("billing", "delivery", False),
        (":", "…", False),
    ],
)
def test_near_answers_are_the_same_and_short_ones_keep_their_numbers(
    one: str, other: str, same: bool
) -> None:
    assert (same_answer(one) == same_answer(other)) is same


def repeats(*outputs: str) -> Repeats:
    found = Repeats()
    for output in outputs:
        found.add(output)
    return found


def nothing(limit: int | None) -> list[str]:
    return []


def test_one_answer_to_most_cases_is_found() -> None:
    given = repeats(*["I am happy to help."] * 15, *(f"answer {n} of mine" for n in range(5)))

    found = duplicate_output(given, nothing)

    assert found == (15, 20, "I am happy to help.")


def test_labels_that_repeat_as_they_should_are_not() -> None:
    expected = [{"label": "billing"}] * 14 + [{"label": "delivery"}] * 6
    given = repeats(*['{"label": "billing"}'] * 14, *['{"label": "delivery"}'] * 6)

    assert duplicate_output(given, lambda limit: expected) is None


def test_a_constant_label_is_found_even_where_it_is_mostly_right() -> None:
    expected = [{"label": "billing"}] * 14 + [{"label": "delivery"}] * 6

    found = duplicate_output(repeats(*['{"label": "billing"}'] * 20), lambda limit: expected)

    assert found is not None


@pytest.mark.parametrize(("billing", "asked"), [(700, [500]), (880, [500, None])])
def test_all_expected_answers_are_read_only_where_drawn_ones_leave_it_open(
    billing: int, asked: list[int | None]
) -> None:
    expected = ["billing"] * billing + ["delivery"] * (1_000 - billing)
    asked_for = []

    def drawn(limit: int | None) -> list[str]:
        asked_for.append(limit)
        return expected[:: 1 if limit is None else 2]

    found = duplicate_output(repeats(*["billing"] * 960, *["other"] * 40), drawn)

    assert found == (960, 1_000, "billing")
    assert asked_for == asked


def test_few_cases_and_varied_answers_ask_for_nothing() -> None:
    def never(limit: int | None) -> list[object]:
        raise AssertionError("not needed")

    assert duplicate_output(repeats(*["x"] * 9), never) is None
    assert duplicate_output(repeats(*(f"x {n}" for n in range(50))), never) is None


def test_among_many_texts_a_common_answer_is_still_found_and_counted_whole() -> None:
    plain = [f"answer {chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{n} alone" for n in range(1_500)]
    near = [f"Thank you for asking, your ticket has the number {n}." for n in range(2_500)]

    found = duplicate_output(repeats(*near, *plain), nothing)

    assert found is not None
    assert found[:2] == (2_500, 4_000)
    assert duplicate_output(repeats(*near[:1_000], *plain, *plain), nothing) is None


def test_long_answers_are_told_apart_by_their_ends() -> None:
    same = "Based on the documents that I was given, here is what I can say. " * 10

    given = repeats(*(f"{same} It is {chr(97 + n)}." for n in range(20)))

    assert duplicate_output(given, nothing) is None


def test_one_text_given_over_and_over_is_found_wherever_it_first_came() -> None:
    others = [f"answer {chr(97 + n % 26)}{n} alone" for n in range(1_201)]

    found = duplicate_output(repeats(*others, *["the very same"] * 2_000), nothing)

    assert found == (2_000, 3_201, "the very same")
