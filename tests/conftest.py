"""What every test may ask for. Nothing here runs unless asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester"]
CHECKOUT = Path(__file__).resolve().parent.parent

# No example fails for being slow, and everybody tries the same ones; others are looked for
# with `--hypothesis-profile search`.
settings.register_profile(
    "same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", settings.get_profile("same"), derandomize=False)
settings.load_profile("same")


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """`shared_data("hostile/json")`: a folder or file of real data made by others.

    It is no part of the checkout: found by EVALKIT_SHARED_DATA, else in `../shared/data`
    beside it. A test that asks for what is not there is skipped.
    """
    root = Path(os.environ.get("EVALKIT_SHARED_DATA") or CHECKOUT.parent / "shared" / "data")

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"no {name} in {root}; EVALKIT_SHARED_DATA names the folder of shared data")
        return path

    return find
