"""A small project in a folder: one feature answered by a Python function or a server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LABELS = ("billing", "delivery")


def case(number: int, **more: Any) -> dict[str, Any]:
    """A case whose text names its label, so that a rule can answer it.

    The loopback provider counts requests by the marker at its end.
    """
    label, case_id = LABELS[number % 2], f"t-{number:04d}"
    return {
        "id": case_id,
        "input": {"text": f"{number}: a question on {label} [case {case_id}]"},
        "expected": {"label": label},
        **more,
    }


def write_project(
    folder: Path,
    *,
    target: str = "tests.apps:by_rule",
    base_url: str | None = None,
    cases: Iterable[Mapping[str, Any]] | int = 10,
    header: str = "",
    feature: str = "",
    run: str = "",
    price: str = "price = { input = 1.0, output = 2.0 }",
) -> Path:
    """Write configuration, prompts v1 and v2, schema and one golden set; returns `folder`."""
    provider = (
        f'wire = "openai"\nbase_url = "{base_url}"' if base_url
        else f'wire = "python"\ntarget = "{target}"'
    )  # fmt: skip
    golden = folder / "golden_sets" / "tickets"
    prompts = folder / "prompts" / "classify"
    for path in (golden, prompts):
        path.mkdir(parents=True)
    (folder / "evalkit.toml").write_text(
        f"""
[providers.app]
{provider}

[models.small]
provider = "app"
id = "loopback-model"
{price}

[features.classify]
task = "classify"
prompt = "classify@v1"
model = "small"
output_schema = "golden_sets/tickets/label.schema.json"
max_tokens = 64
{feature}

[run]
{run}
""",
        encoding="utf-8",
    )
    for version in ("v1", "v2"):
        (prompts / f"{version}.md").write_text(
            f"## system\nPrompt {version}. Say which label fits.\n\n## user\n{{{{ text }}}}\n",
            encoding="utf-8",
        )
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(LABELS)}},
        "required": ["label"],
        "additionalProperties": False,
    }
    (golden / "label.schema.json").write_text(json.dumps(schema), encoding="utf-8")
    (golden / "golden_set.yaml").write_text(
        f"""name: tickets
feature: classify
{header}
metrics:
  - {{name: label, check: equals, path: /label, gate: true}}
  - {{name: shape, check: json_schema, schema: label.schema.json}}
cases: cases.jsonl
""",
        encoding="utf-8",
    )
    rows = [case(n) for n in range(cases)] if isinstance(cases, int) else cases
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (golden / "cases.jsonl").write_text(text, encoding="utf-8")
    return folder
