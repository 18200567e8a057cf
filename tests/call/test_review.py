"""Human review: what waits is not lost, one decision counts, an action runs at most once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.call.review import Review, ReviewError, ReviewQueue, review_wanted
from evalkit.records import CallRecord
from tests.score.answers import RECORD

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="no /proc to see processes in"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "queue.sqlite"


@pytest.fixture
def queue(path: Path) -> ReviewQueue:
    return ReviewQueue(path)


def record(number: int = 1, **changes: object) -> CallRecord:
    values = {"trace_id": f"trace-{number}", "output": f"refund {number}", "feature": "refund"}
    return replace(RECORD, **values | changes)  # type: ignore[arg-type]


def states(queue: ReviewQueue) -> Sequence[str]:
    return [review.state for review in queue.list(None)]


async def test_an_approved_action_runs_once_with_the_answer_and_the_key(queue: ReviewQueue) -> None:
    ran: list[tuple[str | None, str]] = []

    def pay(review: Review) -> str:
        ran.append((review.output, review.key))
        return "paid"

    review_id = queue.hold(record(), "shop:pay", "order-7")
    queue.approve(review_id, "ann")
    first = await queue.resume(review_id, pay)
    second = await queue.resume(review_id, pay)

    assert ran == [("refund 1", "order-7")]
    assert first == second
    assert (first.state, first.result, first.decided_by) == ("done", "paid", "ann")


async def test_what_was_approved_before_a_restart_runs_once_after_it(path: Path) -> None:
    before = ReviewQueue(path)
    review_id = before.hold(record(), "shop:pay")
    before.approve(review_id, "ann")
    before.close()
    ran: list[str] = []

    for _ in range(2):
        after = ReviewQueue(path)
        review = await after.resume(review_id, lambda review: ran.append(review.key))
        after.close()
        assert review.state == "done"

    assert ran == ["trace-1"]


async def test_without_an_action_the_answer_itself_is_released(queue: ReviewQueue) -> None:
    review_id = queue.hold(record())

    queue.approve(review_id, "ann", "refund 1, and an apology")
    released = await queue.resume(review_id)

    assert (released.state, released.output) == ("done", "refund 1, and an apology")
    assert released.record["output"] == "refund 1"


async def test_nothing_is_released_before_a_decision_or_after_a_rejection(
    queue: ReviewQueue,
) -> None:
    waiting, refused = queue.hold(record(1)), queue.hold(record(2))
    queue.reject(refused, "ann", "wrong customer")

    with pytest.raises(ReviewError, match="not decided yet"):
        await queue.resume(waiting)
    with pytest.raises(ReviewError, match="rejected by ann: wrong customer"):
        await queue.resume(refused)


def test_held_again_with_the_same_key_the_first_review_stands(queue: ReviewQueue) -> None:
    first = queue.hold(record(1), "shop:pay", "order-7")

    again = queue.hold(record(1, output="another wording"), "shop:pay", "order-7")

    assert again == first
    assert [review.output for review in queue.list()] == ["refund 1"]


def test_a_key_cannot_stand_for_two_things(queue: ReviewQueue) -> None:
    queue.hold(record(1), "shop:pay", "order-7")

    with pytest.raises(ReviewError, match=r"order-7.*another feature, action or input"):
        queue.hold(record(2, input={"text": "something else"}), "shop:pay", "order-7")

    assert len(queue.list(None)) == 1


def test_of_many_approvers_at_once_one_wins_and_the_others_are_told(path: Path) -> None:
    review_id = ReviewQueue(path).hold(record())
    won: list[str] = []
    told: list[str] = []
    start = threading.Barrier(8)

    def decide(number: int) -> None:
        queue = ReviewQueue(path)
        start.wait()
        try:
            if number % 2:
                queue.reject(review_id, f"person-{number}", "no")
            else:
                queue.approve(review_id, f"person-{number}")
            won.append(f"person-{number}")
        except ReviewError as error:
            told.append(str(error))

    threads = [threading.Thread(target=decide, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert len(told) == 7
    assert all(f"by {won[0]} at " in message for message in told)
    assert all("changed nothing" in message for message in told)


async def test_of_many_workers_at_once_one_runs_the_action(path: Path) -> None:
    queues = [ReviewQueue(path) for _ in range(5)]
    review_id = queues[0].hold(record(), "shop:pay")
    queues[0].approve(review_id, "ann")
    ran = 0

    async def pay(review: Review) -> None:
        nonlocal ran
        ran += 1
        await asyncio.sleep(0)

    outcomes = await asyncio.gather(
        *(queue.resume(review_id, pay) for queue in queues), return_exceptions=True
    )

    assert ran == 1
    assert sum(isinstance(outcome, ReviewError) for outcome in outcomes) == 4


async def test_a_failed_action_is_not_repeated_until_a_person_says_so(queue: ReviewQueue) -> None:
    tries = 0

    def pay(review: Review) -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ConnectionError("bank is down")
        return "paid"

    review_id = queue.hold(record(), "shop:pay")
    queue.approve(review_id, "ann")

    failed = await queue.resume(review_id, pay)
    with pytest.raises(ReviewError, match=r"failed: ConnectionError: bank is down.*--again"):
        await queue.resume(review_id, pay)
    with pytest.raises(ReviewError, match="approved by ann"):
        queue.approve(review_id, "bob")
    queue.approve(review_id, "bob", again=True)
    done = await queue.resume(review_id, pay)

    assert (failed.state, done.state, tries) == ("failed", "done", 2)
    assert [event["state"] for event in queue.events(review_id)] == [
        "pending", "approved", "running", "failed", "approved", "running", "done",
    ]  # fmt: skip


async def test_an_interrupted_action_is_unknown(queue: ReviewQueue) -> None:
    begun = asyncio.Event()

    async def pay(review: Review) -> None:
        begun.set()
        await asyncio.Event().wait()

    review_id = queue.hold(record(), "shop:pay")
    queue.approve(review_id, "ann")
    running = asyncio.create_task(queue.resume(review_id, pay))
    await begun.wait()

    running.cancel()
    await asyncio.wait({running})

    assert running.cancelled()
    assert queue.get(review_id).state == "unknown"


async def test_an_action_that_cancels_itself_has_failed(queue: ReviewQueue) -> None:
    async def pay(review: Review) -> None:
        raise asyncio.CancelledError

    review_id = queue.hold(record(), "shop:pay")
    queue.approve(review_id, "ann")

    assert (await queue.resume(review_id, pay)).state == "failed"


async def test_the_wrong_action_runs_nothing(queue: ReviewQueue) -> None:
    review_id = queue.hold(record(), "shop:pay")
    queue.approve(review_id, "ann")

    with pytest.raises(ReviewError, match="has action shop:pay"):
        await queue.resume(review_id)

    assert queue.get(review_id).state == "approved"


def test_a_decision_needs_a_name(queue: ReviewQueue) -> None:
    review_id = queue.hold(record())

    with pytest.raises(ReviewError, match="name of who decides"):
        queue.approve(review_id, " ")

    assert queue.get(review_id).state == "pending"


def test_an_unknown_id_is_told(queue: ReviewQueue) -> None:
    with pytest.raises(ReviewError, match="no review 'x'"):
        queue.get("x")


def test_forgetting_takes_what_ended_and_leaves_what_waits(queue: ReviewQueue) -> None:
    waiting, refused = queue.hold(record(1)), queue.hold(record(2))
    queue.reject(refused, "ann", "no")

    assert queue.forget(decided_before=0) == 0
    assert queue.forget(decided_before=2**62) == 1

    assert [review.id for review in queue.list(None)] == [waiting]
    assert queue.events(refused) == []


# --- kill -9 -----------------------------------------------------------------------

HOLDER = """
import sys
from dataclasses import replace
from evalkit.call.review import ReviewQueue
from tests.score.answers import RECORD
queue = ReviewQueue(sys.argv[1])
for number in range(100_000):
    queue.hold(replace(RECORD, trace_id=f"trace-{number}"))
    print(number, flush=True)
