"""Names of files that are none: too long, circular, with NUL, pipes, patterns, not UTF-8."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evalkit.cli import main as cli
from evalkit.cli.main import main
from tests.project import write_project

HEADER = Path("golden_sets/tickets/golden_set.yaml")
ODD = {
    "NUL": r"a\0b",
    "too long": "x" * 300,
    "a path too long": "x/" * 3000,
    "a device": "/dev/stdin",
    "a folder": ".",
    "nothing": "",
    "half a character": r"\uD800",
    "two lines": r"a\nb",
}


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("key", ["cases: cases.jsonl", "schema: label.schema.json"])
def test_a_golden_set_that_names_no_file_is_refused_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, name: str
) -> None:
    write_project(tmp_path, cases=3)
    changed(tmp_path / HEADER, key, f'{key.split(":")[0]}: "{ODD[name]}"')
    config = ("--config", str(tmp_path / "evalkit.toml"))

    statuses = [main([command, *config]) for command in ("run", "check")]

    assert statuses == [2, 2]
    assert "golden_set.yaml:" in capsys.readouterr().err
    assert not (tmp_path / ".evalkit").exists()


def test_a_link_to_itself_is_no_file_of_cases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(tmp_path, cases=3)
    cases = tmp_path / "golden_sets/tickets/cases.jsonl"
    cases.unlink()
    cases.symlink_to("cases.jsonl")

    assert main(["run", "--config", str(tmp_path / "evalkit.toml")]) == 2
    assert 'there is no file "cases.jsonl"' in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a\\u0000b", "x" * 300, "x/" * 3000])
@pytest.mark.parametrize("key", ["store", "output_schema"])
def test_a_configuration_that_names_no_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, name: str
) -> None:
    config = write_project(tmp_path, cases=3) / "evalkit.toml"
    if key == "store":
        config.write_text(f'store = "{name}"\n' + config.read_text())
    else:
        changed(config, '"golden_sets/tickets/label.schema.json"', f'"{name}"')

    assert main(["run", "--config", str(config)]) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("command", [("logs", "import"), ("baseline", "import")])
def test_a_pipe_is_refused_and_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    write_project(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    assert main([*command, str(pipe), "--config", str(tmp_path / "evalkit.toml")]) == 2
    assert "is not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a?b", "a*b", "a[x]b"])
def test_a_name_that_is_a_pattern_is_that_file_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Beside it stands a store, and a results file, that the pattern would find."""
    for folder in (tmp_path / "axb", tmp_path / name):
        folder.mkdir()
        write_project(folder, cases=2 if folder.name == "axb" else 3)
        assert main(["run", "--config", str(folder / "evalkit.toml")]) == 0
    for score, file in ((0.0, "axb"), (1.0, name)):
        table = pa.table({"case_id": ["a"], "metric": ["m"], "score": [score]})
        pq.write_table(table, tmp_path / f"{file}.parquet")
    capsys.readouterr()

    config = ("--config", str(tmp_path / name / "evalkit.toml"))
    assert main(["query", "SELECT count(DISTINCT case_id) AS n FROM scores", *config]) == 0
    assert "3" in capsys.readouterr().out
    one, other = (str(tmp_path / f"{file}.parquet") for file in (name, "axb"))
    assert main(["gate", "--json", "--candidate", one, "--baseline", other, *config]) == 3
    assert '"candidate_mean": 1.0' in capsys.readouterr().out


def test_a_store_that_the_engine_could_not_read_is_refused_before_a_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "\udcff"
    try:
        folder.mkdir()
    except (OSError, UnicodeEncodeError):
        pytest.skip("every name is UTF-8 here")
    write_project(folder, cases=3)

    try:
        assert main(["run", "--config", str(folder / "evalkit.toml")]) == 2
        assert "is not UTF-8" in capsys.readouterr().err
        assert not (folder / ".evalkit").exists()
    finally:
        shutil.rmtree(os.fsencode(folder))


def test_a_fault_of_our_own_never_looks_like_a_regression(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python's own status for an error that nobody caught is 1: quality fell."""

    def fails(**_: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(cli.cli, "main", fails)

    assert main(["gate"]) == 3
    assert "ZeroDivisionError: of ours\nerror: evalkit itself failed." in capsys.readouterr().err
