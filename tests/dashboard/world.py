"""A production of one week, in which everything that a dashboard shows is there."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from evalkit.call.review import ReviewQueue
from evalkit.config import load_settings
from evalkit.dashboard.figures import Figures, gather
from evalkit.dashboard.window import Window
from evalkit.settings import Settings
from evalkit.store.views import Store, open_store
from tests.score.answers import RECORD
from tests.store.journal_lines import attempt, call, plain, score

DAY = 86_400_000_000
FROM = 1_772_409_600_000_000
"""2 March 2026."""
UNTIL = FROM + 7 * DAY

PROJECT = """
[providers.cloud]
wire = "openai"
base_url = "http://127.0.0.1:9/v1"
[models.small]
provider = "cloud"
id = "s"
price = { input = 0.15, output = 0.60 }
[models.large]
provider = "cloud"
id = "l"
tier = "frontier"
price = { input = 2.5, output = 10.0 }
[features.classify-ticket]
prompt = "classify-ticket@v3"
model = "small"
fallbacks = ["large"]
allow_frontier = true
max_latency_ms = 100
ttft_ms = 50
[budgets]
total = { month_usd = 10.0 }
"""


def project(folder: Path) -> Settings:
    """Settings of a project in `folder`, which prompts need not be in."""
    (folder / "evalkit.toml").write_text(PROJECT, encoding="utf-8")
    return load_settings(folder / "evalkit.toml")


def week(store: Store, name: str = "classify-ticket") -> None:
    """Ten calls a day: one failed, two from a cache, one too slow; two prompt versions."""
    rows = []
    for day in range(7):
        version = "v2" if day < 4 else "v3"
        for number in range(10):
            changes: dict[str, Any] = {"latency_ms": 40.0, "ttft_ms": 10.0, "cost_usd": 0.1}
            if number == 0:
                changes = {"status": "error", "error_kind": "server", "cost_usd": 0.0,
                           "served_model": None, "schema_ok": None}  # fmt: skip
            elif number in (1, 2):
                changes = {"cache_hit": True, "cache_kind": "exact", "attempts": (),
                           "cost_usd": 0.0, "latency_ms": 1.0, "schema_ok": None}  # fmt: skip
            elif number == 3:
                changes |= {"latency_ms": 400.0, "ttft_ms": 80.0}
            elif number == 4:
                changes |= {"served_model": "large", "attempts": (attempt(model="large"),)}
            rows.append(
                plain(
                    call(
                        trace_id=f"t-{day}-{number}", ts=FROM + day * DAY + number * 60_000_000,
                        feature=name, prompt_version=version, **changes,
                    )
                )
            )  # fmt: skip
    store.add_calls("log", rows)


def sampling_job(store: Store, day: int, scores: list[float], *, metric: str = "grounded",
                 feature: str = "classify-ticket") -> None:  # fmt: skip
    run_id = f"sample-{metric[:4].encode().hex()}-{day}"
    sample = {"since": FROM + day * DAY, "until": FROM + (day + 1) * DAY, "config": "c"}
    with store.create_run({"run_id": run_id, "kind": "sample", "sample": sample}) as writer:
        for number, value in enumerate(scores):
            row = score(
                run_id=run_id, trace_id=f"{run_id}-{number}", metric=metric, tier=2, score=value,
                inclusion_prob=0.5, prompt_version="v2" if day < 4 else "v3",
                slices={"feature": feature},
            )  # fmt: skip
            writer.append({"key": [run_id, number], "calls": [], "scores": [plain(row)]})
        writer.seal("complete")


def alerts(store: Store, message: str = "too dear", **more: Any) -> None:
    """What a look left behind."""
    one = {
        "severity": "critical", "message": message, "value": 2.0, "limit": 1.0,
        "runbook": "docs/runbook.md#cost-spike", "since": FROM, "said_at": FROM, **more,
    }  # fmt: skip
    state = {"looked_at": UNTIL - 60_000_000, "firing": {"spend/all calls": one}}
    (store.path / "alerts.json").write_text(json.dumps(state), encoding="utf-8")


def reviews(store: Store, n: int, feature: str = "classify-ticket") -> None:
    with closing(ReviewQueue(store.path / "queue.sqlite", now=lambda: FROM / 1e6)) as queue:
        for number in range(n):
            queue.hold(replace(RECORD, trace_id=f"review-{number}", feature=feature, output="x"))


def world(folder: Path) -> tuple[Store, Settings]:
    """All of it, made once in a process and copied."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(_made(), folder / ".evalkit")
    return open_store(folder / ".evalkit"), project(folder)


@cache
def _made() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="evalkit-world-")
    atexit.register(folder.cleanup)
    store = open_store(Path(folder.name) / ".evalkit")
    week(store)
    for day in range(7):
        sampling_job(store, day, [1.0] * 8 + [float(day < 4)] * 2)
    alerts(store)
    reviews(store, 3)
    return store.path


def figures(store: Store, settings: Settings, *, days: int = 7, now: int = UNTIL - 1) -> Figures:
    return gather(store, settings, Window.of(UNTIL - days * DAY, UNTIL), now=now)
