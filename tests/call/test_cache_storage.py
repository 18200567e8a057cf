"""The file and the Redis server that keep answers: what comes back, what fails open."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.cache import Cached
from evalkit.call.cache_storage import (
    REST_S,
    Damaged,
    SqliteCache,
    cache_path,
    decode,
    encode,
    open_cache,
)
from evalkit.call.durable import open_sqlite
from evalkit.call.redis_cache import RedisCache
from evalkit.errors import ConfigError
from evalkit.records import Finish, Pair, ToolCall, Usage
from evalkit.settings import Settings

ANSWER = Cached(
    output='{"label": "déjà vu \U0001f600 \ud800"}',
    finish=Finish(
        finish_reason="tool_calls",
        usage=Usage(prompt_tokens=100, completion_tokens=None, cached_prompt_tokens=0),
        served_model="small-1-0613",
        tool_calls=(ToolCall(id="1", name="find", arguments='{"id": 4}'),),
        confidence=0.75,
    ),
    model="small",
    served_model="small(small-1-0613)",
    pair=Pair(model="small", prompt_name="help", prompt_version="v1"),
    asked="Where is it?",
)


class Now:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.s = 1_000_000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
async def cache(tmp_path: Path, now: Now) -> AsyncGenerator[SqliteCache, None]:
    cache = SqliteCache(tmp_path / "cache" / "responses.sqlite", clock=now, monotonic=now)
    yield cache
    await cache.aclose()


def path_of(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "responses.sqlite"


def kept_keys(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [key for (key,) in connection.execute("SELECT key FROM responses ORDER BY key")]


# --- bytes ----------------------------------------------------------------------------


def test_an_answer_comes_back_as_it_was() -> None:
    assert decode(encode(ANSWER, stored_at=ANSWER.stored_at)) == ANSWER


def test_any_changed_byte_is_noticed() -> None:
    data = encode(ANSWER, stored_at=ANSWER.stored_at)

    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x01
        with pytest.raises(Damaged):
            decode(bytes(changed))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"not json", b'{"tokens": [1, 2]}'])
def test_a_body_of_another_form_is_damaged(body: bytes) -> None:
    import zlib

    with pytest.raises(Damaged):
        decode(zlib.crc32(body).to_bytes(4, "big") + body)


# --- a file ---------------------------------------------------------------------------


async def test_what_was_kept_is_found_until_its_time_is_over(cache: SqliteCache, now: Now) -> None:
    await cache.put("f:1", ANSWER, 3600)

    now.s += 3599
    found = await cache.get("f:1")
    now.s += 1
    gone = await cache.get("f:1")

    assert found == replace(ANSWER, stored_at=1_000_000.0)
    assert gone is None
    assert cache.errors == 0


async def test_it_is_found_at_once_and_after_it_was_written(cache: SqliteCache) -> None:
    await cache.put("f:1", ANSWER, 60)
    at_once = await cache.get("f:1")

    await cache.aclose()
    written = await cache.get("f:1")

    assert at_once == written
    assert at_once is not None
    assert await cache.get("f:2") is None


async def test_another_process_finds_it(cache: SqliteCache, tmp_path: Path, now: Now) -> None:
    await cache.put("f:1", ANSWER, 60)
    await cache.aclose()

    other = SqliteCache(path_of(tmp_path), clock=now)
    found = await other.get("f:1")
    await other.aclose()

    assert found is not None


async def test_the_newer_answer_replaces_the_older(cache: SqliteCache) -> None:
    for output in ("old", "new"):
        await cache.put("f:1", replace(ANSWER, output=output), 60)
        await cache.aclose()

    found = await cache.get("f:1")

    assert found is not None
    assert found.output == "new"


@pytest.mark.parametrize("ttl_s", [0, -1])
async def test_no_time_to_live_keeps_nothing(
    cache: SqliteCache, tmp_path: Path, ttl_s: float
) -> None:
    await cache.put("f:1", ANSWER, ttl_s)
    await cache.aclose()

    assert await cache.get("f:1") is None
    assert kept_keys(path_of(tmp_path)) == []


async def test_what_is_over_is_deleted_when_something_is_written(
    cache: SqliteCache, tmp_path: Path, now: Now
) -> None:
    await cache.put("f:old", ANSWER, 10)
    await cache.aclose()
    now.s += 11

    await cache.put("f:new", ANSWER, 10)
    await cache.aclose()

    assert kept_keys(path_of(tmp_path)) == ["f:new"]


async def test_the_file_stays_within_its_bound_and_keeps_what_expires_last(
    tmp_path: Path, now: Now
) -> None:
    cache = SqliteCache(path_of(tmp_path), max_bytes=400_000, clock=now)
    answer = replace(ANSWER, output="x" * 3_000)

    for number in range(400):
        await cache.put(f"f:{number:03}", answer, 1000 + number)
        if number % 20 == 0:
            await cache.aclose()
    await cache.aclose()

    keys = kept_keys(path_of(tmp_path))
    assert path_of(tmp_path).stat().st_size < 500_000
    assert 50 < len(keys) < 130
    assert keys == [f"f:{number:03}" for number in range(400 - len(keys), 400)]
    assert cache.errors == 0


async def test_an_answer_too_large_for_the_cache_pushes_nothing_out(
    tmp_path: Path, now: Now
) -> None:
    cache = SqliteCache(path_of(tmp_path), max_bytes=100_000, clock=now)
    await cache.put("f:small", ANSWER, 60)

    await cache.put("f:large", replace(ANSWER, output="x" * 50_000), 60)
    await cache.aclose()

    assert kept_keys(path_of(tmp_path)) == ["f:small"]


async def test_a_bound_smaller_than_an_empty_file_keeps_nothing_and_ends(
    tmp_path: Path, now: Now
) -> None:
    cache = SqliteCache(path_of(tmp_path), max_bytes=10_000, clock=now)

    await cache.put("f:1", ANSWER, 60)
    await cache.aclose()

    assert kept_keys(path_of(tmp_path)) == []


# --- clearing -------------------------------------------------------------------------


async def test_clearing_a_feature_leaves_others_also_those_of_a_longer_name(
    cache: SqliteCache, tmp_path: Path
) -> None:
    for key in ("help:1", "help/small/help@v1/0:2", "help-answers:3", "help2:4", "tickets:5"):
        await cache.put(key, ANSWER, 60)
    await cache.aclose()

    assert cache.clear("help") == 2

    assert kept_keys(path_of(tmp_path)) == ["help-answers:3", "help2:4", "tickets:5"]


async def test_clearing_all_leaves_no_text_in_the_files(cache: SqliteCache, tmp_path: Path) -> None:
    for number in range(50):
        await cache.put(f"help:{number}", replace(ANSWER, output="SECRET" * 100), 60)
    await cache.aclose()

    assert cache.clear() == 50

    left = b"".join(file.read_bytes() for file in path_of(tmp_path).parent.iterdir())
    assert b"SECRET" not in left


async def test_only_what_was_kept_before_a_time_can_be_cleared(
    cache: SqliteCache, tmp_path: Path, now: Now
) -> None:
    await cache.put("help:old", ANSWER, 60)
    await cache.aclose()
    now.s += 10
    await cache.put("help:new", ANSWER, 60)
    await cache.aclose()

    assert cache.clear(stored_before=now.s) == 1

    assert kept_keys(path_of(tmp_path)) == ["help:new"]


# --- failing open ---------------------------------------------------------------------


async def test_a_file_that_is_no_database_is_counted_and_left_alone_for_a_while(
    cache: SqliteCache, tmp_path: Path, now: Now
) -> None:
    path_of(tmp_path).parent.mkdir()
    path_of(tmp_path).write_bytes(b"rubbish " * 1000)

    found = [await cache.get("f:1") for _ in range(10)]
    now.s += REST_S
    again = await cache.get("f:1")

    assert found == [None] * 10
    assert again is None
    assert cache.errors == 2


async def test_a_broken_file_fails_no_put(cache: SqliteCache, tmp_path: Path) -> None:
    path_of(tmp_path).parent.mkdir()
    path_of(tmp_path).write_bytes(b"rubbish " * 1000)

    await cache.put("f:1", ANSWER, 60)
    await cache.aclose()

    assert cache.errors == 1


async def test_a_cache_that_was_repaired_is_used_again(
    cache: SqliteCache, tmp_path: Path, now: Now
) -> None:
    path_of(tmp_path).parent.mkdir()
    path_of(tmp_path).write_bytes(b"rubbish " * 1000)
    assert await cache.get("f:1") is None

    path_of(tmp_path).unlink()
    now.s += REST_S
    await cache.put("f:1", ANSWER, 60)

    assert await cache.get("f:1") is not None


async def test_a_file_that_breaks_under_it_can_be_moved_away(
    cache: SqliteCache, tmp_path: Path, now: Now
) -> None:
    for number in range(200):
        await cache.put(f"f:{number:03}", replace(ANSWER, output="x" * 3_000), 60)
    await cache.aclose()
    assert await cache.get("f:000") is not None
    size = path_of(tmp_path).stat().st_size
    with path_of(tmp_path).open("r+b") as file:
        file.seek(4096)
        file.write(b"rubbish." * (size // 8 - 512))

    broken = await cache.get("f:199")
    for file_path in path_of(tmp_path).parent.iterdir():
        file_path.unlink()
    now.s += REST_S
    await cache.put("f:3", ANSWER, 60)
    await cache.aclose()

    assert broken is None
    assert cache.errors == 1
    assert kept_keys(path_of(tmp_path)) == ["f:3"]


async def test_many_tasks_that_put_and_get_while_it_closes_lose_no_call(
    cache: SqliteCache, tmp_path: Path
) -> None:
    async def call(number: int) -> bool:
        await cache.put(f"f:{number}", ANSWER, 60)
        if number % 10 == 0:
            await cache.aclose()
        return await cache.get(f"f:{number}") is not None

    found = await asyncio.gather(*(call(number) for number in range(200)))
    await cache.aclose()

    assert all(found)
    assert cache.errors == 0
    assert len(kept_keys(path_of(tmp_path))) == 200


async def test_a_file_of_a_newer_version_is_left_alone(cache: SqliteCache, tmp_path: Path) -> None:
    open_sqlite(path_of(tmp_path), "CREATE TABLE later (a);", version=99).close()

    assert await cache.get("f:1") is None

    assert cache.errors == 1


async def test_a_damaged_answer_is_a_counted_miss_and_can_be_replaced(
    cache: SqliteCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await cache.put("f:1", ANSWER, 60)
    await cache.put("f:2", ANSWER, 60)
    await cache.aclose()
    with closing(sqlite3.connect(path_of(tmp_path))) as connection, connection:
        connection.execute(
            "UPDATE responses SET data = replace(data, 'label', 'lapel') WHERE key = 'f:1'"
        )

    damaged, other = await cache.get("f:1"), await cache.get("f:2")
    await cache.put("f:1", ANSWER, 60)

    assert damaged is None
    assert other is not None
    assert cache.errors == 1
    assert "lapel" not in caplog.text
    assert await cache.get("f:1") is not None


async def test_a_reader_does_not_wait_for_another_process_that_writes(
    cache: SqliteCache, tmp_path: Path
) -> None:
    await cache.put("f:1", ANSWER, 60)
    await cache.aclose()
    with closing(sqlite3.connect(path_of(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        other.execute("DELETE FROM responses")

        found = await cache.get("f:1")

    assert found is not None
    assert cache.errors == 0


async def test_a_put_does_not_wait_for_another_process_that_writes(
    cache: SqliteCache, tmp_path: Path
) -> None:
    await cache.put("f:1", ANSWER, 60)
    await cache.aclose()
    with closing(sqlite3.connect(path_of(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")

        await asyncio.wait_for(cache.put("f:2", ANSWER, 60), timeout=4)
        meanwhile = await cache.get("f:2")
        other.execute("ROLLBACK")
    await cache.aclose()

    assert meanwhile is not None
    assert kept_keys(path_of(tmp_path)) == ["f:1", "f:2"]


def test_clearing_a_broken_file_says_so(tmp_path: Path) -> None:
    path_of(tmp_path).parent.mkdir()
    path_of(tmp_path).write_bytes(b"rubbish " * 1000)

    with pytest.raises(ConfigError, match="file is not a database"):
        SqliteCache(path_of(tmp_path)).clear()


# --- which one ------------------------------------------------------------------------


def test_the_file_stands_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVALKIT_CACHE_URL", raising=False)
    settings = Settings(root=tmp_path, store="results")

    assert cache_path(settings) == tmp_path / "results" / "cache" / "responses.sqlite"
    assert isinstance(open_cache(settings), SqliteCache)


def test_a_store_elsewhere_leaves_the_cache_beside_the_project(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path, store="s3://bucket/results")

    assert cache_path(settings) == tmp_path / ".evalkit" / "cache" / "responses.sqlite"


# --- a Redis server -------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start_redis(program: str, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """On a port of its own; on another one where somebody was quicker."""
    for port in (free_port() for _ in range(5)):
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        server = subprocess.Popen([*command, "--save", ""], stdout=subprocess.PIPE)
        assert server.stdout is not None
        for line in server.stdout:
            if b"ready to accept connections" in line.lower():
                return server, port
        server.wait()
    pytest.fail("redis-server found no port")


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str, None, None]:
    pytest.importorskip("redis", reason="the extra redis is not installed")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server on this machine (Debian package redis-server)")
    server, port = start_redis(program, tmp_path_factory.mktemp("redis"))
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.communicate()


@pytest.fixture
async def shared(redis_url: str, now: Now) -> AsyncGenerator[RedisCache, None]:
    cache = RedisCache(redis_url, timeout_s=5, clock=now)
    await cache.clear()
    yield cache
    await cache.aclose()


async def test_redis_gives_back_what_it_was_given(shared: RedisCache) -> None:
    await shared.put("f:1", ANSWER, 60)

    assert await shared.get("f:1") == replace(ANSWER, stored_at=1_000_000.0)
    assert await shared.get("f:2") is None
    assert shared.errors == 0


async def test_redis_forgets_when_the_time_is_over(shared: RedisCache) -> None:
    await shared.put("f:1", ANSWER, 0.05)
    await shared.put("f:2", ANSWER, 0)

    until = time.monotonic() + 60
    while await shared.get("f:1") is not None:
        assert time.monotonic() < until

    assert await shared.get("f:2") is None


async def test_old_answers_in_redis_go_and_young_ones_stay(shared: RedisCache, now: Now) -> None:
    await shared.put("help:old", ANSWER, 60)
    now.s += 100
    await shared.put("help:young", ANSWER, 60)
    await shared.put("tickets:young", ANSWER, 60)

    deleted = await shared.clear("help", stored_before=1_000_050.0)

    assert deleted == 1
    assert await shared.get("help:old") is None
    assert await shared.get("help:young") is not None


async def test_clearing_a_feature_in_redis_leaves_others(shared: RedisCache) -> None:
    for key in ("help:1", "help/small/help@v1:2", "help2:3", "h*p:4", "tickets:5"):
        await shared.put(key, ANSWER, 60)

    assert [await shared.clear("help"), await shared.clear("h*p")] == [2, 1]

    left = [await shared.get(key) is not None for key in ("help:1", "help2:3", "tickets:5")]
    assert left == [False, True, True]


async def test_a_damaged_answer_in_redis_is_a_counted_miss(
    shared: RedisCache, redis_url: str
) -> None:
    redis: Any = pytest.importorskip("redis.asyncio")
    async with redis.Redis.from_url(redis_url) as client:
        await client.set("evalkit:f:1", b"rubbish")

    assert await shared.get("f:1") is None

    assert shared.errors == 1


async def test_a_redis_that_is_down_fails_no_call_and_is_left_alone_for_a_while(now: Now) -> None:
    pytest.importorskip("redis", reason="the extra redis is not installed")
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and does not listen
        port = deaf.getsockname()[1]
        cache = RedisCache(f"redis://127.0.0.1:{port}/0", monotonic=now)

        found = [await cache.get("f:1") for _ in range(5)]
        await cache.put("f:1", ANSWER, 60)
        now.s += REST_S
        await cache.put("f:1", ANSWER, 60)

        assert found == [None] * 5
        assert cache.errors == 2
        with pytest.raises(ConfigError, match="cannot be cleared"):
            await cache.clear()
        await cache.aclose()


async def test_a_redis_that_never_answers_costs_a_call_little(now: Now) -> None:
    pytest.importorskip("redis", reason="the extra redis is not installed")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        cache = RedisCache(f"redis://127.0.0.1:{port}/0", timeout_s=0.05, monotonic=now)

        found = await asyncio.wait_for(cache.get("f:1"), timeout=5)

        await cache.aclose()
    assert found is None
    assert cache.errors == 1


def test_an_address_that_is_none_is_refused_without_repeating_its_password() -> None:
    pytest.importorskip("redis", reason="the extra redis is not installed")

    with pytest.raises(ConfigError, match="cannot be used") as refused:
        RedisCache("http://user:hunter2@127.0.0.1")

    assert "hunter2" not in str(refused.value)


def test_the_environment_names_the_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("redis", reason="the extra redis is not installed")
    monkeypatch.setenv("EVALKIT_CACHE_URL", "redis://127.0.0.1:1/0")

    assert isinstance(open_cache(Settings(root=tmp_path)), RedisCache)


async def test_a_redis_that_was_waited_for_in_vain_is_counted_and_left_alone() -> None:
    pytest.importorskip("redis", reason="the extra redis is not installed")
    done = asyncio.Event()

    async def says_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    server = await asyncio.start_server(says_nothing, "127.0.0.1", 0)
    cache = RedisCache(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", timeout_s=3600)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await cache.get("f:1")
    async with asyncio.timeout(60):
        again = await cache.get("f:1")

    assert (again, cache.errors) == (None, 1)
    done.set()
    await cache.aclose()
    server.close()
