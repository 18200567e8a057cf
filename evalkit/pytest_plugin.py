"""pytest plugin: golden sets as items under `--llm-eval`; silent without it.

Loaded in every pytest run of its environment, so nothing heavy is imported here and
nothing is done until the option is given. The work is in `pytest_session`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING, Any

import pytest

from evalkit.pytest_options import add_options

if TYPE_CHECKING:
    from evalkit.call.orchestrator import Orchestrator
    from evalkit.pytest_session.hooks import EvalSession
    from evalkit.records import CallRecord

SESSION = "evalkit-session"
MARKER = (
    "llm_eval(golden_set=None): evaluates an LLM feature; runs under --llm-eval only. With "
    "golden_set, a function that takes `case` or `record` runs over all its cases."
)


class AsWritten:
    """Imports evalkit's modules as they are: there is no assertion for pytest to rewrite.

    It would, in every module of a package with a plugin, and leave aside the bytecode that is
    there: seconds, in the first session of an environment.
    """

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, path, target) if name.startswith("evalkit.") else None


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    if config.getoption("--llm-eval"):
        sys.meta_path.insert(0, AsWritten)
        config.add_cleanup(lambda: sys.meta_path.remove(AsWritten))
        from evalkit.errors import EvalkitError
        from evalkit.pytest_session.hooks import register

        try:
            register(config, name=SESSION)
        except EvalkitError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--llm-eval"):
        return
    skip = pytest.mark.skip(reason="needs --llm-eval")
    for item in items:
        if item.get_closest_marker("llm_eval"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def evalkit_orchestrator(request: pytest.FixtureRequest) -> Iterator[Orchestrator]:
    """The orchestrator of this project's configuration, as production builds it."""
    from evalkit.pytest_session.project import settings_of
    from evalkit.pytest_session.shared import SharedOrchestrator

    orchestrator = SharedOrchestrator(settings_of(request.config))
    yield orchestrator
    orchestrator.close()


@pytest.fixture
def evalkit_record(request: pytest.FixtureRequest) -> Callable[..., CallRecord]:
    """`evalkit_record(case)`: what one call for a case, or a plain input, left behind.

    `model=` and `prompt=` ask another pair, `feature=` another feature than the marker's
    golden set is for.
    """
    session: EvalSession | None = request.config.pluginmanager.get_plugin(SESSION)
    if session is None:
        pytest.skip("needs --llm-eval")

    def record(case: Any, **asked: str) -> CallRecord:
        return session.record_of(request.node, case, **asked)

    return record
