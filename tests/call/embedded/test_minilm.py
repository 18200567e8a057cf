"""The local backend: real weights, no network."""

from __future__ import annotations

import socket
from typing import Any, NoReturn

import pytest

from evalkit.call.embedded import minilm
from evalkit.call.embedded.model import EmbeddedModel
from evalkit.errors import ConfigError
from tests.call.embedded.asking import choice, prompt

LABELS = "Labels:\n- delivery: the parcel has not arrived\n- refund: the money comes back"


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise OSError("no network in this test")


@pytest.fixture(scope="module")
def backend() -> minilm.MiniLMBackend:
    pytest.importorskip("onnxruntime", reason="the extra [local] is not installed")
    pytest.importorskip("tokenizers", reason="the extra [local] is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        return minilm.MiniLMBackend()


def test_it_knows_words_that_mean_the_same(backend: minilm.MiniLMBackend) -> None:
    spoken = EmbeddedModel(backend).reply(
        prompt(LABELS, "my shipment is nowhere to be seen"), choice("delivery", "refund")
    )

    assert spoken.text == '{"label": "delivery"}'


def test_a_vector_does_not_depend_on_the_texts_beside_it(backend: minilm.MiniLMBackend) -> None:
    alone = backend.index([["a lamp"]]).similarities("a light")
    beside = backend.index([["a lamp"], ["a very long text about parcels " * 20]])

    assert beside.similarities("a light")[0] > 0
    assert backend.index([["a lamp"]]).similarities("a light")[0] == alone[0]


def test_without_the_extra_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)

    with pytest.raises(ConfigError, match=r"pip install 'evalkit\[local\]'"):
        minilm.MiniLMBackend()
