"""Whatever a provider sends: a kind of the failure table, by the deadline, in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from evalkit.call.failures import FAILURES
from tests.hostile.hostile_server import ATTACKS

DEADLINE_S = 1.0
SLACK_S = 0.5
MAX_GROWTH_MB = 50.0
NEITHER = (None, "empty", "over_latency_budget")
"""What an attack never comes to: an answer, or something that counts as one."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """One call for each attack, streamed and not, in a process of its own."""
    command = [sys.executable, "-m", "tests.hostile.hostile_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        folder = tmp_path_factory.mktemp("attacked")
        client = [sys.executable, "-m", "tests.hostile.hostile_client", port, str(folder)]
        try:
            done = subprocess.run(
                [*client, str(int(DEADLINE_S * 1000))], capture_output=True, text=True, timeout=600
            )
        finally:
            server.kill()
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_every_attack_ends_as_a_kind_of_the_failure_table(results: list[dict[str, Any]]) -> None:
    kinds = {(one["attack"], one["streamed"]): one["kind"] for one in results}

    assert len(kinds) == 2 * len(ATTACKS)
    assert set(kinds.values()) <= set(FAILURES)
    assert not [attack for attack, kind in kinds.items() if kind in NEITHER]


@pytest.mark.slow
def test_every_attack_ends_by_the_deadline(results: list[dict[str, Any]]) -> None:
    late = [one for one in results if min(one["took_s"]) > DEADLINE_S + SLACK_S]

    assert not late


@pytest.mark.slow
def test_no_attack_fills_the_memory(results: list[dict[str, Any]]) -> None:
    assert sum(one["grew_mb"] for one in results) < MAX_GROWTH_MB


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "kind"),
    [
        ("body_of_1_gb", "too_large"),
        ("gzip_bomb", "too_large"),
        ("stream_without_a_line_end", "bad_reply"),
        ("slow_headers", "timeout"),
        ("slow_body", "timeout"),
        ("html", "bad_reply"),
        ("half_a_stream", "stream_cut"),
        ("redirect_to_itself", "bad_request"),
        ("two_million_choices", "too_large"),
        ("numbers_that_are_none", "bad_reply"),
    ],
)
def test_well_known_attacks_have_the_kind_one_expects(
    attack: str, kind: str, results: list[dict[str, Any]]
) -> None:
    [found] = [one["kind"] for one in results if one["attack"] == attack and not one["streamed"]]

    assert found == kind
