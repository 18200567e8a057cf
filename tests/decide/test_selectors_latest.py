"""`latest` and `latest~N` count complete runs back, as people say it."""

from __future__ import annotations

import pytest

from evalkit.decide.selectors import find_run, newest_complete
from evalkit.errors import ConfigError

RUNS = [
    {"run_id": "d", "status": "running"},
    {"run_id": "c", "status": "complete"},
    {"run_id": "b", "status": "incomplete"},
    {"run_id": "a", "status": "complete"},
]


@pytest.mark.parametrize(
    ("text", "run_id"), [("latest", "c"), ("latest~0", "c"), ("latest~1", "a")]
)
def test_only_complete_runs_are_counted(text: str, run_id: str) -> None:
    assert find_run(RUNS, text)["run_id"] == run_id


def test_counting_past_the_first_run_says_how_many_there_are() -> None:
    with pytest.raises(ConfigError, match=r"latest~2: this store has 2 complete runs"):
        find_run(RUNS, "latest~2")


def test_a_shard_is_no_baseline() -> None:
    runs = [
        {"run_id": "b", "status": "complete", "shard": {"number": 1, "of": 2}},
        {"run_id": "a", "status": "complete"},
    ]

    found = newest_complete(runs)

    assert found is not None
    assert found["run_id"] == "a"
