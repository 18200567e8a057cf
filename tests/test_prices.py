"""Prices from the maintained table: looked up at load, null where it does not know the model."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.config import ConfigError, Price, ProviderSettings, load_settings
from evalkit.prices import maintained_price
from evalkit.records import Usage

TOML = """\
[providers.openai]
wire = "openai"

[models.mini]
provider = "openai"
id = "gpt-4o-mini"
price = "maintained"

[models.odd]
provider = "openai"
id = "no-such-model-1"
price = "maintained"

[models.own]
provider = "openai"
id = "gpt-4o-mini"
price = { input = 1, output = 2 }
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with TOML in it, on a machine without a network."""

    def refused(*arguments: Any) -> None:
        raise OSError("there is no network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evalkit.toml").write_text(TOML, encoding="utf-8")
    return tmp_path


@pytest.fixture
def table() -> Any:
    return pytest.importorskip("genai_prices", reason="the extra [prices] is not installed")


def test_the_table_prices_a_model_it_knows_without_a_network(project: Path, table: Any) -> None:
    models = load_settings().models

    assert models["mini"].price == Price(input=0.15, cached_input=0.075, output=0.6)
    assert models["own"].price == Price(input=1, output=2)


def test_a_model_the_table_does_not_know_has_no_price(project: Path, table: Any) -> None:
    odd = load_settings().models["odd"]

    assert (odd.price, odd.price_from) == (None, "maintained")


def test_check_and_doctor_say_which_model_has_no_price(
    project: Path, table: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["check"])

    checked = capsys.readouterr().out
    assert status == 0
    assert checked.startswith("note: evalkit.toml:12: models.odd.price: the maintained table does")
    assert '"no-such-model-1"' in checked

    main(["doctor"])

    assert '"no-such-model-1"' in capsys.readouterr().out


def test_without_the_extra_the_fault_names_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)

    with pytest.raises(ConfigError) as caught:
        load_settings()

    assert [str(p) for p in caught.value.problems] == [
        f"evalkit.toml:{line}: models.{name}.price: the maintained table is not installed. "
        "Install it: pip install 'evalkit[prices]'."
        for line, name in ((7, "mini"), (12, "odd"))
    ]


def test_a_typing_error_names_the_nearest(project: Path) -> None:
    (project / "evalkit.toml").write_text(TOML.replace('"maintained"', '"maintaned"'))

    with pytest.raises(ConfigError, match=r'models\.mini\.price .* Did you mean "maintained"'):
        load_settings()


@pytest.mark.parametrize(
    ("wire", "url", "model_id"),
    [
        ("openai", "https://api.openai.com/v1", "gpt-4o-mini-2024-07-18"),
        ("anthropic", "https://api.anthropic.com", "claude-3-5-haiku-latest"),
        ("openai", "http://127.0.0.1:4000/v1", "gpt-4o-mini"),
        ("openai", None, "gpt-4o-mini"),
    ],
    ids=["dated", "anthropic", "behind a gateway", "no address"],
)
def test_a_model_is_found_by_its_server_or_by_its_id_alone(
    table: Any, wire: str, url: str | None, model_id: str
) -> None:
    price = maintained_price(model_id, ProviderSettings(name="p", wire=wire, base_url=url))

    assert price is not None
    assert 0 < price.input < price.output


def test_a_price_that_rises_with_the_prompt_holds_up_to_there_and_is_unknown_above(
    table: Any,
) -> None:
    google = ProviderSettings(name="p", wire="openai")

    price = maintained_price("gemini-2.5-pro", google)

    assert price is not None
    assert price.up_to is not None
    short = Usage(prompt_tokens=price.up_to, completion_tokens=1)
    long = Usage(prompt_tokens=price.up_to + 1, completion_tokens=1)
    assert price.cost_usd(short)
    assert price.cost_usd(long) is None
