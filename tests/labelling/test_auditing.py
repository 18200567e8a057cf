"""Who saw what: noted before it is shown, and told with what they said."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.review import ReviewQueue
from evalkit.errors import StoreError
from evalkit.labelling.auditing import events
from evalkit.store.audit import note_seen, read_seen
from tests.labelling.world import annotating, evalkit, queue_of
from tests.score.answers import RECORD

pytest.importorskip("starlette", reason="the extra label is not installed")
pytest.importorskip("uvicorn", reason="the extra label is not installed")


def told(store: Path, **only: Any) -> list[tuple[str, str, str]]:
    return [(one.who, one.did, one.kind) for one in events(store, **only)]


def test_what_annotators_are_shown_is_noted_before_they_say_anything(tmp_path: Path) -> None:
    queue_of(tmp_path, 2).close()

    with annotating(tmp_path, "ann", "bob") as [ann, bob]:
        ann.send(a0="pass")
        bob.get(f"/item/{bob.item}/whole/0")

    assert told(tmp_path, who="bob") == [("bob", "seen", "item")] * 2
    assert told(tmp_path, who="ann")[:2] == [("ann", "seen", "item"), ("ann", "labelled", "item")]
    [first] = {tuple(one.trace_ids) for one in events(tmp_path, who="bob")}
    assert first[0].startswith("trace-")
    assert len(events(tmp_path, trace_id=first[0])) >= 2


def test_reviews_are_noted_with_their_decision(tmp_path: Path) -> None:
    with closing(ReviewQueue(tmp_path / "queue.sqlite")) as reviews:
        reviews.hold(replace(RECORD, trace_id="trace-9", output="Refund."))

    with annotating(tmp_path, "ann") as [ann]:
        ann.send(decision="approve")

    assert told(tmp_path, trace_id="trace-9") == [
        ("ann", "seen", "review"), ("ann", "approved", "review"),
    ]  # fmt: skip


def test_a_review_on_the_command_line_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(ReviewQueue(tmp_path / "queue.sqlite")) as reviews:
        review = reviews.hold(replace(RECORD, trace_id="trace-9", output="Refund."))

    assert evalkit("review", "show", review, store=tmp_path) == 0
    capsys.readouterr()
    assert evalkit("label", "audit", "--json", store=tmp_path) == 0

    [one] = json.loads(capsys.readouterr().out)
    assert (one["did"], one["kind"], one["trace_ids"]) == ("seen", "review", ["trace-9"])


def test_an_export_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queue_of(tmp_path, 1).close()

    assert evalkit("label", "export", str(tmp_path / "out.jsonl"), store=tmp_path) == 0
    assert evalkit("label", "audit", store=tmp_path) == 0

    assert "seen  export" in capsys.readouterr().out


def test_what_cannot_be_noted_is_not_shown(tmp_path: Path) -> None:
    queue_of(tmp_path, 1).close()
    (tmp_path / "audit").write_text("a file where a folder should be")

    with annotating(tmp_path, "ann") as [ann]:
        page, status = ann.page, ann.answer.status_code

    assert status == 409
    assert "Question 0?" not in page
    with pytest.raises(StoreError):
        note_seen(tmp_path, who="ann", kind="item", item="i", trace_ids=[])


def test_half_a_line_spoils_no_other(tmp_path: Path) -> None:
    note_seen(tmp_path, who="ann", kind="item", item="one", trace_ids=["t"])
    [path] = (tmp_path / "audit").glob("*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"at": 1, "who": "b')

    note_seen(tmp_path, who="ann", kind="item", item="two", trace_ids=["t"])

    assert [one.item for one in read_seen(tmp_path)] == ["one", "two"]
