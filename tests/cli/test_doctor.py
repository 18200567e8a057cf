"""`evalkit doctor`: what is missing, said without showing a secret."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.durable import open_sqlite
from evalkit.cli.main import main

Doctor = Callable[..., tuple[int, dict[str, dict[str, Any]]]]

SERVED = """
[providers.shop]
wire = "openai"
base_url = "{url}"
api_key_env = "SHOP_KEY"

[models.small]
provider = "shop"
id = "m"

[features.answer]
prompt = "answer@v1"
model = "small"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHOP_KEY", raising=False)
    (tmp_path / "prompts/answer").mkdir(parents=True)
    (tmp_path / "prompts/answer/v1.md").write_text("## user\n{{ text }}\n")
    return tmp_path


@pytest.fixture
def doctor(project: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    def run(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
        status = main(["doctor", *arguments, "--json"])
        found = json.loads(capsys.readouterr().out)
        return status, {one["about"]: one for one in found["findings"]}

    return run


@pytest.fixture
def server() -> Iterator[str]:
    """Takes the key `right` and no other."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            right = self.headers["Authorization"] == "Bearer right"
            self.send_response(200 if right and self.path == "/v1/models" else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}/v1"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_without_anything_the_embedded_model_is_enough(doctor: Doctor, project: Path) -> None:
    status, found = doctor()

    assert status == 0
    assert found["configuration"]["status"] == "note"
    assert found["provider embedded"]["status"] == "ok"
    assert found["store"]["detail"].startswith(str(project))
    assert not (project / ".evalkit").exists()


def test_a_key_that_is_not_set_is_named_by_its_variable(doctor: Doctor, project: Path) -> None:
    (project / "evalkit.toml").write_text(SERVED.format(url="https://shop.test/v1"))

    status, found = doctor()

    assert status == 2
    assert found["provider shop"]["status"] == "missing"
    assert "SHOP_KEY is not set" in found["provider shop"]["detail"]
    assert "provider embedded" not in found


def test_a_key_of_a_provider_that_no_feature_uses_yet_is_noted(
    doctor: Doctor, project: Path
) -> None:
    own = SERVED.format(url="http://127.0.0.1:9/v1").partition("[features.answer]")[0]
    mine = '[models.mine]\nprovider = "embedded"\nid = "embedded"\n'
    feature = '[features.answer]\nprompt = "answer@v1"\nmodel = "mine"\n'
    (project / "evalkit.toml").write_text(own + mine + feature)

    status, found = doctor()

    assert (status, found["provider shop"]["status"]) == (0, "note")
    assert "SHOP_KEY is not set" in found["provider shop"]["detail"]


def test_a_server_is_reached_only_when_asked_and_no_key_is_shown(
    doctor: Doctor, project: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "evalkit.toml").write_text(SERVED.format(url=server))
    monkeypatch.setenv("SHOP_KEY", "right")
    quiet = doctor()
    asked = doctor("--network")
    monkeypatch.setenv("SHOP_KEY", "wrong-and-secret")

    refused = doctor("--network")

    assert "network shop" not in quiet[1]
    assert (asked[0], asked[1]["network shop"]["status"]) == (0, "ok")
    assert (refused[0], refused[1]["network shop"]["status"]) == (2, "missing")
    assert "wrong-and-secret" not in json.dumps(refused)


def test_a_server_that_is_not_there_is_said_to_be_so(
    doctor: Doctor, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "evalkit.toml").write_text(SERVED.format(url="http://127.0.0.1:9/v1"))
    monkeypatch.setenv("SHOP_KEY", "right")

    status, found = doctor("--network")

    assert status == 2
    assert "does not answer" in found["network shop"]["detail"]


@pytest.mark.parametrize(
    ("target", "status"),
    [("tests.apps:by_rule", 0), ("tests.apps:gone", 2), ("no_such_module:answer", 2)],
)
def test_a_function_that_is_to_answer_can_be_imported(
    doctor: Doctor, project: Path, target: str, status: int
) -> None:
    (project / "evalkit.toml").write_text(
        f'[providers.app]\nwire = "python"\ntarget = "{target}"\n'
        '[models.small]\nprovider = "app"\n'
        '[features.answer]\nprompt = "answer@v1"\nmodel = "small"\n'
    )

    found = doctor()

    assert found[0] == status
    assert (target in found[1]["provider app"]["detail"]) == bool(status)


def test_mistakes_in_the_configuration_are_all_listed(doctor: Doctor, project: Path) -> None:
    (project / "evalkit.toml").write_text('storre = "x"\n[gate]\nalpha = 7\n')

    status, found = doctor()

    assert status == 2
    assert found["configuration"]["status"] == "missing"


def test_a_store_that_is_a_file_is_missing(doctor: Doctor, project: Path) -> None:
    (project / ".evalkit").write_text("")

    assert doctor()[1]["store"]["status"] == "missing"


@pytest.mark.parametrize("name", ["labels.sqlite", "cache/responses.sqlite"])
def test_a_database_of_the_store_that_is_damaged_is_named(
    doctor: Doctor, project: Path, name: str
) -> None:
    path = project / ".evalkit" / name
    connection = open_sqlite(path, "CREATE TABLE IF NOT EXISTS t (x)", version=1)
    connection.execute("INSERT INTO t VALUES (1)")
    connection.close()
    whole, found = doctor("--files")
    beside = [one.name for one in path.parent.glob("*.sqlite*")]
    path.write_bytes(path.read_bytes()[:4096])

    damaged, found_then = doctor("--files")

    assert (whole, damaged) == (0, 3)
    assert beside == [path.name]
    assert found["files"]["status"] == "ok"
    assert f"{name} is damaged" in found_then["files"]["detail"]


def test_a_mistake_in_a_golden_set_leads_to_check(doctor: Doctor, project: Path) -> None:
    (project / "golden_sets/x").mkdir(parents=True)
    (project / "golden_sets/x/golden_set.yaml").write_text("name: x\n")

    status, found = doctor()

    assert status == 2
    assert "golden_sets/x/golden_set.yaml:1" in found["content"]["detail"]
    assert "evalkit check" in found["content"]["fix"]


def test_people_get_a_line_for_each(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0

    said = capsys.readouterr().out
    assert said.endswith("nothing is missing\n")
    assert any(line.startswith("ok       python") for line in said.splitlines())
