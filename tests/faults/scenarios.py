"""All scenarios, by name, in the order of the table."""

from __future__ import annotations

from tests.faults import (
    crashes,
    damage,
    machine,
    stores_of,
    straced,
    together,
    unmeasured,
    writers,
)
from tests.faults.table import Scenario

SCENARIOS: dict[str, Scenario] = {
    **crashes.SCENARIOS,
    **writers.SCENARIOS,
    **straced.SCENARIOS,
    **stores_of.SCENARIOS,
    **together.SCENARIOS,
    **damage.SCENARIOS,
    **unmeasured.SCENARIOS,
    **machine.SCENARIOS,
}
