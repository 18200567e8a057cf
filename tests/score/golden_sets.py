"""Golden sets in a temporary folder, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from evalkit.errors import GoldenSetError
from evalkit.score.golden import GoldenSet, load_golden_set
from evalkit.settings import FeatureSettings, Settings

HEADER = """\
name: tickets
feature: classify
slices: [channel]
metrics:
  - {name: label, check: equals, path: /label, gate: true}
cases: cases.jsonl
"""
CASE = {
    "id": "t-1",
    "input": {"text": "Where is my parcel?"},
    "expected": {"label": "delivery"},
    "metadata": {"channel": "chat"},
}


def config(root: Path) -> Settings:
    feature = FeatureSettings(
        name="classify", prompt_name="classify", prompt_version="v1", model="embedded"
    )
    return Settings(root=root, features={"classify": feature})


def write(root: Path, cases: Iterable[Any] | str | bytes, header: str = HEADER) -> Path:
    """A golden set in `root`; cases as values, or as the text or bytes of the whole file."""
    folder = root / "golden_sets" / "tickets"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "golden_set.yaml").write_text(header, encoding="utf-8")
    if not isinstance(cases, (str, bytes)):
        cases = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in cases)
    data = cases.encode() if isinstance(cases, str) else cases
    (folder / "cases.jsonl").write_bytes(data)
    return folder


def load(
    root: Path, cases: Iterable[Any] | str | bytes = (CASE,), header: str = HEADER
) -> GoldenSet:
    return load_golden_set(write(root, cases, header), settings=config(root))


def problems(
    root: Path, cases: Iterable[Any] | str | bytes = (CASE,), header: str = HEADER
) -> list[str]:
    """What is wrong, without the folder that every line starts with."""
    with pytest.raises(GoldenSetError) as caught:
        load(root, cases, header)
    lines = caught.value.problems
    assert all(line.startswith("golden_sets/tickets/") for line in lines)
    return [line.removeprefix("golden_sets/tickets/") for line in lines]


def case(**changes: Any) -> dict[str, Any]:
    """CASE with changes; None takes a key out."""
    return {key: value for key, value in (CASE | changes).items() if value is not None}


def metric(text: str) -> str:
    """HEADER with its metric replaced; the metric stands on line 5."""
    return HEADER.replace("{name: label, check: equals, path: /label, gate: true}", text)


# --- random cases ------------------------------------------------------------------

characters = st.characters(exclude_categories=("Cs",))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(characters, max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=("Cs",)), max_size=4), inner, max_size=3
        )
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.text("abc/~é\u2028", max_size=4), json_values, max_size=3)
cases = st.fixed_dictionaries(
    {"id": st.just("t-1"), "input": objects | st.text(max_size=8)},
    optional={"expected": json_values, "metadata": objects, "cluster": st.just("one")},
)

LENIENT = "name: tickets\nfeature: classify\nmetrics: [{name: json, check: is_json, gate: true}]\n"
"""A header that any case fits."""

quick = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