"""


def started(code: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip


def test_kill_9_while_reviews_are_held_loses_none_that_was_told(path: Path) -> None:
    with started(HOLDER, path) as holder:
        assert holder.stdout is not None
        told = [int(holder.stdout.readline()) for _ in range(25)]
        os.kill(holder.pid, signal.SIGKILL)
        told += [int(line) for line in holder.stdout if line.endswith("\n")]

    keys = [review.key for review in ReviewQueue(path).list()]

    assert keys[: len(told)] == [f"trace-{number}" for number in told]
    assert len(keys) <= len(told) + 1


RUNNER = """
import asyncio, sys, time
from pathlib import Path
from evalkit.call.review import ReviewQueue
from tests.score.answers import RECORD
queue = ReviewQueue(sys.argv[1])
def pay(review):
    with Path(sys.argv[1] + ".paid").open("a") as file:
        file.write(review.key + "\\n")
    print("paid", flush=True)
    time.sleep(60)
review_id = queue.hold(RECORD, "shop:pay", "order-7")
if queue.get(review_id).state == "pending":
    queue.approve(review_id, "ann")
asyncio.run(queue.resume(review_id, pay))
"""


@needs_proc
def test_kill_9_in_the_middle_of_an_action_shows_as_unknown_and_never_repeats(
    path: Path,
) -> None:
    with started(RUNNER, path) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "paid\n"
        assert states(ReviewQueue(path)) == ["running"]
        os.kill(runner.pid, signal.SIGKILL)
        runner.wait()
    with started(RUNNER, path) as second:
        second.wait(timeout=300)

    queue = ReviewQueue(path)
    (review,) = queue.list("unknown")
    assert second.returncode != 0
    assert review.error == "its process ended before the action did"
    assert Path(f"{path}.paid").read_text(encoding="utf-8") == "order-7\n"
    with pytest.raises(ReviewError, match="never repeated by itself"):
        asyncio.run(queue.resume(review.id, lambda review: None))


# --- who has to be asked ---------------------------------------------------------------


def test_the_policy_says_which_answers_wait() -> None:
    facts = {"output": "refund 900 EUR"}

    def broken(facts: object) -> bool:
        raise ValueError("no amount")

    assert not review_wanted("never", facts, lambda name: pytest.fail("not asked"))
    assert review_wanted("always", facts, lambda name: pytest.fail("not asked"))
    assert review_wanted("rule:shop:large", facts, lambda name: lambda f: "900" in f["output"])
    assert not review_wanted("rule:shop:large", facts, lambda name: lambda f: False)
    assert review_wanted("rule:shop:large", facts, lambda name: broken)
