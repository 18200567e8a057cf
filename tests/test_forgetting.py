"""Forgetting, in every place that has what somebody said: no word of it is left."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.cache_storage import SqliteCache, cache_path
from evalkit.call.jobs import Item, JobQueue
from evalkit.call.ledger import Ledger
from evalkit.call.ledger_forgetting import forget_spending
from evalkit.call.queue_file import open_queue
from evalkit.call.review import ReviewQueue
from evalkit.cli.main import main
from evalkit.cli.periods import now
from evalkit.forgetting import forget, rule_of
from evalkit.records import CallResult
from evalkit.score.label_file import open_label_file
from evalkit.score.label_queue import LabelQueue, NewItem
from evalkit.score.label_sealing import seal_labels
from evalkit.score.labels import Said, pass_question
from evalkit.settings import BudgetSettings, RetentionSettings, Settings
from evalkit.store.remote import attach, push
from evalkit.store.retention import PurgeRule
from evalkit.store.views import Store, open_store
from tests.call.test_cache_storage import ANSWER
from tests.score.answers import RECORD
from tests.store.journal_lines import plain

DAY = 86_400_000_000
SECRET = "xylophone"
NOW = now()
OLD, NEW = NOW - 40 * DAY, NOW - 2 * DAY
RULE = rule_of(RetentionSettings(text_days=30), now=NOW)


def record(trace_id: str, at: int, user: str = "ann", **more: Any) -> Any:
    said = {"input": {"text": f"my {SECRET}"}, "output": f"your {SECRET}", "user_id": user}
    return replace(RECORD, trace_id=trace_id, ts=at, **said | more)


def id_of(at: int, number: int = 0) -> str:
    """An id that begins with its time, as those of the call path do."""
    return f"{at // 1000:012x}7{number:019x}"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(root=tmp_path, store=str(tmp_path / ".evalkit"))


@pytest.fixture
def store(settings: Settings) -> Store:
    """An old and a young call, each with a review, a job, a label and a kept answer."""
    store = open_store(settings.store_path)
    calls = [record(id_of(OLD), OLD, "ann"), record(id_of(NEW), NEW, "ben")]
    store.add_calls("log", [plain(one) for one in calls])
    held(store, [record(id_of(at, 1), at, user) for at, user in ((OLD, "ann"), (NEW, "ben"))])
    asyncio.run(jobs(store))
    labelled(store)
    asyncio.run(kept(settings))
    return store


def held(store: Store, records: list[Any]) -> None:
    with closing(ReviewQueue(store.path / "queue.sqlite")) as queue:
        for one in records:
            queue.reject(queue.hold(one), "bob", f"no {SECRET}")


async def jobs(store: Store) -> None:
    with closing(JobQueue(store.path / "queue.sqlite")) as queue:
        for number, (at, user) in enumerate(((OLD, "ann"), (NEW, "ben"))):
            item = Item(
                feature=RECORD.feature, input={"text": SECRET}, key=str(number),
                options={"user_id": user},
            )  # fmt: skip
            queue.add("nightly", [item])
            job = queue.claim("nightly")
            assert job is not None
            made = record(id_of(at, 2), at, user)
            result = CallResult(
                status="ok", output=SECRET, value=None, error_kind=None, message=None, record=made
            )
            queue.finish(job, result)


def labelled(store: Store) -> None:
    with closing(LabelQueue(store.path)) as queue:
        items = [
            NewItem(
                facts=[{"trace_id": id_of(at), "run_id": run, "golden_set": "g", "case_id": "c",
                        "case_hash": "h", "trial": 0, "model": "m", "prompt_name": "p",
                        "prompt_version": "v1"}],
                shown={"input": {"text": SECRET}, "outputs": [SECRET]},
                share="random", why="", stratum="g", inclusion_prob=0.5,
            )
            for at in (OLD, NEW) for run in (None, "run-1")
        ]  # fmt: skip
        nobody = replace(items[0], why="nobody labelled it")
        queue.add(pass_question("tone"), [*items, nobody], run="sample-1", design={})
        for number, item in enumerate(one for one in queue.items() if not one["why"]):
            said = Said(score=1.0, passed=True, choices={"tone": "pass"})
            queue.mark(item["id"], "eve", said, f"{SECRET} {number}")
    seal_labels(store)


async def kept(settings: Settings) -> None:
    cache = SqliteCache(cache_path(settings))
    await cache.put(f"{RECORD.feature}:k", replace(ANSWER, output=SECRET), 10**9)
    await cache.aclose()


def texts(store: Store, name: str) -> str:
    """All that a file of SQLite holds, what was deleted and not overwritten included."""
    paths = [store.path / f"{name}{end}" for end in ("", "-wal")]
    return b"".join(p.read_bytes() for p in paths if p.exists()).decode("latin-1")


def test_what_is_old_goes_from_every_place_and_the_young_stays(
    store: Store, settings: Settings
) -> None:
    done = forget(store, settings, RULE)

    log, queued = done.log, done.queue
    assert (log.calls_emptied, queued.reviews_emptied, queued.jobs_emptied) == (1, 1, 1)
    assert (done.labels.items_emptied, done.labels.items_removed) == (1, 1)
    assert done.labels.comments_removed == 1
    outputs = store.sql("SELECT output FROM calls ORDER BY ts")
    assert [row["output"] for row in outputs] == [None, f"your {SECRET}"]
    with closing(ReviewQueue(store.path / "queue.sqlite")) as queue:
        old, young = queue.list("rejected")
    assert (old.output, old.reason, old.record["input"]) == (None, None, None)
    assert (old.decided_by, old.record["prompt_tokens"]) == ("bob", RECORD.prompt_tokens)
    assert young.reason == f"no {SECRET}"


def test_a_second_purge_finds_nothing(store: Store, settings: Settings) -> None:
    forget(store, settings, RULE)

    again = forget(store, settings, RULE).as_json()

    assert {name: n for name, n in again.items() if isinstance(n, int) and n} == {}


def test_nothing_of_one_user_is_left(store: Store, settings: Settings) -> None:
    done = forget(store, settings, PurgeRule(user_ids=frozenset({"ann"})))

    log, queued = done.log, done.queue
    assert (log.calls_removed, queued.reviews_removed, queued.jobs_emptied) == (1, 1, 1)
    assert done.kept_answers == 1
    with closing(open_queue(store.path / "queue.sqlite")) as file:
        records = [json.loads(row[0]) for row in file.execute("SELECT record FROM reviews")]
    assert [one["user_id"] for one in records] == ["ben"]
    everything = "".join(texts(store, name) for name in ("queue.sqlite", "labels.sqlite"))
    assert '"ann"' not in everything


def test_no_word_stays_in_any_file_when_all_are_gone(store: Store, settings: Settings) -> None:
    with closing(open_label_file(store.path)) as file:  # those of golden sets stay, else
        file.execute("DELETE FROM items WHERE json_extract(facts, '$[0].run_id') IS NOT NULL")
        file.execute("UPDATE marks SET comment = NULL WHERE item NOT IN (SELECT id FROM items)")
        file.execute("VACUUM")

    forget(store, settings, PurgeRule(user_ids=frozenset({"ann", "ben"})))

    for name in ("queue.sqlite", "labels.sqlite", "cache/responses.sqlite"):
        assert SECRET not in texts(store, name), name
    assert not any(row["output"] for row in store.sql("SELECT output FROM calls"))


def test_labels_keep_their_scores_and_those_of_golden_sets_their_comments(
    store: Store, settings: Settings
) -> None:
    before = store.sql("SELECT label_id, score, annotator FROM labels ORDER BY 1")

    forget(store, settings, PurgeRule(user_ids=frozenset({"ann", "ben"})))

    assert store.sql("SELECT label_id, score, annotator FROM labels ORDER BY 1") == before
    comments = store.sql("SELECT run_id, comment FROM labels ORDER BY label_id")
    assert [row["run_id"] for row in comments if row["comment"]] == ["run-1", "run-1"]


def test_what_waits_for_a_person_is_left_and_counted(tmp_path: Path, settings: Settings) -> None:
    store = open_store(settings.store_path)
    store.path.mkdir()
    with closing(ReviewQueue(store.path / "queue.sqlite")) as queue:
        queue.hold(record("waits", OLD))

    done = forget(store, settings, RULE)

    assert (done.queue.reviews_open, done.queue.reviews_emptied) == (1, 0)
    with closing(ReviewQueue(store.path / "queue.sqlite")) as queue:
        assert queue.list()[0].output == f"your {SECRET}"
        assert queue.list()[0].input == {"text": f"my {SECRET}"}


def test_a_waiting_answer_of_a_forgotten_user_is_decided_by_nobody(
    settings: Settings,
) -> None:
    store = open_store(settings.store_path)
    store.path.mkdir()
    with closing(ReviewQueue(store.path / "queue.sqlite")) as queue:
        queue.hold(record("waits", NEW))

    forget(store, settings, PurgeRule(user_ids=frozenset({"ann"})))

    with closing(ReviewQueue(store.path / "queue.sqlite")) as queue:
        assert list(queue.list(None)) == []


def test_an_action_whose_texts_are_gone_does_not_run_again(
    store: Store, settings: Settings
) -> None:
    forget(store, settings, RULE)

    with closing(ReviewQueue(store.path / "queue.sqlite")) as queue:
        again = queue.hold(record(id_of(OLD, 1), OLD))
        assert queue.get(again).state == "rejected"


def test_a_dry_run_counts_the_same_and_changes_nothing(store: Store, settings: Settings) -> None:
    before = {p: p.read_bytes() for p in store.path.rglob("*.parquet")}
    reviews = texts(store, "queue.sqlite").count(SECRET)

    counted = forget(store, settings, RULE, dry_run=True).as_json()
    left = {p: p.read_bytes() for p in store.path.rglob("*.parquet")}
    still = texts(store, "queue.sqlite").count(SECRET)
    done = forget(store, settings, RULE).as_json()

    assert left == before
    assert still == reviews
    assert {**counted, "kept_answers": 0} == {**done, "kept_answers": 0}


def test_each_feature_has_its_days(store: Store, settings: Settings) -> None:
    keep = RetentionSettings(text_days=30, features={RECORD.feature: 60})

    done = forget(store, settings, rule_of(keep, now=NOW))

    assert done.log.calls_emptied == 0
    assert done.queue.reviews_emptied == done.queue.jobs_emptied == 0


def test_kept_answers_go_by_the_time_they_were_kept(store: Store, settings: Settings) -> None:
    done = forget(store, settings, PurgeRule(texts_before=NOW + DAY))

    assert done.kept_answers == 1
    assert SECRET not in texts(store, "cache/responses.sqlite")


def test_the_command_says_what_went(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "evalkit.toml"
    config.write_text("[retention]\ntext_days = 30\n", encoding="utf-8")

    assert main(["purge", "--config", str(config)]) == 0

    out = capsys.readouterr().out
    assert "texts of 1 calls" in out
    assert "texts of 1 reviews, 1 jobs and 1 labelled items removed" in out


# --- who spent what, and what is elsewhere ---------------------------------------------


async def spent(store: Store) -> list[str]:
    async with aclosing(Ledger(store.path / "budget.sqlite", BudgetSettings())) as ledger:
        return sorted(one.name for one in ledger.spent() if one.scope == "user")


async def test_a_forgotten_user_has_spent_nothing_and_all_together_have(
    store: Store, settings: Settings
) -> None:
    async with aclosing(Ledger(store.path / "budget.sqlite", BudgetSettings())) as ledger:
        for user in ("ann", "ben"):
            ledger.settle(await ledger.reserve(1.0, 10, user=user), 0.5, 10)
        waiting = await ledger.reserve(1.0, 10, user="eve")

    done = forget(store, settings, PurgeRule(user_ids=frozenset({"ann", "eve"})))

    assert (done.spending.spenders_removed, done.spending.spenders_open) == (1, 1)
    assert set(await spent(store)) == {"ben", "eve"}
    assert '"ann"' not in texts(store, "budget.sqlite")
    assert "ann" not in texts(store, "budget.sqlite")
    async with aclosing(Ledger(store.path / "budget.sqlite", BudgetSettings())) as ledger:
        ledger.settle(waiting, 0.0, 0)
        total = next(one for one in ledger.spent() if one.scope == "total")
    assert (total.calls, total.cost_usd) == (3, 1.0)


async def test_users_of_a_month_that_is_over_leave_the_ledger(store: Store) -> None:
    path = store.path / "budget.sqlite"
    async with aclosing(Ledger(path, BudgetSettings(), now=lambda: OLD / 1e6)) as ledger:
        ledger.settle(await ledger.reserve(1.0, 10, user="ann"), 0.5, 10)
    async with aclosing(Ledger(path, BudgetSettings(), now=lambda: NOW / 1e6)) as ledger:
        ledger.settle(await ledger.reserve(1.0, 10, user="ben"), 0.5, 10)

    would = forget_spending(store.path, now=NOW / 1e6, dry_run=True)
    done = forget_spending(store.path, now=NOW / 1e6)

    assert would == done
    assert done.spenders_removed == 1
    assert "ann" not in texts(store, "budget.sqlite")
    assert await spent(store) == ["ben", "ben"]


def test_calls_at_an_attached_address_are_counted_and_said(
    store: Store, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"file://{tmp_path}/bucket"
    push(store, address)
    attach(store.path, address)
    (tmp_path / "evalkit.toml").write_text("[retention]\ntext_days = 30\n", encoding="utf-8")
    options = ["--config", str(tmp_path / "evalkit.toml"), "--store", str(store.path)]

    by_age = main(["purge", *options])
    told = capsys.readouterr()
    of_user = main(["purge", "--user", "ann", *options])

    assert (by_age, of_user) == (0, 3)
    assert "1 calls that are due are at file://" in told.err
    assert "no purge reaches" in capsys.readouterr().err
    assert main(["purge", "--user", "nobody", *options]) == 0


def test_a_purge_says_where_kept_answers_were(
    store: Store, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")
    options = ["--config", str(tmp_path / "evalkit.toml"), "--store", str(store.path)]

    main(["purge", "--user", "ann", *options])

    assert "1 kept answers removed from" in capsys.readouterr().out
