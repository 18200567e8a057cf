"""Draw the calls of a busy week, as the call log leaves them: Parquet, a file for each hour.

    python -m benchmarks.traffic FOLDER [--rows N] [--days D] [--seed S]

For the benchmarks that need a store with millions of calls. Four features with two models, a
prompt that changes on the way, caches, retries, failures, and a daily rhythm. Columns, types,
compression, row groups and seals are those of `evalkit.store.call_log`; the same arguments give
the same calls. Only some ten thousand calls are in memory at a time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from evalkit.store.files import write_whole
from evalkit.store.parquet import parquet_writer
from evalkit.store.schema import arrow_schema
from evalkit.store.sealing import calls_file

START_US = 1_772_409_600_000_000
"""Monday, 2 March 2026, 00:00 UTC."""
HOUR_US = 3_600_000_000
CHUNK_ROWS = 65_536
GROUP_ROWS = 8_192
"""What 8 MB of calls as columns, the bound of a row group in the log, come to."""
USERS, TENANTS, TEXTS = 50_000, 40, 4_000
WORDS = ("order", "ticket", "refund", "late", "parcel", "account", "please", "invoice", "login")


@dataclass(frozen=True)
class Traffic:
    """What one feature's calls are like."""

    feature: str
    task: str
    model: str
    share: float
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float
    cache_share: float
    error_share: float


FEATURES = (
    Traffic("classify-ticket", "classify", "small", 0.45, 240, 12, 420.0, 0.38, 0.004),
    Traffic("answer-from-docs", "answer", "small", 0.25, 2_100, 180, 1_300.0, 0.22, 0.008),
    Traffic("extract-order", "extract", "small", 0.20, 700, 90, 800.0, 0.31, 0.005),
    Traffic("write-reply", "generate", "large", 0.10, 1_200, 420, 3_900.0, 0.02, 0.015),
)
PRICES = {"small": (0.15, 0.60), "large": (2.50, 10.00)}
"""US dollars per million tokens: input, output."""
ERRORS = ("rate_limit", "timeout", "server", "invalid_output", "content_filter")


