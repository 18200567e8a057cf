"""An application in this process: a function gets the feature's input and answers.

`target = "module:function"`, sync (then in a thread) or async. It is called with the
input, and with `messages` when it has a parameter of that name. It returns text, a dict
or list (taken as JSON), or an object with `text` and perhaps `usage`.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from typing import Any

from evalkit.call.functions import users_own
from evalkit.call.providers.http import as_text
from evalkit.call.providers.replies import count, quoted
from evalkit.call.providers.requests import read_options
from evalkit.call.snapshot import snapshot
from evalkit.config import ProviderSettings
from evalkit.errors import CallError
from evalkit.records import Event, Finish, ModelRequest, TextDelta, Usage

log = logging.getLogger(__name__)


class PythonProvider:
    """Calls the target. A sync one that is cancelled runs on in its thread, unheard."""

    def __init__(self, settings: ProviderSettings) -> None:
        read_options(settings, {})
        self._target = settings.target or ""
        self._max_threads = settings.max_in_flight
        self._function: Callable[..., Any] | None = None
        self._wants_messages = False
        self._threads: ThreadPoolExecutor | None = None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        answer, usage = _read(await self._call(request), self._target)
        if answer:
            yield TextDelta(answer)
        yield Finish(finish_reason="stop", usage=usage, served_model=None)

    async def aclose(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)

    async def _call(self, request: ModelRequest) -> Any:
        """What the target returns.

        Its exception counts as `server`, like the 500 of the same application behind
        HTTP: worth a retry, and the breaker spares the other cases a broken one.
        """
        call = self._bound(request)
        try:
            with users_own():
                if inspect.iscoroutinefunction(self._function):
                    return await call()
                error, result = await self._in_thread(call)
                if error is not None:
                    raise error
                return await result if inspect.isawaitable(result) else result
        except CallError:
            raise
        except (Exception, SystemExit) as error:
            log.warning("%s raised %s", self._target, type(error).__name__, exc_info=True)
            told = f"{self._target} raised {type(error).__name__}: {quoted(str(error))}"
            raise CallError("server", told) from None

    def _bound(self, request: ModelRequest) -> Callable[[], Any]:
        if self._function is None:
            self._function = _load(self._target)
            self._wants_messages = _has_parameter(self._function, "messages")
        # The application may do with it what it likes: the record and a retry have their own.
        input = snapshot(request.input)
        if self._wants_messages:
            return partial(self._function, input, messages=list(request.messages))
        return partial(self._function, input)

    async def _in_thread(
        self, call: Callable[[], Any]
    ) -> tuple[BaseException | None, Any | Awaitable[Any]]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._max_threads, thread_name_prefix="evalkit")
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, context.run, _outcome, call)


def _outcome(call: Callable[[], Any]) -> tuple[BaseException | None, Any]:
    """Result or exception as values: a future cannot carry StopIteration."""
    try:
        return None, call()
    except StopIteration as error:
        wrapped = RuntimeError(repr(error))
        wrapped.__cause__ = error
        return wrapped, None
    except (Exception, SystemExit) as error:
        return error, None


def _load(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise CallError("not_found", f"target {target!r} cannot be imported: {error}") from None
    if not callable(function):
        raise CallError("not_found", f"target {target!r} is not a function")
    return function  # type: ignore[no-any-return]


def _has_parameter(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _read(result: Any, target: str) -> tuple[str, Usage]:
    """The answer and its tokens, where the function counts them."""
    if result is None or isinstance(result, (str, dict, list)):
        return _as_text(result, target), Usage()
    if not hasattr(result, "text"):
        kind = type(result).__name__
        raise CallError("bad_reply", f"{target} returned {kind}, not text, a dict, or .text")
    usage = getattr(result, "usage", None)
    take = usage.get if isinstance(usage, Mapping) else partial(_attribute, usage)
    return _as_text(result.text, target), Usage(
        prompt_tokens=count(take("prompt_tokens")),
        completion_tokens=count(take("completion_tokens")),
        cached_prompt_tokens=count(take("cached_prompt_tokens")),
    )


def _attribute(usage: Any, name: str) -> Any:
    return getattr(usage, name, None)


def _as_text(value: Any, target: str) -> str:
    try:
        return as_text(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise CallError("bad_reply", f"{target} returned what is not JSON: {error}") from None
