"""Calls in an object store: pushed, read where they lie, counted once."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.cli.main import main
from evalkit.cli.periods import iso
from evalkit.errors import ConfigError, StoreError
from evalkit.store.compaction import compact
from evalkit.store.remote import attach, attached, push
from evalkit.store.retention import PurgeRule, purge
from evalkit.store.views import Store, open_store
from tests.project import write_project
from tests.store.journal_lines import AT, call, plain

EVERYTHING = "SELECT * FROM calls ORDER BY trace_id"
DAY = 86_400_000_000


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server on loopback with the bucket `logs`."""
    motoserver = pytest.importorskip("moto.server", reason="needs moto and flask")
    import logging

    import httpx

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = motoserver.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "anybody"), ("AWS_SECRET_ACCESS_KEY", "anything"),
            ("AWS_REGION", "us-east-1"), ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ):  # fmt: skip
            patch.setenv(name, value)
        httpx.put(f"http://{host}:{port}/logs").raise_for_status()
        yield f"endpoint_override=http://{host}:{port}"
    server.stop()


@pytest.fixture
def url(s3: str, request: pytest.FixtureRequest) -> str:
    return f"s3://logs/{re.sub(r'[^a-z_]', '-', request.node.name.lower())}?{s3}"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two days, three files each, ten calls in a file."""
    opened = open_store(tmp_path / "one")
    for day in range(2):
        for n in range(3):
            add(opened, f"log-{day}-{n}", day)
    return opened


def add(store: Store, file_id: str, day: int) -> None:
    rows = [plain(call(trace_id=f"{file_id}-{n}", ts=AT + day * DAY)) for n in range(10)]
    store.add_calls(file_id, rows)


def local_files(store: Store) -> list[Path]:
    return sorted((store.path / "calls").glob("date=*/*.parquet"))


def test_another_machine_reads_what_was_pushed(store: Store, url: str, tmp_path: Path) -> None:
    assert push(store, url).as_json() == {"sent": 6, "there": 0, "changed": 0, "removed": 0}
    assert push(store, url).as_json() == {"sent": 0, "there": 6, "changed": 0, "removed": 0}
    other = open_store(tmp_path / "other")
    attach(other.path, url)

    assert other.sql(EVERYTHING) == store.sql(EVERYTHING)


def test_what_is_here_and_there_counts_once(store: Store, url: str) -> None:
    push(store, url)
    attach(store.path, url)
    add(store, "later", 0)

    assert store.sql("SELECT count(*) n, count(DISTINCT trace_id) d FROM calls") == [
        {"n": 70, "d": 70}
    ]


def test_what_was_moved_is_read_there(store: Store, url: str) -> None:
    before = store.sql(EVERYTHING)

    push(store, url, move=True)
    assert len(local_files(store)) == 6  # for queries that read them
    push(store, url, move=True, keep_s=0)

    assert local_files(store) == []
    assert store.sql(EVERYTHING) == before


def test_what_a_purge_changed_here_keeps_no_new_file_from_being_sent(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"file://{tmp_path}/bucket"
    push(store, url)
    first = min(path.parent.name for path in local_files(store))
    purge(store, PurgeRule(texts_before=AT + DAY // 2))
    add(store, "new", 2)
    there = len(list((tmp_path / "bucket").rglob("*.parquet")))

    status = main(["logs", "push", url, "--move", "--keep", "0m", "--store", str(store.path)])

    assert status == 3
    assert "as they were before a purge" in capsys.readouterr().err
    assert len(list((tmp_path / "bucket").rglob("*.parquet"))) == there + 1
    assert first in {path.parent.name for path in local_files(store)}


@pytest.mark.parametrize("pushed_first", [True, False])
def test_files_that_were_joined_here_are_passed_over_there(
    store: Store, url: str, pushed_first: bool, tmp_path: Path
) -> None:
    before = store.sql(EVERYTHING)
    if pushed_first:
        push(store, url)
    compact(store, keep_s=0)
    attach(store.path, url)

    assert store.sql(EVERYTHING) == before
    push(store, url, move=True)
    push(store, url, move=True, keep_s=0)
    assert store.sql(EVERYTHING) == before
    other = open_store(tmp_path / "other")
    attach(other.path, url)
    assert other.sql(EVERYTHING) == before


def test_only_the_days_of_a_question_are_read(store: Store, url: str, tmp_path: Path) -> None:
    push(store, url)
    other = open_store(tmp_path / "other")
    attach(other.path, url)

    with other.production(since=AT + DAY, until=AT + 2 * DAY) as engine:
        found = engine.rows("SELECT count(*) n FROM calls")

    assert found == [{"n": 30}]


def test_a_sampling_job_reads_calls_where_they_lie(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = write_project(tmp_path / "project")
    elsewhere = open_store(tmp_path / "elsewhere")
    rows = [
        plain(call(trace_id=f"c-{n}", ts=AT + n, feature="classify", output='{"label": "billing"}'))
        for n in range(40)
    ]
    elsewhere.add_calls("log", rows)
    push(elsewhere, url)
    options = ["--config", str(project / "evalkit.toml")]

    assert main(["logs", "attach", url, *options]) == 0
    capsys.readouterr()
    window = ["--since", iso(AT), "--until", iso(AT + 60_000_000)]
    assert main(["sample", "--json", *window, *options]) == 0

    assert json.loads(capsys.readouterr().out)["calls"] == 40
    found = open_store(project / ".evalkit").sql("SELECT count(*) n FROM scores")
    assert found == [{"n": 40}]


def test_commands_say_the_same_of_calls_that_were_moved_away(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = write_project(tmp_path / "project")
    opened = open_store(project / ".evalkit")
    for day in range(2):
        rows = [
            plain(
                call(
                    trace_id=f"call-{day}-{n}", ts=AT + day * DAY + n, feature="classify",
                    model="small", output='{"label": "billing"}',
                )
            )
            for n in range(30)
        ]  # fmt: skip
        opened.add_calls(f"log-{day}", rows)
    window = ["--since", iso(AT), "--until", iso(AT + 2 * DAY)]
    commands = [
        ["query", "SELECT feature, count(*) n, sum(total_tokens) t FROM calls GROUP BY 1"],
        ["show", "call-1-7", "--as", "trace"],
        ["cost", *window],
        ["dashboard", *window],
        ["sample", *window],
    ]

    def say_all() -> list[object]:
        said = []
        for command in commands:
            assert main([*command, "--json", "--config", str(project / "evalkit.toml")]) == 0
            one = json.loads(capsys.readouterr().out)
            if command[0] == "dashboard":
                del one["made_at"]
            said.append(one)
        return said

    say_all()  # the sampling job is done with that
    before = say_all()
    push(opened, url, move=True, keep_s=0)
    push(opened, url, move=True, keep_s=0)
    shutil.rmtree(opened.path / "tallies")

    assert local_files(opened) == []
    assert say_all() == before


def test_other_file_systems_come_from_fsspec(store: Store, tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="needs evalkit[s3]")
    url = f"memory://logs-{os.getpid()}-{time.monotonic_ns()}"

    push(store, url)
    other = open_store(tmp_path / "other")
    attach(other.path, url)

    assert other.sql(EVERYTHING) == store.sql(EVERYTHING)


def test_an_address_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        attach(store.path, "bucket/folder")
    with pytest.raises(ConfigError):
        attach(store.path, "nowhere://bucket")
    with pytest.raises(ConfigError, match="holds a password"):
        attach(store.path, "s3://key:secret@bucket/folder")


def test_an_address_that_cannot_be_read_is_not_attached(store: Store) -> None:
    with pytest.raises(StoreError, match=r"http://127\.0\.0\.1:9/calls"):
        attach(store.path, "http://127.0.0.1:9/calls")

    assert attached(store.path) == []


def test_an_address_that_refuses_is_named(store: Store, s3: str) -> None:
    with pytest.raises(StoreError, match="no-such-bucket"):
        push(store, f"s3://no-such-bucket/calls?{s3}")
