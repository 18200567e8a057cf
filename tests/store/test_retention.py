"""Purging: texts go, counts stay, and nothing is left half done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.errors import StoreError
from evalkit.store.files import verify_sha256
from evalkit.store.retention import PurgeRule, purge
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import AT, attempt, call, line, plain

DAY = 86_400_000_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(tmp_path / ".evalkit")
    rows = [
        call(trace_id="old", ts=AT, user_id="ann", attempts=(attempt(reply="secret words"),)),
        call(trace_id="new", ts=AT + 10 * DAY, user_id="ben", stage_ms={"guard": 1.5}),
    ]
    store.add_calls("log", [plain(row) for row in rows])
    return store


def rows(store: Store, sql: str = "SELECT * FROM calls ORDER BY trace_id") -> list[dict[str, Any]]:
    return open_store(store.path).sql(sql)


def test_old_texts_go_and_all_that_was_counted_stays(store: Store) -> None:
    before = rows(store)

    done = purge(store, PurgeRule(texts_before=AT + DAY))

    assert (done.calls_emptied, done.calls_removed, done.files_changed) == (1, 0, 1)
    new, old = rows(store)
    assert new == before[0]
    assert (old["input"], old["output"]) == (None, None)
    assert [one["reply"] for one in old["attempts"]] == [None]
    assert [one["arguments"] for one in old["tool_calls"]] == [""]
    for name in old.keys() - {"input", "output", "attempts", "tool_calls"}:
        assert old[name] == before[1][name]


def test_no_word_is_left_in_any_file(store: Store) -> None:
    purge(store, PurgeRule(texts_before=AT + 20 * DAY))

    left = b"".join(path.read_bytes() for path in store.path.rglob("*") if path.is_file())
    assert b"secret" not in left
    assert b"invoice" not in left


def test_a_second_purge_changes_nothing(store: Store) -> None:
    purge(store, PurgeRule(texts_before=AT + DAY))

    assert purge(store, PurgeRule(texts_before=AT + DAY)).files_changed == 0


def test_a_feature_may_have_days_of_its_own(store: Store) -> None:
    more = [
        call(trace_id=f"{feature}-{day}", ts=AT + day * DAY, feature=feature)
        for feature in ("short", "long")
        for day in (2, 4)
    ]
    store.add_calls("more", [plain(row) for row in more])
    own = {"short": AT + 5 * DAY, "long": 0}

    done = purge(store, PurgeRule(texts_before=AT + 3 * DAY, texts_before_of=own))

    left = {row["trace_id"] for row in rows(store) if row["output"] is not None}
    assert done.calls_emptied == 3
    assert left == {"long-2", "long-4", "new"}
    assert all(row["input"] for row in rows(store) if row["trace_id"] in left)


def test_only_the_due_calls_of_a_file_lose_their_texts(store: Store) -> None:
    replies = (attempt(reply="one"), attempt(reply=None))
    mixed = [
        call(trace_id=f"m-{n:02d}", ts=AT // DAY * DAY + n, attempts=replies[: n % 3])
        for n in range(20)
    ]
    store.add_calls("mixed", [plain(row) for row in mixed])
    before = {row["trace_id"]: row for row in rows(store)}

    purge(store, PurgeRule(texts_before=AT // DAY * DAY + 10))

    for row in rows(store, "SELECT * FROM calls WHERE trace_id LIKE 'm-%' ORDER BY trace_id"):
        was = before[row["trace_id"]]
        if int(row["trace_id"][2:]) >= 10:
            assert row == was
        else:
            assert row["output"] is None
            assert [one["reply"] for one in row["attempts"]] == [None] * len(was["attempts"])
            assert [one["latency_ms"] for one in row["attempts"]] == [
                one["latency_ms"] for one in was["attempts"]
            ]


def test_files_of_an_older_evalkit_are_purged_too(store: Store) -> None:
    import pyarrow.parquet as pq

    for path in store.production_files():
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["tool_calls", "user_feedback"]), path)

    purge(store, PurgeRule(texts_before=AT + DAY))

    assert [(row["trace_id"], row["output"] is None) for row in rows(store)] == [
        ("new", False), ("old", True),
    ]  # fmt: skip


def test_a_purge_that_fails_leaves_the_file_as_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.read_bytes() for p in store.path.rglob("*.parquet")}
    monkeypatch.setattr("os.replace", _no_space)

    with pytest.raises(StoreError):
        purge(store, PurgeRule(texts_before=AT + DAY))

    assert {p: p.read_bytes() for p in store.path.rglob("*") if p.suffix == ".parquet"} == before


def _no_space(*names: object) -> None:
    raise OSError(28, "No space left on device")


def test_old_calls_go_whole(store: Store) -> None:
    done = purge(store, PurgeRule(calls_before=AT + DAY))

    assert done.calls_removed == 1
    assert [row["trace_id"] for row in rows(store)] == ["new"]


def test_a_dry_run_counts_and_changes_nothing(store: Store) -> None:
    before = {path: path.read_bytes() for path in store.path.rglob("*.parquet")}

    done = purge(store, PurgeRule(calls_before=AT + DAY), dry_run=True)

    assert done.calls_removed == 1
    assert {path: path.read_bytes() for path in store.path.rglob("*.parquet")} == before


def test_a_user_is_forgotten_whatever_the_age(store: Store) -> None:
    done = purge(store, PurgeRule(user_ids=frozenset({"ben"})))

    assert done.calls_removed == 1
    assert [row["trace_id"] for row in rows(store)] == ["old"]


def sampled(store: Store, run_id: str = "sample-1", kind: str = "sample") -> None:
    """A sampling job over the call "old", with a judge's reply and its reason."""
    one = line(1, run_id=run_id, output="the judge said secret", input={})
    one["scores"][0] |= {"trace_id": "old", "reason": "because of secret"}
    manifest = {"run_id": run_id, "kind": kind, "sample": {"until": AT + DAY, "config": "c"}}
    with store.create_run(manifest) as writer:
        writer.append(one)
        writer.seal("complete")


@pytest.mark.parametrize(
    "rule", [PurgeRule(texts_before=AT + 2 * DAY), PurgeRule(user_ids=frozenset({"ann"}))]
)
def test_what_a_sampling_job_said_loses_its_words_and_keeps_its_scores(
    store: Store, rule: PurgeRule
) -> None:
    sampled(store)

    assert purge(store, rule).samples_emptied == 1

    (score,) = rows(store, "SELECT * FROM scores")
    assert (score["score"], score["reason"]) == (1.0, None)
    judge_calls = rows(store, "SELECT output, cost_usd FROM calls WHERE trace_id LIKE 'sample%'")
    assert judge_calls == [{"output": None, "cost_usd": 0.00002}]
    for name, facts in open_store(store.path).manifest("sample-1")["files"].items():
        verify_sha256(store.path / name, sha256=facts["sha256"])
    left = b"".join(path.read_bytes() for path in store.path.rglob("*sample-1*/*"))
    assert b"secret" not in left
    assert purge(store, rule).samples_emptied == 0


@pytest.mark.parametrize(
    "rule", [PurgeRule(texts_before=AT + 2 * DAY), PurgeRule(user_ids=frozenset({"ann"}))]
)
def test_a_job_that_was_stopped_loses_its_words_and_can_go_on(
    store: Store, rule: PurgeRule
) -> None:
    one = line(1, run_id="sample-1", output="the judge said secret", input={"text": "secret"})
    one["scores"][0] |= {"trace_id": "old", "reason": "because of secret"}
    manifest = {"run_id": "sample-1", "kind": "sample", "sample": {"until": AT + DAY}}
    with store.create_run(manifest) as writer:
        writer.append(one)
        if rule.user_ids:
            with pytest.raises(StoreError, match="is being written"):
                purge(store, rule)
        else:
            assert purge(store, rule).open_segments == 1

    assert purge(store, PurgeRule(texts_before=AT)).samples_emptied == 0
    assert purge(store, rule, dry_run=True).samples_emptied == 1
    assert purge(store, rule).samples_emptied == 1

    assert b"secret" not in (store.path / "runs/sample-1/journal.jsonl").read_bytes()
    assert purge(store, rule).samples_emptied == 0
    with store.open_run("sample-1") as writer:
        writer.seal("complete")
    assert rows(store, "SELECT score, reason FROM scores") == [{"score": 1.0, "reason": None}]


def test_replies_and_arguments_go_where_inputs_and_answers_were_never_logged(store: Store) -> None:
    bare = call(trace_id="bare", input=None, output=None, attempts=(attempt(reply="secret"),))
    store.add_calls("bare", [plain(bare)])

    purge(store, PurgeRule(texts_before=AT + DAY))

    [found] = rows(store, "SELECT * FROM calls WHERE trace_id = 'bare'")
    assert [one["reply"] for one in found["attempts"]] == [None]
    assert [one["arguments"] for one in found["tool_calls"]] == [""]
    assert purge(store, PurgeRule(texts_before=AT + DAY)).files_changed == 0


def test_a_comment_goes_after_the_days_of_its_feature(store: Store) -> None:
    more = [call(trace_id=name, feature=name) for name in ("short", "long")]
    store.add_calls("more", [plain(row) for row in more])
    for trace_id in ("old", "short", "long"):
        store.add_feedback(trace_id, label="down", comment="words")
    ever = 253_402_300_799_000_000

    done = purge(store, PurgeRule(texts_before=ever, texts_before_of={"short": ever, "long": 0}))

    assert done.feedback_changed == 2
    said = rows(store, "SELECT trace_id, label, comment FROM feedback ORDER BY trace_id")
    assert [(one["trace_id"], one["comment"]) for one in said] == [
        ("long", "words"), ("old", None), ("short", None),
    ]  # fmt: skip
    assert purge(store, PurgeRule(texts_before_of={"long": ever})).feedback_changed == 1


def test_a_purge_killed_before_it_removed_old_files_is_finished_by_the_next(store: Store) -> None:
    sampled(store)
    (old,) = store.path.glob("scores/*.parquet")
    copy = old.read_bytes()
    purge(store, PurgeRule(texts_before=AT + 2 * DAY))
    old.write_bytes(copy)

    purge(store, PurgeRule(texts_before=AT + 2 * DAY))

    assert not old.exists()
    assert len(rows(store, "SELECT * FROM scores")) == 1


def test_a_users_purge_killed_before_its_end_is_finished_by_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = PurgeRule(user_ids=frozenset({"ann"}))
    sampled(store)
    store.add_feedback("old", comment="words")

    def kill(*args: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("evalkit.store.retention.forget_feedback", kill)
        with pytest.raises(KeyboardInterrupt):
            purge(store, rule)

    done = purge(store, rule)
    assert (done.calls_removed, done.feedback_changed) == (1, 1)
    assert rows(store, "SELECT * FROM feedback") == []
    assert rows(store, "SELECT reason FROM scores") == [{"reason": None}]


def test_evaluation_runs_keep_their_texts(store: Store) -> None:
    sampled(store, "run-1", kind="run")

    purge(store, PurgeRule(texts_before=AT + 20 * DAY))

    assert rows(store, "SELECT reason FROM scores") == [{"reason": "because of secret"}]


def test_the_command_keeps_what_the_configuration_says(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "evalkit.toml"
    config.write_text("[retention]\ntext_days = 1\n", encoding="utf-8")

    assert main(["purge", "--json", "--config", str(config)]) == 0

    assert json.loads(capsys.readouterr().out)["calls_emptied"] == 2


def test_a_user_whose_id_was_replaced_in_the_log_is_found(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from evalkit.redaction import redact_record

    config = tmp_path / "evalkit.toml"
    config.write_text("", encoding="utf-8")
    logged = redact_record(call(trace_id="mail", user_id="ann.smith@example.com"))
    store.add_calls("mail", [plain(logged)])

    options = ["--user", "ann.smith@example.com", "--config", str(config)]
    assert main(["purge", *options]) == 0

    assert logged.user_id != "ann.smith@example.com"
    assert "1 calls removed" in capsys.readouterr().out