def write_calls(folder: Path, *, rows: int, days: int = 7, seed: int = 0) -> None:
    """Write `rows` calls of the `days` from `START_US` on into the store `folder`."""
    rng = np.random.default_rng(seed)
    pool = _texts(rng)
    for hour, n in enumerate(_rhythm(rows, days * 24)):
        start = START_US + hour * HOUR_US
        file_id = bytes(_trace_ids(np.array([start]), rng)[0]).decode()
        path = folder / calls_file(start, file_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as file, parquet_writer(file, arrow_schema("calls")) as writer:
            for at in range(0, n, CHUNK_ROWS):
                part = range(at, min(n, at + CHUNK_ROWS))
                ts = start + (np.array(part) * HOUR_US // n)
                writer.write_table(_calls(ts, rng, pool), row_group_size=GROUP_ROWS)


def _rhythm(rows: int, hours: int) -> list[int]:
    """Calls of each hour: most in the afternoon, fewest at night; together `rows`."""
    weight = 1 + 0.7 * np.sin((np.arange(hours) % 24 - 9) / 24 * 2 * np.pi)
    bounds = np.concatenate([[0], np.round(np.cumsum(weight) / weight.sum() * rows)])
    return [int(n) for n in np.diff(bounds.astype(np.int64))]


def _texts(rng: np.random.Generator) -> tuple[pa.Array, pa.Array]:
    words = np.array(WORDS)
    lines = [" ".join(rng.choice(words, size=rng.integers(8, 40))) for _ in range(TEXTS)]
    inputs = [f'{{"text":"{line}","number":{n}}}' for n, line in enumerate(lines)]
    return pa.array(inputs), pa.array([line.capitalize() + "." for line in lines])


def _calls(ts: np.ndarray, rng: np.random.Generator, pool: tuple[pa.Array, pa.Array]) -> pa.Table:
    """Calls that started at `ts`, with all columns of the log."""
    n = len(ts)
    which = rng.choice(len(FEATURES), size=n, p=[one.share for one in FEATURES])
    of = {name: np.array([getattr(one, name) for one in FEATURES])[which] for name in _NUMBERS}
    cached = rng.random(n) < of["cache_share"]
    failed = ~cached & (rng.random(n) < of["error_share"])
    retried = ~cached & (rng.random(n) < 0.03)
    prompt = np.maximum(1, rng.lognormal(np.log(of["prompt_tokens"]), 0.5)).astype(np.int64)
    completion = np.maximum(1, rng.lognormal(np.log(of["completion_tokens"]), 0.6)).astype(np.int64)
    latency = np.where(cached, rng.gamma(2.0, 2.0, n), rng.lognormal(np.log(of["latency_ms"]), 0.4))
    latency = np.round(latency * np.where(retried, 1.8, 1.0), 3)
    price_in, price_out = (
        np.array([PRICES[one.model][side] for one in FEATURES])[which] for side in (0, 1)
    )
    cost = np.where(cached, 0.0, (prompt * price_in + completion * price_out) / 1e6)
    drawn = {
        "which": which,
        "cached": cached,
        "failed": failed,
        "retried": retried,
        "prompt": prompt,
        "completion": completion,
        "latency": latency,
        "ttft": np.round(latency * 0.3, 3),
        "cost": cost,
    }
    return pa.table(_columns(ts, rng, pool, drawn), schema=arrow_schema("calls"))


_NUMBERS = (
    "prompt_tokens",
    "completion_tokens",
    "latency_ms",
    "cache_share",
    "error_share",
)


def _columns(
    ts: np.ndarray,
    rng: np.random.Generator,
    pool: tuple[pa.Array, pa.Array],
    drawn: dict[str, np.ndarray],
) -> dict[str, Any]:
    n, which, cached, failed = len(ts), drawn["which"], drawn["cached"], drawn["failed"]
    text = rng.integers(0, TEXTS, n)
    error = np.where(failed, rng.integers(0, len(ERRORS), n), -1)
    counted = {
        name: pa.array(values, mask=cached)
        for name, values in (
            ("prompt_tokens", drawn["prompt"]),
            ("completion_tokens", drawn["completion"]),
            ("total_tokens", drawn["prompt"] + drawn["completion"]),
            ("cached_prompt_tokens", drawn["prompt"] // 3),
        )
    }
    served = _named([one.model for one in FEATURES], np.where(cached | failed, -1, which))
    models = _named([one.model for one in FEATURES], which)
    changed = ts >= START_US + 84 * HOUR_US  # half a week
    version = np.where(changed & (which == 0), 2, np.where(changed & (which == 1), 1, 0))
    filled = {
        **counted,
        "trace_id": pa.array(_trace_ids(ts, rng)).cast(pa.string()),
        "user_id": _named([f"user-{k:05d}" for k in range(USERS)], rng.zipf(1.3, n) % USERS),
        "tenant": _named([f"tenant-{k:02d}" for k in range(TENANTS)], rng.zipf(1.6, n) % TENANTS),
        "feature": _named([one.feature for one in FEATURES], which),
        "task": _named([one.task for one in FEATURES], which),
        "model": models,
        "served_model": served,
        "provider": _named(["openai"], np.where(cached, -1, 0)),
        "prompt_name": _named([one.feature for one in FEATURES], which),
        "prompt_version": _named(["v2", "v3", "v4"], version),
        "prompt_hash": _named(["6f1c2a9d40e7b358", "a97b3c5e21d0f864", "03be1d"], version),
        "latency_ms": pa.array(drawn["latency"]),
        "ttft_ms": pa.array(drawn["ttft"], mask=cached | (which != 3) & (which != 1)),
        "cost_usd": pa.array(drawn["cost"]),
        "cache_hit": pa.array(cached),
        "cache_kind": _named(["exact"], np.where(cached, 0, -1)),
        "status": _named(["ok", "error"], failed.astype(np.int64)),
        "error_kind": _named(list(ERRORS), error),
        "finish_reason": _named(["stop"], np.where(failed, -1, 0)),
        "ts": pa.array(ts).cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC")),
        "params": _named(['{"max_tokens":256}'], np.zeros(n, dtype=np.int64)),
        "retries": pa.array(drawn["retried"].astype(np.int64)),
        "resumed": pa.array(np.zeros(n, dtype=np.int64)),
        "redactions": pa.array(np.zeros(n, dtype=np.int64)),
        "escalated": pa.array(np.zeros(n, dtype=bool)),
        "repaired": pa.array(rng.random(n) < 0.01),
        "schema_ok": pa.array(~failed, mask=which == 3),
        "confidence": pa.array(np.round(rng.beta(8, 2, n), 4), mask=cached | failed),
        "stage_ms": _stages(drawn["latency"], cached),
        "attempts": _attempts(drawn, error, models, served),
        "input": pool[0].take(pa.array(text)),
        "output": pool[1].take(pa.array(text, mask=failed)),
    }
    empty = {
        name: _empty_lists(n, kind) if _is_list(kind) else pa.nulls(n, kind)
        for name, kind in ((field.name, field.type) for field in arrow_schema("calls"))
        if name not in filled
    }
    return filled | empty


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_map(kind))


def _empty_lists(n: int, kind: pa.DataType) -> pa.Array:
    nowhere = pa.array(np.zeros(n + 1, dtype=np.int32))
    if pa.types.is_map(kind):
        return pa.MapArray.from_arrays(
            nowhere, pa.nulls(0, kind.key_type), pa.nulls(0, kind.item_type)
        ).cast(kind)
    return pa.ListArray.from_arrays(nowhere, pa.nulls(0, kind.value_type)).cast(kind)


def _attempts(
    drawn: dict[str, np.ndarray], error: np.ndarray, models: pa.Array, served: pa.Array
) -> pa.Array:
    """None where a cache answered, two where the first was retried, else one."""
    kind = arrow_schema("calls").field("attempts").type
    counts = np.where(drawn["cached"], 0, np.where(drawn["retried"], 2, 1))
    call = np.repeat(np.arange(len(counts)), counts)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    last = offsets[1:][call] - 1 == np.arange(len(call))
    at = pa.array(call)
    given = {
        "provider": _named(["openai"], np.zeros(len(call), dtype=np.int64)),
        "model": models.take(at),
        "served_model": served.take(at),
        "error_kind": _named(list(ERRORS), np.where(last, error[call], 0)),
        "finish_reason": _named(["stop"], np.where(last & (error[call] < 0), 0, -1)),
        "latency_ms": pa.array(np.round(drawn["latency"][call] / counts[call], 3)),
        "ttft_ms": pa.array(drawn["ttft"][call]),
        "wait_ms": pa.array(np.where(last & (counts[call] == 2), 250.0, 0.0)),
        "prompt_tokens": pa.array(drawn["prompt"][call], mask=~last),
        "completion_tokens": pa.array(drawn["completion"][call], mask=~last),
        "cached_prompt_tokens": pa.array(drawn["prompt"][call] // 3, mask=~last),
        "cost_usd": pa.array(np.where(last, drawn["cost"][call], 0.0)),
        "max_tokens": pa.array(np.full(len(call), 256)),
    }
    fields = list(kind.value_type)
    values = [given.get(field.name, pa.nulls(len(call), field.type)) for field in fields]
    structs = pa.StructArray.from_arrays(values, fields=fields)
    return pa.ListArray.from_arrays(pa.array(offsets), structs).cast(kind)


def _stages(latency: np.ndarray, cached: np.ndarray) -> pa.Array:
    """Milliseconds of each stage; a call that a cache answered made no attempt."""
    kind = arrow_schema("calls").field("stage_ms").type
    names = ("prompt", "cache", "attempt", "validate")
    took = np.where(cached, 2, 4)
    offsets = np.concatenate([[0], np.cumsum(took)]).astype(np.int32)
    call = np.repeat(np.arange(len(took)), took)
    stage = np.arange(len(call)) - offsets[:-1][call]
    millis = np.round(latency[call] * np.array([0.002, 0.01, 0.98, 0.004])[stage], 3)
    keys = _named(names, stage)
    return pa.MapArray.from_arrays(pa.array(offsets), keys, pa.array(millis)).cast(kind)


def _named(names: Sequence[str], which: np.ndarray) -> pa.Array:
    """Text by number; null for -1."""
    return pa.array(list(names)).take(pa.array(which, mask=which < 0))


_HEX = np.array([f"{byte:02x}" for byte in range(256)], dtype="S2")


def _trace_ids(ts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """UUIDv7 as 32 hex digits, as `evalkit.ids.new_id` makes them."""
    raw = rng.integers(0, 256, size=(len(ts), 16), dtype=np.uint8)
    raw[:, :6] = (ts // 1000).astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:]
    raw[:, 6] = raw[:, 6] & 0x0F | 0x70
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    return np.ascontiguousarray(_HEX[raw]).view("S32").ravel()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started = time.perf_counter()
    write_calls(given.folder, rows=given.rows, days=given.days, seed=given.seed)
    size = sum(path.stat().st_size for path in given.folder.rglob("*.parquet"))
    took = time.perf_counter() - started
    print(f"{given.rows:,} calls of {given.days} days: {size / 1e6:,.0f} MB in {took:.1f} s")


if __name__ == "__main__":
    main()
