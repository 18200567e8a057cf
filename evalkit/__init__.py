"""evalkit: did the quality of your LLM feature drop? Call, score, decide.

Importing this package loads nothing heavy; the names below load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from evalkit.call.orchestrator import Orchestrator as Orchestrator
    from evalkit.records import CallRecord as CallRecord
    from evalkit.records import CallResult as CallResult
    from evalkit.store.call_log import CallLog as CallLog
    from evalkit.store.views import open_store as open_store

_PUBLIC = {
    "CallLog": "evalkit.store.call_log",
    "CallRecord": "evalkit.records",
    "CallResult": "evalkit.records",
    "Orchestrator": "evalkit.call.orchestrator",
    "open_store": "evalkit.store.views",
}
__all__ = ["CallLog", "CallRecord", "CallResult", "Orchestrator", "__version__", "open_store"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'evalkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
