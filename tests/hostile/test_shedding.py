"""Half of the users on a provider that has stalled: nobody is lost, and the others go on."""

from __future__ import annotations

import pytest

from benchmarks.shedding import DEADLINE_S, SLACK_S, measure
from evalkit.call.failures import FAILURES


@pytest.mark.slow
def test_a_stalled_provider_costs_its_own_users_an_error_and_nobody_else_anything() -> None:
    # As few as any machine can serve in time: the benchmark asks for 10,000.
    facts = measure(users=200, seconds=4.0)

    assert facts["records"] == facts["distinct_records"] == facts["calls"]
    assert facts["healthy_kinds"] == {"None": facts["users"] // 2}
    assert set(facts["stalled_kinds"]) <= set(FAILURES)
    assert "breaker_open" in facts["stalled_kinds"]  # shed at once, not held until the deadline
    # What a loaded machine adds is seen in the others' slowest.
    assert facts["stalled_slowest_s"] <= DEADLINE_S + SLACK_S + facts["healthy_slowest_s"]
    assert facts["grew_mb"] < 200
