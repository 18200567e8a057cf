"""Write docs/reference/ from the code: commands, files, checks, statuses.

`python -m scripts.reference` brings all pages up to date; a test fails while one is not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
MADE = "<!-- Made by `python -m scripts.reference` from the code: change it there. -->\n"
WIDTH = 96

Schema = Mapping[str, Any]


def pages() -> dict[str, str]:
    """Name -> text of every page."""
    makers: dict[str, Callable[[], str]] = {
        "cli.md": _cli,
        "configuration.md": _configuration,
        "files.md": _files,
        "checks.md": _checks,
        "verdict.md": _verdict,
        "statuses.md": _statuses,
    }
    return {name: MADE + make() for name, make in makers.items()}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


# --- commands ------------------------------------------------------------------------


def _cli() -> str:
    from evalkit.cli.main import cli

    parts = [
        "# Commands\n",
        "What `--help` says of each. Exit statuses: [statuses](statuses.md).\n",
    ]
    parts += [f"## {name}\n\n```text\n{text}\n```\n" for name, text in _helps(cli, None, "evalkit")]
    return "\n".join(parts)


def _helps(
    command: click.Command, parent: click.Context | None, name: str
) -> Iterator[tuple[str, str]]:
    words = name if parent is None else f"{parent.command_path} {name}"
    context = click.Context(
        command, parent=parent, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH
    )
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield words, text
    if isinstance(command, click.Group):
        for verb in command.list_commands(context):
            found = command.get_command(context, verb)
            assert found is not None
            yield from _helps(found, context, verb)


# --- files people write ----------------------------------------------------------------


def _configuration() -> str:
    from evalkit.schemas import load_schema

    schema = load_schema("config")
    parts = [
        "# evalkit.toml\n",
        (
            "Or `[tool.evalkit]` in pyproject.toml. An unknown key is an error that names the "
            "nearest known one. Secrets are named by environment variable, never written.\n"
        ),
        _keys(schema, schema),
    ]
    for name, table in schema["properties"].items():
        parts += _tables(name, table, schema)
    return "\n".join(parts)


def _tables(name: str, table: Schema, root: Schema) -> Iterator[str]:
    """A heading and the keys of a table, or of each table in a table of names."""
    resolved = _resolved(table, root)
    inner = resolved.get("additionalProperties")
    if resolved.get("properties"):
        yield f"## [{name}]\n\n{_about(resolved)}\n{_keys(resolved, root)}"
    if isinstance(inner, dict):
        one = _resolved(inner, root)
        for choice in one.get("anyOf", [one]):
            choice = _resolved(choice, root)
            if choice.get("properties"):
                yield f"## [{name}.NAME]\n\n{_about(resolved)}\n{_keys(choice, root)}"


def _files() -> str:
    from evalkit.schemas import load_schema

    titles = {
        "golden_set": ("golden_sets/NAME/golden_set.yaml", "metrics"),
        "case": ("A line of cases.jsonl", None),
        "judge": ("judges/NAME.yaml", "rubric"),
        "prompt": ("Front matter of prompts/NAME/VERSION.md", None),
    }
    parts = [
        "# Files of a project\n",
        (
            "Editors know these files by the JSON Schemas in `evalkit/schemas/`, and "
            "`evalkit check` holds them against the same. What checks take: [checks](checks.md).\n"
        ),
    ]
    for name, (title, items) in titles.items():
        schema = load_schema(name)
        parts.append(f"## {title}\n\n{_about(schema)}\n{_keys(schema, schema)}")
        if items:
            one = _resolved(schema["properties"][items]["items"], schema)
            known = {"name", "check", "judge", "gate", "tolerance", "max_drop", "must_pass"}
            shown = {
                key: value
                for key, value in one["properties"].items()
                if name == "judge" or key in known
            }
            parts.append(f"### One of `{items}`\n\n{_keys({**one, 'properties': shown}, schema)}")
    return "\n".join(parts)


def _checks() -> str:
    from evalkit.score.checks import CHECKS
    from evalkit.score.text_metrics import MAX_ALIGNED

    params = _check_params()
    parts = [
        "# Checks\n",
        (
            "Tier 1: scorers that need no model. Every one also takes `negate: true`, which turns "
            "it round, and is written as `check: KIND` in a metric or in a case's own `checks`.\n"
        ),
        "| check | needs `expected` | passes from | has to have | may have |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, kind in CHECKS.items():
        has_to = [" or ".join(f"`{key}`" for key in group) for group in kind.required]
        required = {key for group in kind.required for key in group}
        may = ", ".join(f"`{key}`" for key in kind.params if key not in required)
        bar = "" if kind.threshold is None else f"{kind.threshold:g}"
        parts.append(
            f"| `{name}` | {'yes' if kind.needs_expected else ''} | {bar} | {', '.join(has_to)} | "
            f"{may} |"
        )
    parts.append(
        "\n`levenshtein` reads any length that two texts begin or end with alike; between those it "
        f"aligns {MAX_ALIGNED:,} characters, and what is beyond them counts as different."
    )
    used = sorted({key for kind in CHECKS.values() for key in kind.params})
    parts += ["\n## Parameters\n", "| key | type | meaning |", "| --- | --- | --- |"]
    parts += [
        f"| `{key}` | {_type(params[key], {})} | {_meaning(params[key])} |"
        for key in used
        if key in params
    ]
    return "\n".join(parts) + "\n"


def _check_params() -> Schema:
    from evalkit.schemas import load_schema

    found: Schema = load_schema("case")["$defs"]["own_check"]["properties"]
    return found


# --- what comes out --------------------------------------------------------------------


def _verdict() -> str:
    from evalkit.schemas import load_schema

    schema = load_schema("verdict")
    comparison = schema["$defs"]["comparison"]
    return "\n".join(
        [
            "# The verdict\n",
            f"{_about(schema)}",
            _keys(schema, schema),
            f"## One of `comparisons`\n\n{_keys(comparison, schema)}",
            "The same as columns, one row a comparison: [the store](../store.md#columns).\n",
        ]
    )


def _statuses() -> str:
    from evalkit import errors
    from evalkit.call.failures import FAILURES

    meanings = {
        "EXIT_PASS": "pass; nothing is wrong",
        "EXIT_REGRESSION": "a significant regression, or a must-pass case failed",
        "EXIT_USAGE": "usage, configuration, or a file that cannot be read",
        "EXIT_UNMEASURABLE": "unmeasurable: too much is missing, not comparable, no baseline, a "
        "spending limit, a damaged store; inconclusive under --strict",
        "EXIT_INTERRUPTED": "interrupted",
    }
    names = [name for name in vars(errors) if name.startswith("EXIT_")]
    parts = ["# Statuses\n", "## Exit statuses\n", "| status | means |", "| --: | --- |"]
    parts += [f"| {getattr(errors, name)} | {meanings[name]} |" for name in names]
    parts += [
        "\nUnder pytest the status is pytest's own: 1 for a regression and for unmeasurable.\n",
        "## Kinds of failure\n",
        "What `error_kind` says of a call, an attempt or a score.\n",
        "| kind | asked again | another model | opens the breaker | a golden-set case counts as |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, row in FAILURES.items():
        again = "as often as `retries` says" if row.retries is None else str(row.retries)
        marks = ["yes" if mark else "no" for mark in (row.fail_over, row.trips_breaker)]
        parts.append(f"| `{kind}` | {again} | {marks[0]} | {marks[1]} | {row.outcome} |")
    return "\n".join(parts) + "\n"


# --- JSON Schema as tables ---------------------------------------------------------------


def _keys(schema: Schema, root: Schema) -> str:
    required = schema.get("required", ())
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key, raw in schema.get("properties", {}).items():
        value = _resolved(raw, root)
        default = "required" if key in required else ""
        if "default" in value:
            default = f"`{json.dumps(value['default'])}`"
        lines.append(f"| `{key}` | {_type(value, root)} | {default} | {_meaning(value)} |")
    return "\n".join(lines) + "\n"


def _resolved(value: Schema, root: Schema) -> Schema:
    """The value with what it refers to, its own words first."""
    if "$ref" not in value:
        return value
    found = root["$defs"][value["$ref"].rpartition("/")[2]]
    return {**_resolved(found, root), **{k: v for k, v in value.items() if k != "$ref"}}


def _type(value: Schema, root: Schema) -> str:
    if "enum" in value:
        return " \\| ".join(f"`{json.dumps(one)}`" for one in value["enum"])
    for many in ("anyOf", "oneOf"):
        if many in value:
            kinds = [_type(_resolved(one, root), root) for one in value[many]]
            return " or ".join(dict.fromkeys(kinds))
    kinds = value.get("type", "any")
    words = [_WORDS.get(kind, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    return " or ".join(words) + _range(value)


_WORDS = {"string": "text", "object": "table", "array": "list", "boolean": "true or false",
          "integer": "whole number"}  # fmt: skip


def _range(value: Schema) -> str:
    marks = {"minimum": "≥ ", "exclusiveMinimum": "> ", "maximum": "≤ ", "exclusiveMaximum": "< "}
    bounds = [f"{mark}{value[key]}" for key, mark in marks.items() if key in value]
    return f", {', '.join(bounds)}" if bounds else ""


def _about(schema: Schema) -> str:
    return f"{schema['description'].rstrip('.')}.\n" if schema.get("description") else ""


def _meaning(value: Schema) -> str:
    return str(value.get("description", "")).replace("|", "\\|")


if __name__ == "__main__":
    main()
