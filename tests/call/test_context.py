"""What goes first when a request is too long, and what never goes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from evalkit.call.context import trim


def document(n: int) -> str:
    return f'<document id="d{n}">\nText of document {n}.\n</document>\n'


def test_the_lowest_ranked_half_of_the_documents_goes_first() -> None:
    user = "Answer.\n" + "".join(document(n) for n in range(5)) + "Question?"

    trimmed = trim([{"role": "system", "content": "S"}, {"role": "user", "content": user}])

    assert trimmed is not None
    assert trimmed.cut == "3 of 5 documents"
    content = trimmed.messages[1]["content"]
    assert 'id="d0"' in content
    assert 'id="d1"' in content
    assert 'id="d2"' not in content
    assert content.endswith("Question?")


def test_the_question_is_no_old_turn_of_what_comes_back_to_its_answer() -> None:
    example = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    question = {"role": "user", "content": "Where is it?"}
    again = [{"role": "assistant", "content": "x"}, {"role": "user", "content": "No JSON."}]

    trimmed = trim([*example, question, *again], follow_up=2)

    assert trimmed is not None
    assert list(trimmed.messages) == [question, *again]
    assert trim(trimmed.messages, follow_up=2) is None


def test_the_oldest_turns_go_next_in_whole_exchanges() -> None:
    turns = [
        {"role": role, "content": f"{role} {n}"} for n in range(3) for role in ("user", "assistant")
    ]
    messages = [{"role": "system", "content": "S"}, *turns, {"role": "user", "content": "last"}]

    trimmed = trim(messages)

    assert trimmed is not None
    assert trimmed.cut == "2 of 6 earlier turns"
    assert [m["content"] for m in trimmed.messages] == [
        "S", "user 1", "assistant 1", "user 2", "assistant 2", "last"
    ]  # fmt: skip


def test_the_middle_of_the_longest_text_goes_last() -> None:
    text = "begin " + "x" * 1000 + " end"

    trimmed = trim([{"role": "system", "content": "S" * 9000}, {"role": "user", "content": text}])

    assert trimmed is not None
    assert trimmed.messages[0]["content"] == "S" * 9000
    content = trimmed.messages[1]["content"]
    assert content.startswith("begin ")
    assert content.endswith(" end")
    assert "characters left out" in content


def test_a_short_text_is_left_whole() -> None:
    assert (
        trim([{"role": "system", "content": "S" * 9000}, {"role": "user", "content": "Hi"}]) is None
    )


@given(
    st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=3000)),
        min_size=1,
        max_size=12,
    )
)
def test_trimming_ends_and_leaves_the_system_prompt(turns: list[tuple[str, str]]) -> None:
    system = [text for role, text in turns if role == "system"]
    messages: Any = [{"role": role, "content": text} for role, text in turns]

    for _ in range(100):
        trimmed = trim(messages)
        if trimmed is None:
            break
        before = sum(len(m["content"]) for m in messages) + 100 * len(messages)
        messages = trimmed.messages
        assert sum(len(m["content"]) for m in messages) + 100 * len(messages) < before

    assert trimmed is None
    first_turn = next((n for n, (role, _) in enumerate(turns) if role != "system"), len(turns))
    kept = [m["content"] for m in messages if m["role"] == "system"]
    assert kept[:first_turn] == system[:first_turn]
