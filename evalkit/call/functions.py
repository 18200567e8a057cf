"""Functions of the user's own that the configuration names as `module:function`."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from evalkit.errors import ConfigError


def make_importable(folder: Path) -> None:
    """Let `module:function` name modules of the project, as running a script there does.

    At the end of the path: a project's module never stands before an installed one.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def load_named(name: str) -> Any:
    """What `module:attribute` names. Raises ConfigError when there is no such thing."""
    module, _, attribute = name.partition(":")
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{name!r} is not an importable module:function: {error}") from None
    return found


def load_function(name: str) -> Callable[..., Any]:
    """The function that `module:function` names. Raises ConfigError when there is none."""
    found = load_named(name)
    if not callable(found):
        raise ConfigError(f"{name!r} is not a function.")
    return found  # type: ignore[no-any-return]


class CancelledItself(RuntimeError):
    """A function of the user's own raised CancelledError, and nobody had cancelled its task."""


@contextmanager
def users_own() -> Iterator[None]:
    """Around functions of the user's own: raises CancelledItself for a cancellation of theirs.

    A task of theirs that somebody cancelled is a failure like any other. Let through, it
    would end a caller whom nobody cancelled.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise CancelledItself("it was cancelled by its own code") from error


async def call_function(function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """The function's answer, whether it is async or not; one that is not runs in a thread."""
    with users_own():
        if inspect.iscoroutinefunction(function):
            return await function(*args, **named)
        answer = await asyncio.to_thread(function, *args, **named)
        return await answer if inspect.isawaitable(answer) else answer
