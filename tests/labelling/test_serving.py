"""The labelling server, met by people without scripts: none of their labels is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from evalkit.call.review import ReviewQueue
from evalkit.score.labels import preference_question
from tests.labelling.world import (
    Server,
    annotating,
    evalkit,
    items,
    judged_run,
    labels,
    queue_of,
    said,
    standing,
)
from tests.score.answers import RECORD

pytest.importorskip("starlette", reason="the extra label is not installed")
pytest.importorskip("uvicorn", reason="the extra label is not installed")


def test_plain_forms_are_enough_to_label_a_batch(tmp_path: Path) -> None:
    queue_of(tmp_path, 5).close()

    with annotating(tmp_path, "ann") as [ann]:
        n = ann.label_all("fail")
        end = ann.page

    assert n == 5
    assert "That is all" in end
    assert said(standing(tmp_path)) == [("ann", "tone", 0.0, False)] * 5
    assert {row["inclusion_prob"] for row in standing(tmp_path)} == {0.25}


def test_two_annotators_at_once_lose_none_of_two_hundred(tmp_path: Path) -> None:
    queue_of(tmp_path, 200, wanted=2).close()

    with annotating(tmp_path, "ann", "bob") as people:
        threads = [
            threading.Thread(target=one.label_all, args=(choice,))
            for one, choice in zip(people, ("pass", "fail"), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)

    rows = standing(tmp_path)
    assert len({(row["annotator"], row["trace_id"]) for row in rows}) == len(rows) == 400
    assert {row["score"] for row in rows if row["annotator"] == "bob"} == {0.0}
    assert len({row["label_id"] for row in labels(tmp_path)}) == 400


def test_items_wanted_once_are_shared_out(tmp_path: Path) -> None:
    queue_of(tmp_path, 40).close()

    with annotating(tmp_path, "ann", "bob") as [ann, bob]:
        for _ in range(20):
            ann.send(a0="pass")
            bob.send(a0="pass")

    rows = standing(tmp_path)
    assert len(rows) == 40
    assert len({row["trace_id"] for row in rows}) == 40


def test_the_same_item_by_two_at_the_same_moment_keeps_both(tmp_path: Path) -> None:
    queue_of(tmp_path, 1).close()

    with annotating(tmp_path, "ann", "bob") as [ann, bob]:
        path = f"/item/{ann.item}"
        bob.get(path)
        ann.send(path, a0="pass")
        bob.send(path, a0="fail", comment="too curt")

    assert said(standing(tmp_path)) == [("ann", "tone", 1.0, True), ("bob", "tone", 0.0, False)]
    assert standing(tmp_path)[1]["comment"] == "too curt"


def test_a_second_thought_replaces_the_first_and_keeps_it(tmp_path: Path) -> None:
    queue_of(tmp_path, 2).close()

    with annotating(tmp_path, "ann") as [ann]:
        first = f"/item/{ann.item}"
        ann.send(a0="pass")
        ann.get(first)
        ann.send(first, a0="fail")

    was, now = labels(tmp_path)
    assert (was["score"], now["score"], now["supersedes"]) == (1.0, 0.0, was["label_id"])


def test_undo_takes_the_last_label_back_and_shows_its_item(tmp_path: Path) -> None:
    queue_of(tmp_path, 3).close()

    with annotating(tmp_path, "ann") as [ann]:
        first = ann.item
        ann.send(a0="pass")
        ann.send("/undo")
        again, open_again = ann.item, "0</b> done" in ann.page
        ann.label_all("fail")

    assert again == first
    assert open_again
    assert said(standing(tmp_path)) == [("ann", "tone", 0.0, False)] * 3


def test_cannot_tell_is_null_and_asked_no_more(tmp_path: Path) -> None:
    queue_of(tmp_path, 1).close()

    with annotating(tmp_path, "ann") as [ann]:
        ann.send(cannot_tell="1")

    [row] = labels(tmp_path)
    assert (row["score"], row["passed"]) == (None, None)
    assert ann.item is None


def test_what_is_no_answer_is_told_and_stored_nowhere(tmp_path: Path) -> None:
    queue_of(tmp_path, 1).close()

    with annotating(tmp_path, "ann") as [ann]:
        page = ann.send(a0="excellent")
        status = ann.answer.status_code

    assert status == 422
    assert "&#39;excellent&#39; is none of pass, fail" in page
    assert labels(tmp_path) == []


def test_the_page_is_blind(tmp_path: Path) -> None:
    store = judged_run(tmp_path)
    assert evalkit("label", "queue", "run-new", "--metric", "tone", store=tmp_path) == 0

    with annotating(store.path, "ann") as [ann]:
        page = ann.page

    assert "Question number" in page
    for secret in ("small", "classify-ticket", "v3", "groundedness", "run-new"):
        assert secret not in page


def test_sides_change_by_item_and_a_preference_is_scored_for_the_answer(tmp_path: Path) -> None:
    facts = [items(2)[0].facts[0] | {"trace_id": name} for name in ("old", "new")]
    queue = queue_of(tmp_path, 0)
    pairs = [
        item.__class__(
            facts=facts, shown={"outputs": ["OLD", "NEW"]}, share="random", why="", stratum="",
            inclusion_prob=1.0,
        )
        for item in items(20)
    ]  # fmt: skip
    queue.add(preference_question(), pairs, run="run-1", against="run-2", design={})
    queue.close()
    on_the_left = []

    with annotating(tmp_path, "ann") as [ann]:
        while ann.item:
            old_first = ann.page.index("OLD") < ann.page.index("NEW")
            on_the_left.append(old_first)
            assert (
                ann.page.index('value="first"') < ann.page.index('value="second"') or not old_first
            )
            ann.send(a0="second")

    rows = standing(tmp_path)
    assert {(row["trace_id"], row["score"]) for row in rows} == {("old", 0.0), ("new", 1.0)}
    assert 2 <= sum(on_the_left) <= 18


def test_only_disagreements_are_settled_and_the_decision_counts(tmp_path: Path) -> None:
    queue_of(tmp_path, 4, wanted=2).close()

    with annotating(tmp_path, "ann", "bob") as [ann, bob]:
        ann.label_all("pass")
        one = bob.item
        bob.send(a0="fail", comment="wrong day")
        bob.label_all("pass")
        page = ann.get("/settle")
        ann.send(a0="fail")
        end = ann.page

    assert "wrong day" in page
    assert one in page
    assert "Disagreements" not in end
    assert "0.00" in end or "–" in end
    scores = sorted((row["annotator"], row["score"]) for row in standing(tmp_path))
    assert scores.count(("adjudicator:ann", 0.0)) == 2
    assert len(scores) == 8


def test_answers_of_production_are_decided_here_and_become_labels(tmp_path: Path) -> None:
    reviews = ReviewQueue(tmp_path / "queue.sqlite")
    for at in range(4):
        record = replace(RECORD, trace_id=f"trace-{at}", output=f"Refund {at} EUR.")
        reviews.hold(record, "shop:pay")

    with annotating(tmp_path, "ann") as [ann]:
        page = ann.page
        ann.send(decision="approve")
        ann.send(decision="edit", output="Refund 10 EUR.\r\nSorry.")
        without_reason = ann.send(decision="reject")
        ann.send(decision="reject", comment="wrong customer")
        late = ann.answer.url.path
        reviews.approve(late.split("/")[2], "bob")
        too_late = ann.send(decision="approve")
        reviews.close()

    assert "Refund 0 EUR." in page
    assert "A rejection needs a reason." in without_reason
    assert "was approved by bob" in too_late
    with closing(ReviewQueue(tmp_path / "queue.sqlite")) as reviews:
        states = [(one.state, one.decided_by, one.output) for one in reviews.list(None)]
    assert states == [
        ("approved", "ann", "Refund 0 EUR."),
        ("approved", "ann", "Refund 10 EUR.\nSorry."),
        ("rejected", "ann", "Refund 2 EUR."),
        ("approved", "bob", "Refund 3 EUR."),
    ]
    rows = sorted(standing(tmp_path), key=lambda row: row["trace_id"])
    assert [(row["annotator"], row["metric"], row["score"]) for row in rows] == [
        ("ann", "review", 1.0),
        ("ann", "review", 0.0),
        ("ann", "review", 0.0),
        ("bob", "review", 1.0),
    ]
    assert rows[2]["comment"] == "wrong customer"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    queue_of(tmp_path, 3).close()
    with Server(tmp_path, "ann") as running:
        yield running


def test_an_address_is_good_for_one_browser_and_the_next_is_printed(server: Server) -> None:
    first = httpx.get(server.urls[0])
    second = httpx.get(server.urls[0])
    third = httpx.get(server.next_url())

    assert [first.status_code, second.status_code, third.status_code] == [200, 403, 200]
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "set-cookie" not in second.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1"},
        {"host": "localhost:1"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
    ],
    ids=str,
)
def test_a_wrong_host_or_origin_is_refused(server: Server, headers: dict[str, str]) -> None:
    ann = server.open()

    read = ann.http.get("/", headers=headers)
    path = ann.answer.url.path
    csrf = ann.page.split('name="csrf" value="')[1].split('"')[0]
    write = ann.http.post(path, data={"csrf": csrf, "a0": "pass"}, headers=headers)

    assert [read.status_code, write.status_code] == [403, 403]
    assert "Question" not in read.text
    assert "1</b> done" not in ann.get("/")


def test_without_cookie_csrf_or_origin_nothing_is_shown_or_taken(server: Server) -> None:
    ann = server.open()
    path = ann.answer.url.path
    stranger = server.open(server.next_url()).http
    stranger.cookies.clear()

    pages = [stranger.get(p).status_code for p in ("/", path, "/done", "/static/label.js", "/x")]
    posts = [
        stranger.post(path, data={"a0": "pass"}),
        ann.http.post(path, data={"a0": "pass"}),
        ann.http.post(path, data={"a0": "pass", "csrf": "x" * 43}),
        ann.http.post(path, json={"a0": "pass"}),
        httpx.post(
            server.base + path, data={"a0": "pass"}, cookies=dict(ann.http.cookies),
        ),
        ann.http.post(path, data={"a0": "x" * 2_000_000}),
    ]  # fmt: skip

    assert pages == [403] * 5
    assert [post.status_code for post in posts] == [403] * 6
    assert "0</b> done" in ann.get("/")


def test_every_answer_forbids_what_is_not_the_pages_own(server: Server) -> None:
    ann = server.open()

    answers = [ann.http.get(path) for path in ("/", "/done", "/static/label.css", "/nothing")]
    answers.append(httpx.get(server.base))

    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    port = int(server.base.rsplit(":", 1)[1])

    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()
    listening = {line.split()[1] for line in lines if line.split()[3] == "0A"}

    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening
