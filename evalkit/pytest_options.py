"""The options of `pytest --llm-eval`, and where the value of each came from.

Every pytest run of the environment loads this, so it imports nothing of evalkit's. An
option's value is the first of: command line, environment, evalkit's own configuration,
pytest's ini file, default.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from evalkit.settings import Settings

Source = Literal["command line", "environment", "configuration", "ini file", "default"]
YES = {"1", "true", "yes", "on"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option: `--llm-eval-NAME`, `EVALKIT_NAME`, `llm_eval_name`."""

    help: str
    kind: Literal["text", "list", "flag", "file", "count", "usd"] = "text"
    table: Literal["", "run", "pytest"] = "pytest"
    """The table of evalkit.toml that has it; empty: the top."""
    key: str | None = None
    """Its key there; None: the option's name."""


OPTIONS: dict[str, Option] = {
    "model": Option(kind="list", help="Model to evaluate; repeatable. Default: the feature's own."),
    "prompt": Option(
        kind="list", help="Prompt version NAME@V; repeatable. Default: the feature's own."
    ),
    "trials": Option(kind="count", help="Executions of each case."),
    "limit": Option(kind="count", help="Only so many cases of each golden set."),
    "baseline": Option(help="Run to compare with: RUN, branch:NAME or pooled."),
    "report": Option(kind="file", help="Write the HTML report to this file."),
    "no-gate": Option(kind="flag", help="Score only: no gate, no verdict."),
    "store": Option(table="", help="Folder of the store."),
    "concurrency": Option(kind="count", table="run", help="Cases in flight, over all workers."),
    "seed": Option(kind="count", table="run", help="For draws, and sent to the models."),
    "max-cost": Option(
        kind="usd",
        table="run",
        key="max_cost_usd",
        help="US dollars after which no further call is made.",
    ),
}


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("evalkit", "LLM evaluation (evalkit)")
    group.addoption(
        "--llm-eval", action="store_true", help="Run golden sets and tests marked llm_eval."
    )
    actions = {"list": "append", "flag": "store_true"}
    for name, option in OPTIONS.items():
        action = actions.get(option.kind, "store")
        group.addoption(f"--llm-eval-{name}", action=action, default=None, help=option.help)
        kind: Any = {"list": "args", "flag": "bool"}.get(option.kind, "string")
        described = f"{option.help} (as --llm-eval-{name})"
        parser.addini(f"llm_eval_{_snake(name)}", described, type=kind, default=None)


class Options:
    """The options of this session."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings

    def value(self, name: str) -> Any:
        """The option's value in its type, or None. Raises UsageError where it has another."""
        return self.found(name)[0]

    def found(self, name: str) -> tuple[Any, Source]:
        """The option's value, and where it is from."""
        option = OPTIONS[name]
        written: dict[Source, Any] = {
            "command line": self._config.getoption(f"--llm-eval-{name}"),
            "environment": os.environ.get("EVALKIT_" + _snake(name).upper()),
            "configuration": self._configured(name),
            "ini file": self._config.getini(f"llm_eval_{_snake(name)}"),
        }
        for source, value in written.items():
            if value not in (None, "", [], ()):
                return self._read(name, option, value, source), source
        return None, "default"

    def described(self) -> list[str]:
        """`name: value (where it is from)` of each option that somebody gave."""
        shown = []
        for name in OPTIONS:
            value, source = self.found(name)
            if source != "default":
                text = " ".join(value) if isinstance(value, tuple) else value
                place = source if source != "configuration" else self._file()
                shown.append(f"{name}: {text} ({place})")
        return shown

    def _configured(self, name: str) -> Any:
        """What evalkit's configuration says, where that is not the default."""
        option = OPTIONS[name]
        table = getattr(self._settings, option.table) if option.table else self._settings
        key = option.key or _snake(name)
        default = next(field.default for field in fields(table) if field.name == key)
        value = getattr(table, key)
        return None if value == default else value

    def _file(self) -> str:
        return self._settings.path.name if self._settings.path else "configuration"

    def _read(self, name: str, option: Option, value: Any, source: Source) -> Any:
        if option.kind == "list":
            return tuple(value.split() if isinstance(value, str) else value)
        if option.kind == "flag":
            return value.lower() in YES if isinstance(value, str) else bool(value)
        if option.kind == "file":
            return self._folder(source) / value
        if option.kind in ("count", "usd"):
            return self._number(name, option, value, source)
        return str(self._folder(source) / value) if name == "store" else value

    def _number(self, name: str, option: Option, value: Any, source: Source) -> float:
        least = 0 if option.kind == "usd" or name == "seed" else 1
        try:
            number = float(value) if option.kind == "usd" else int(value)
        except ValueError:
            number = -1
        if not least <= number < (2**63 if name == "seed" else float("inf")):  # as the store has it
            what = "an amount of US dollars" if option.kind == "usd" else "a whole number"
            most = f" to {2**63 - 1}" if name == "seed" else " up"
            raise pytest.UsageError(
                f"--llm-eval-{name} ({source}): {value!r} is not {what} from {least}{most}."
            )
        return number

    def _folder(self, source: Source) -> Path:
        """What a relative path is relative to."""
        if source == "configuration":
            return self._settings.root
        if source == "ini file":
            return self._config.rootpath
        return Path(self._config.invocation_params.dir)


def _snake(name: str) -> str:
    return name.replace("-", "_")
