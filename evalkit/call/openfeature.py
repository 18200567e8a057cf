"""Flags through OpenFeature, both ways; needs the extra `evalkit[openfeature]`.

`OpenFeatureFlags` asks whatever provider the application has set (flagd, a vendor's).
`EvalkitProvider` lets the rest of the application ask evalkit's own flags. A flag is a
boolean; the prompt and the model of its arm are its metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.call.flags import ON, Flags, Variant, as_json
from evalkit.errors import ConfigError

try:
    from openfeature import api
    from openfeature.client import OpenFeatureClient
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.exception import ErrorCode
    from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
    from openfeature.provider import AbstractProvider, Metadata
except ImportError:
    raise ConfigError(
        "flags through OpenFeature need a package that is not installed. "
        "Install it: pip install 'evalkit[openfeature]'"
    ) from None


class OpenFeatureFlags:
    """A source of flags like `Flags`, answered by the application's OpenFeature provider."""

    def __init__(self, client: OpenFeatureClient | None = None) -> None:
        self.errors = 0
        """Questions that the provider could not answer."""
        self._client = client or api.get_client("evalkit")
        self._last: dict[str, Variant] = {}

    def variant(self, name: str, *, user_id: str | None) -> Variant:
        """What the provider says; its last answer for the flag when it cannot say, else on."""
        context = EvaluationContext(targeting_key=user_id)
        details = self._client.get_boolean_details(name, True, context)
        if details.error_code is not None:
            if details.error_code != ErrorCode.FLAG_NOT_FOUND:
                self.errors += 1
                return self._last.get(name, ON)
            return ON
        variant = Variant(
            enabled=details.value,
            arm=details.variant or ("on" if details.value else "off"),
            prompt=_text(details.flag_metadata.get("prompt")),
            model=_text(details.flag_metadata.get("model")),
        )
        self._last[name] = variant
        return variant


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


class EvalkitProvider(AbstractProvider):
    """An OpenFeature provider over evalkit's flags; the targeting key is the user.

    As a boolean a flag is whether it is on, as a string its arm, as an object all of it.
    """

    def __init__(self, flags: Flags) -> None:
        super().__init__()
        self._flags = flags

    def get_metadata(self) -> Metadata:
        return Metadata(name="evalkit")

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        variant = self._variant(flag_key, evaluation_context)
        return _missing(default_value) if variant is None else _found(variant.enabled, variant)

    def resolve_string_details(
        self,
        flag_key: str,
        default_value: str,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[str]:
        variant = self._variant(flag_key, evaluation_context)
        return _missing(default_value) if variant is None else _found(variant.arm, variant)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        variant = self._variant(flag_key, evaluation_context)
        return _missing(default_value) if variant is None else _found(as_json(variant), variant)

    def resolve_integer_details(
        self,
        flag_key: str,
        default_value: int,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[int]:
        return _not_a_number(default_value)

    def resolve_float_details(
        self,
        flag_key: str,
        default_value: float,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[float]:
        return _not_a_number(default_value)

    def _variant(self, name: str, context: EvaluationContext | None) -> Variant | None:
        variant = self._flags.variant(name, user_id=context.targeting_key if context else None)
        return variant if self._flags.is_known(name) else None


def _found(value: Any, variant: Variant) -> FlagResolutionDetails[Any]:
    arm = {"prompt": variant.prompt, "model": variant.model}
    return FlagResolutionDetails(
        value=value,
        variant=variant.arm,
        reason=Reason.TARGETING_MATCH,
        flag_metadata={key: text for key, text in arm.items() if text is not None},
    )


def _missing(default: Any) -> FlagResolutionDetails[Any]:
    return FlagResolutionDetails(
        value=default, error_code=ErrorCode.FLAG_NOT_FOUND, reason=Reason.DEFAULT
    )


def _not_a_number(default: Any) -> FlagResolutionDetails[Any]:
    return FlagResolutionDetails(
        value=default, error_code=ErrorCode.TYPE_MISMATCH, reason=Reason.ERROR
    )
