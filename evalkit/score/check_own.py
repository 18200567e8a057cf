"""The user's own check: a Python function that gets the answer and gives a score.

The one check that runs code a golden set names; the golden set's author is trusted with
that, the answer is not. What the function raises or returns amiss is the check's
fault, kept with its place, and never a score.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evalkit.records import Answer
from evalkit.score.check_reading import (
    CheckFault,
    Measure,
    Measured,
    Params,
    short,
    without_surrogates,
)


def python(params: Params, base: Path) -> Measure:
    name = params["function"]
    function = load_function(name, base)

    def measure(answer: Answer) -> Measured:
        try:
            # What it does to the answer is not to be stored, nor seen by the next scorer.
            returned = function(copy.deepcopy(answer))
        except (Exception, SystemExit) as error:
            raise CheckFault("python", f"{name} raised {_where(error)}") from error
        return _own_result(returned, name)

    return measure


def _own_result(returned: Any, name: str) -> Measured:
    passed, reason = None, ""
    if isinstance(returned, Mapping):
        passed, reason = returned.get("passed"), str(returned.get("reason") or "")[:1000]
        returned = returned.get("score", passed)
    if isinstance(returned, bool):
        returned = float(returned)
    if (
        not isinstance(returned, (int, float))
        or not 0 <= returned <= 1
        or not isinstance(passed, (bool, type(None)))
    ):
        if inspect.iscoroutine(returned):
            returned.close()
        raise CheckFault(
            "python",
            f"{name} returned {short(returned)}; a bool, a number from 0 to 1, or a dict with "
            '"score" or "passed" (and "reason") is wanted',
        )
    fact = without_surrogates(reason) or f"{name} gave {returned:g}"
    return Measured(float(returned), fact, passed)


def _where(error: BaseException) -> str:
    """An exception in one line, with the place in the user's own code."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace else ""
    return f"{type(error).__name__}: {_words(error)}{place}"


def _words(error: BaseException) -> str:
    try:
        return without_surrogates(str(error))[:300]
    except Exception:  # its text is the user's own code, too
        return ""


def load_function(target: str, base: Path) -> Callable[[Answer], Any]:
    """The user's function, from an importable module or from a file beside the golden set.

    Raises ValueError saying what is missing.
    """
    module_name, _, name = target.rpartition(":")
    try:
        module = (
            _load_file(base / module_name)
            if module_name.endswith(".py")
            else importlib.import_module(module_name)
        )
    except (Exception, SystemExit) as error:
        raise ValueError(f"function {target}: cannot be imported: {_where(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"function {target}: there is no function {name} in {module_name}")
    if inspect.iscoroutinefunction(function):
        raise ValueError(f"function {target}: is async; a check is a plain function")
    return function  # type: ignore[no-any-return]


def _load_file(path: Path) -> Any:
    name = f"evalkit_check_{path.stem}_{abs(hash(str(path.resolve()))):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def source_of(target: str, base: Path) -> str:
    """Source of the file the function is in: helpers beside it count; "" when there is none."""
    try:
        return inspect.getsource(sys.modules[load_function(target, base).__module__])
    except (OSError, TypeError, KeyError):
        return ""
