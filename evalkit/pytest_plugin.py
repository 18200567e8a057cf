"""pytest plugin: golden sets as items under `--llm-eval`; silent without it.

Loaded in every pytest run of its environment, so nothing heavy is imported here and
nothing is done until the option is given. The work is in `pytest_session`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from evalkit.pytest_session import EvalSession

_OPTIONS: dict[str, tuple[str, str]] = {
    "model": ("append", "Model to evaluate; repeatable. Default: the feature's own."),
    "prompt": ("append", "Prompt version NAME@V; repeatable. Default: the feature's own."),
    "trials": ("store", "Executions of each case."),
    "baseline": ("store", "Run to compare with: RUN, branch:NAME or a file."),
    "store": ("store", "Folder of the store."),
    "report": ("store", "Write the HTML report to this file."),
    "max-cost": ("store", "US dollars after which no further call is made."),
    "limit": ("store", "Only so many cases of each golden set."),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("evalkit", "LLM evaluation (evalkit)")
    group.addoption(
        "--llm-eval", action="store_true", help="Run golden sets and tests marked llm_eval."
    )
    group.addoption("--llm-eval-no-gate", action="store_true", help="Score only; never fail.")
    for name, (action, text) in _OPTIONS.items():
        group.addoption(f"--llm-eval-{name}", action=action, default=None, help=text)
        described = f"{text} (as --llm-eval-{name})"
        if action == "append":
            parser.addini(_ini(name), described, type="args", default=None)
        else:
            parser.addini(_ini(name), described, type="string", default=None)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "llm_eval(golden_set): evaluates an LLM feature; runs under --llm-eval only"
    )
    if config.getoption("--llm-eval"):
        from evalkit.errors import EvalkitError
        from evalkit.pytest_session import EvalSession

        try:
            session = EvalSession(config)
        except EvalkitError as error:
            raise pytest.UsageError(str(error)) from None
        config.pluginmanager.register(session, "evalkit-session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--llm-eval"):
        return
    skip = pytest.mark.skip(reason="needs --llm-eval")
    for item in items:
        if item.get_closest_marker("llm_eval"):
            item.add_marker(skip)


def option(config: pytest.Config, name: str) -> tuple[Any, str]:
    """An option's value and where it came from: command line, environment, ini, or default."""
    given = config.getoption(f"--llm-eval-{name}")
    if given:
        return given, "command line"
    environment = os.environ.get("EVALKIT_" + name.upper().replace("-", "_"))
    if environment:
        repeatable = _OPTIONS[name][0] == "append"
        return (environment.split() if repeatable else environment), "environment"
    ini = config.getini(_ini(name))
    return (ini, "ini file") if ini else (None, "default")


def _ini(name: str) -> str:
    return "llm_eval_" + name.replace("-", "_")


@pytest.fixture(scope="session")
def evalkit_orchestrator(request: pytest.FixtureRequest) -> Any:
    """The orchestrator of this project's configuration, as production builds it."""
    from evalkit import Orchestrator
    from evalkit.config import load_settings

    return Orchestrator.from_config(load_settings(start=Path(request.config.rootpath)))


def session_of(config: pytest.Config) -> EvalSession | None:
    """The running evaluation, or None without `--llm-eval`."""
    session: EvalSession | None = config.pluginmanager.get_plugin("evalkit-session")
    return session
