"""What `--ray` says where there is no Ray, or no cluster; nothing is started or written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evalkit.cli.main import main
from evalkit.store.views import open_store
from tests.project import write_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path, cases=2)


def test_ray_that_is_not_installed_is_named_with_its_extra(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    for command in ("run", "sample"):
        assert main([command, "--config", str(project / "evalkit.toml"), "--ray", "local"]) == 2

        assert "pip install 'evalkit[ray]'" in capsys.readouterr().err
    assert open_store(project / ".evalkit").runs() == []


def test_what_cannot_go_together_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "--config", str(project / "evalkit.toml")]

    assert main([*command, "--workers", "2"]) == 2
    assert "--workers belongs to --ray" in capsys.readouterr().err

    assert main([*command, "--ray", "auto", "--batch"]) == 2
    assert "--ray takes neither --batch nor --record" in capsys.readouterr().err


def test_rays_client_protocol_is_refused_with_what_to_do(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed here: make ray")
    command = ["run", "--config", str(project / "evalkit.toml"), "--ray", "ray://head:10001"]

    assert main(command) == 2

    assert "ray job submit" in capsys.readouterr().err
