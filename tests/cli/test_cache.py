"""`evalkit cache`: what an audit prints, and what clearing leaves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from evalkit.call.cache import Cached
from evalkit.call.cache_storage import SqliteCache
from evalkit.cli.main import main
from evalkit.records import Finish, Pair, Usage

CONFIG = """
[features.help]
prompt = "help@v1"
model = "embedded"

[features.tickets]
prompt = "help@v1"
model = "embedded"
"""


@pytest.fixture(autouse=True)
def no_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVALKIT_CACHE_URL", raising=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "evalkit.toml").write_text(CONFIG, encoding="utf-8")
    folder = tmp_path / "prompts" / "help"
    folder.mkdir(parents=True)
    (folder / "v1.md").write_text("# system\nBe kind.\n\n# user\n{{ text }}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def keep(project: Path, *keys: str) -> SqliteCache:
    cache = SqliteCache(project / ".evalkit" / "cache" / "responses.sqlite")
    answer = Cached(
        output="It is on its way.",
        finish=Finish(finish_reason="stop", usage=Usage(), served_model=None),
        model="embedded",
        served_model="embedded",
        pair=Pair(model="embedded", prompt_name="help", prompt_version="v1"),
    )

    async def put_all() -> None:
        for key in keys:
            await cache.put(key, answer, 3600)
        await cache.aclose()

    asyncio.run(put_all())
    return cache


def left(cache: SqliteCache, *keys: str) -> list[str]:
    async def find() -> list[str]:
        found = [key for key in keys if await cache.get(key) is not None]
        await cache.aclose()
        return found

    return asyncio.run(find())


# --- audit ----------------------------------------------------------------------------


def test_the_shipped_pairs_are_audited_with_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["cache", "audit", "--vectors", "hashed", "--json"])

    found = json.loads(capsys.readouterr().out)
    assert status == 0
    assert found["false_hits"]["hits"] == 0
    assert found["false_hits"]["n"] >= 100
    low, high = found["false_hits"]["ci"]
    assert low == 0.0
    assert 0.0 < high < 0.03
    assert found["true_hits"]["hits"] > 0
    assert found["vectors_alone"]["false_hits"]["hits"] > 10
    assert found["pairs"] == found["false_hits"]["n"] + found["true_hits"]["n"]


def test_an_audit_takes_what_every_command_takes(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--json", "--store", "somewhere", "--config", "evalkit.toml"]

    assert main(["cache", "audit", "--vectors", "hashed", *options]) == 0

    assert json.loads(capsys.readouterr().out)["vectors"] == "hashed"


def test_ones_own_pairs_are_read_and_the_false_hits_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [
        {"a": "Where is it sold?", "b": "\x1b[31mwhere is it sold", "same": False},
        {"a": "Where is it sold?", "b": "Please, where is it sold?", "same": True},
    ]
    pairs.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")

    status = main(["cache", "audit", str(pairs), "--vectors", "hashed", "--threshold", "0"])

    out = capsys.readouterr().out
    assert status == 0
    assert "false hits: 0.0% (0/1" in out
    assert "true hits:  100.0% (1/1" in out

    rows[0]["b"] = "Hi, where is it sold?"
    pairs.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    main(["cache", "audit", str(pairs), "--vectors", "hashed", "--threshold", "0"])

    out = capsys.readouterr().out
    assert "false hits: 100.0% (1/1" in out
    assert "  Hi, where is it sold?" in out
    assert "\x1b" not in out


def test_a_threshold_beyond_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "audit", "--threshold", "1.5"]) == 2
    assert "--threshold" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "audit", "nowhere.jsonl", "--vectors", "hashed"]) == 2
    assert "nowhere.jsonl" in capsys.readouterr().err


# --- clear ----------------------------------------------------------------------------


def test_all_answers_are_deleted(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = keep(project, "help:1", "tickets:2")

    status = main(["cache", "clear", "--json"])

    assert status == 0
    assert json.loads(capsys.readouterr().out) == {"deleted": 2, "feature": None}
    assert left(cache, "help:1", "tickets:2") == []


def test_only_the_features_answers_are_deleted(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = keep(project, "help:1", "help/small/help@v1:2", "tickets:3")

    status = main(["cache", "clear", "--feature", "help"])

    assert status == 0
    assert "deleted 2 kept answers" in capsys.readouterr().err
    assert left(cache, "help:1", "help/small/help@v1:2", "tickets:3") == ["tickets:3"]


def test_where_nothing_was_kept_nothing_is_made(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", "clear"]) == 0

    assert "deleted 0" in capsys.readouterr().err
    assert not (project / ".evalkit").exists()


def test_a_feature_that_is_not_there_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", "clear", "--feature", "hlep"]) == 2

    assert "There are: help, tickets" in capsys.readouterr().err


def test_a_broken_file_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / ".evalkit" / "cache" / "responses.sqlite"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"rubbish " * 1000)

    assert main(["cache", "clear"]) == 3

    assert "responses.sqlite" in capsys.readouterr().err
