"""`evalkit gate` and `evalkit baseline` from the command line: files, words, exit status."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.store.files import read_json, write_json
from evalkit.store.judges import judge_figure, save_figure
from evalkit.store.views import Store, open_store
from tests.decide.results import cases, changed, write_csv, write_run

Gate = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    (tmp_path / "evalkit.toml").write_text('store = ".evalkit"\n')
    monkeypatch.chdir(tmp_path)
    return open_store(tmp_path / ".evalkit")


@pytest.fixture
def gate(store: Store, capsys: pytest.CaptureFixture[str]) -> Gate:
    """Run `evalkit gate … --json`; the exit status and the verdict."""

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        status = main(["gate", *arguments, "--json"])
        verdict: dict[str, Any] = json.loads(capsys.readouterr().out)
        return status, verdict

    return run


def two_files(baseline: list[Any], candidate: list[Any]) -> list[str]:
    for name, scores in (("a.csv", baseline), ("b.csv", candidate)):
        write_csv(Path(name), [(f"c{n}", score) for n, score in enumerate(scores)])
    return ["--baseline", "a.csv", "--candidate", "b.csv"]


# --- exit status ------------------------------------------------------------------------


def test_a_pass_is_0(gate: Gate) -> None:
    status, verdict = gate(*two_files([1] * 100, [1] * 100))

    assert (status, verdict["verdict"]) == (0, "pass")


def test_a_regression_is_1(gate: Gate) -> None:
    status, verdict = gate(*two_files(*changed(10, 2, 88)))

    assert (status, verdict["verdict"]) == (1, "regression")


def test_a_failed_must_pass_case_is_1(gate: Gate, store: Store) -> None:
    write_run(store, "run-1", cases([1.0] * 80))
    write_run(store, "run-2", cases([0.0] + [1.0] * 79), must_pass_cases=["t-000"])

    status, verdict = gate()

    assert status == 1
    assert [c["verdict"] for c in verdict["comparisons"] if c["gate"]] == ["pass"]


def test_inconclusive_is_0_and_under_strict_3(gate: Gate) -> None:
    files = two_files([1] * 20, [1] * 20)

    assert gate(*files)[0] == 0
    assert gate(*files, "--strict")[0] == 3


def test_missing_scores_are_3(gate: Gate) -> None:
    status, verdict = gate(*two_files([1] * 100, [1] * 70 + [""] * 30))

    assert (status, verdict["verdict"]) == (3, "unmeasurable")


def test_no_baseline_is_3_unless_allowed(gate: Gate, store: Store) -> None:
    write_run(store, "run-1", cases([1.0] * 80))

    assert gate()[0] == 3
    assert gate("--allow-no-baseline")[0] == 0


@pytest.mark.parametrize("n_missing", [24, 80])
def test_a_candidate_that_was_not_measured_is_3_without_a_baseline_too(
    gate: Gate, store: Store, n_missing: int
) -> None:
    write_run(store, "run-1", cases([None] * n_missing + [1.0] * (80 - n_missing)))

    status, verdict = gate("--allow-no-baseline")

    assert (status, verdict["verdict"]) == (3, "unmeasurable")
    assert (
        f"{n_missing} of 80 scores of the candidate are missing"
        in verdict["comparisons"][0]["reason"]
    )


def test_an_empty_store_is_3_and_still_json(gate: Gate) -> None:
    status, verdict = gate()

    assert status == 3
    assert verdict["comparisons"] == []
    assert "no complete run" in verdict["notes"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--candidate", "gone.csv", "--baseline", "a.csv"], "gone.csv: no such file."),
        (["--candidate", "a.csv", "--baseline", "a.csv.gz"], "results are read from .csv, .jsonl"),
        (["--candidate", "a.csv"], "a candidate file needs a baseline"),
        (["--candidate", "run-9"], "'run-9' is neither a run"),
        (["--alpha", "2"], "Invalid value for '--alpha'"),
        (["--candidate", "bad.csv", "--baseline", "a.csv"], 'bad.csv:2: score "x" is not a number'),
        (["--store", "s3://bucket"], "only a folder can be a store"),
    ],
)
def test_what_cannot_be_meant_or_read_is_2(
    store: Store, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write_csv(Path("a.csv"), [("c1", 1)])
    write_csv(Path("bad.csv"), [("c1", "x")])
    Path("a.csv.gz").touch()

    status = main(["gate", *arguments])

    assert status == 2
    assert message in capsys.readouterr().err


# --- options ----------------------------------------------------------------------------


def test_tolerance_and_max_drop_move_the_verdict(gate: Gate) -> None:
    files = two_files(*changed(10, 2, 188))

    assert gate(*files)[0] == 1
    tolerated = gate(*files, "--tolerance", "0.05", "--max-drop", "0.1")[1]
    assert tolerated["verdict"] == "pass"
    assert tolerated["comparisons"][0]["tolerance"] == 0.05


def test_two_pairs_of_a_file_are_compared_by_name(gate: Gate) -> None:
    rows = [
        (f"c{n}", "label", "small", version, score)
        for version, fallen in (("v1", 1), ("v2", 0))
        for n, score in enumerate([fallen] * 15 + [1] * 60)
    ]
    write_csv(Path("both.csv"), rows, "case_id,metric,model,prompt_version,score")

    status, verdict = gate(
        "--candidate", "both.csv", "--compare", "small/classify@v2:small/classify@v1"
    )

    assert status == 1
    assert verdict["comparisons"][0]["baseline"]["prompt_version"] == "v1"


def test_the_verdict_has_exactly_the_promised_keys(gate: Gate) -> None:
    _, verdict = gate(*two_files(*changed(10, 2, 88)))

    assert {
        "verdict", "alpha", "correction", "comparisons", "must_pass_failures", "budget", "notes",
    } <= verdict.keys()  # fmt: skip
    comparison = verdict["comparisons"][0]
    assert {
        "golden_set", "metric", "tier", "slice", "baseline", "candidate", "n", "n_clusters",
        "trials", "baseline_mean", "candidate_mean", "delta", "ci", "p_value", "p_adjusted",
        "method", "verdict", "mde", "cases_needed", "missing", "regressed_cases",
        "improved_cases",
    } <= comparison.keys()  # fmt: skip
    assert {
        "baseline", "candidate", "excluded", "unpaired", "apart", "worst_case_verdict",
    } <= comparison["missing"].keys()  # fmt: skip
    assert {"run_id", "model", "prompt_version"} <= comparison["candidate"].keys()


def test_people_get_sentences_and_ci_gets_files(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    files = two_files(*changed(10, 2, 88))

    main(["gate", *files, "--junit", "out/j.xml", "--sarif", "s.sarif", "--markdown", "m.md"])

    output = capsys.readouterr()
    assert "quality fell by 8 points" in output.out
    assert output.out.splitlines()[0] == "regression: quality fell"
    assert Path("out/j.xml").read_text().startswith("<?xml")
    assert json.loads(Path("s.sarif").read_text())["version"] == "2.1.0"
    assert Path("m.md").read_text().startswith("### regression")
    assert not store.path.exists()


@pytest.mark.parametrize(("screen", "no_color", "coloured"), [
    (True, "", True), (True, "1", False), (False, "", False),
])  # fmt: skip
def test_colour_is_for_a_terminal_that_wants_it(
    store: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    screen: bool,
    no_color: str,
    coloured: bool,
) -> None:
    files = two_files(*changed(10, 2, 88))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: screen)
    monkeypatch.setenv("NO_COLOR", no_color)

    main(["gate", *files])

    first = capsys.readouterr().out.splitlines()[0]
    assert ("\x1b[" in first) is coloured
    assert "regression: quality fell" in first


# --- baseline ---------------------------------------------------------------------------


def test_a_baseline_is_set_listed_and_used(
    gate: Gate, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2, 3):
        write_run(store, f"run-{number}", cases([1.0] * 80))

    assert main(["baseline", "set", "run-1"]) == 0
    assert main(["baseline", "list", "--json"]) == 0

    listed = json.loads(capsys.readouterr().out)
    assert listed["baselines"] == [
        {"golden_set": "tickets", "feature": "classify-ticket", "run_id": "run-1"}
    ]
    assert gate()[1]["comparisons"][0]["baseline"]["run_id"] == "run-1"


def test_a_baseline_is_set_only_if_it_is_what_was_expected(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(store, "run-1", cases([1.0] * 8))
    write_run(store, "run-2", cases([1.0] * 8))

    assert main(["baseline", "set", "run-1", "--expect", "none"]) == 0
    assert main(["baseline", "set", "run-2", "--expect", "none"]) == 2
    assert "its baseline is run-1 by now, not none" in capsys.readouterr().err
    assert main(["baseline", "set", "run-2", "--expect", "run-1"]) == 0
    assert store.baselines.get("tickets", "classify-ticket") == "run-2"


def test_a_shard_is_not_set_as_a_baseline(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(store, "run-1", cases([1.0] * 8))
    path = store.path / "runs" / "run-1" / "manifest.json"
    write_json(path, read_json(path) | {"shard": {"number": 1, "of": 2}}, replace=True)

    assert main(["baseline", "set", "run-1"]) == 2
    assert "run-1 is shard 1 of 2" in capsys.readouterr().err
    assert store.baselines.all() == {}


def test_a_baseline_is_carried_to_another_store(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(store, "run-1", cases([1.0] * 80))
    main(["baseline", "set", "run-1"])

    assert main(["baseline", "export", "baseline.zip"]) == 0
    assert main(["baseline", "import", "baseline.zip", "--store", "other"]) == 0

    other = open_store(tmp_path / "other")
    assert other.baselines.get("tickets", "classify-ticket") == "run-1"
    write_run(other, "run-2", cases([0.0] * 80))
    capsys.readouterr()
    assert main(["gate", "--store", "other", "--json"]) == 1
    [comparison] = [
        c for c in json.loads(capsys.readouterr().out)["comparisons"] if c["slice"] is None
    ]
    assert comparison["baseline"]["run_id"] == "run-1"


def test_a_baseline_of_a_newer_evalkit_is_refused_before_anything_is_taken(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(store, "run-1", cases([1.0] * 8))
    main(["baseline", "set", "run-1"])
    main(["baseline", "export", "baseline.zip"])
    with zipfile.ZipFile("baseline.zip") as old, zipfile.ZipFile("newer.zip", "w") as newer:
        for name in old.namelist():
            text = old.read(name)
            newer.writestr(name, text.replace(b'"schema_version": ', b'"schema_version": 9'))

    assert main(["baseline", "import", "newer.zip", "--store", "other"]) == 2

    assert "newer evalkit" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_what_is_known_of_a_judge_is_carried_with_the_baseline(
    store: Store, tmp_path: Path
) -> None:
    figure = {"overall": {"n": 40, "kappa": {"value": 0.8}}}
    write_run(store, "run-1", cases([1.0] * 80))
    main(["baseline", "set", "run-1"])
    save_figure(store, "helpfulness", "abc:small+large", figure)

    assert main(["baseline", "export", "baseline.zip"]) == 0
    assert main(["baseline", "import", "baseline.zip", "--store", "other"]) == 0

    kept = judge_figure(open_store(tmp_path / "other"), "helpfulness", "abc:small+large")
    assert kept is not None
    assert kept["overall"] == figure["overall"]


def test_an_unfinished_run_is_no_baseline(store: Store) -> None:
    write_run(store, "run-1", cases([1.0] * 80), status="incomplete")

    assert main(["baseline", "set", "run-1"]) == 3


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b'{"baselines": 1}'])
def test_a_file_that_is_no_export_is_refused(store: Store, content: bytes) -> None:
    Path("x.zip").write_bytes(content)

    assert main(["baseline", "import", "x.zip"]) == 2
    assert not (store.path / "baselines.json").exists()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("created_at", None, "created_at must be text"),
        ("git", "main", "git must be a table"),
        ("versions", 1, "versions must be a table"),
        ("golden_sets", {"tickets": {"metrics": [7]}}, "golden_sets.tickets.metrics[0]"),
    ],
)
def test_a_baseline_whose_run_is_none_is_refused_and_damages_no_store(
    store: Store,
    capsys: pytest.CaptureFixture[str],
    key: str,
    value: object,
    said: str,
) -> None:
    write_run(store, "run-1", cases([1.0] * 80))
    main(["baseline", "set", "run-1"])
    main(["baseline", "export", "x.zip"])
    _change_manifest(Path("x.zip"), "runs/run-1/manifest.json", {key: value})
    capsys.readouterr()

    assert main(["baseline", "import", "x.zip", "--store", "other"]) == 2

    assert said in capsys.readouterr().err
    assert not list(Path("other").rglob("manifest.json"))


def _change_manifest(path: Path, name: str, changes: dict[str, object]) -> None:
    with zipfile.ZipFile(path) as archive:
        files = {one: archive.read(one) for one in archive.namelist()}
    files[name] = json.dumps(json.loads(files[name]) | changes).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for one, data in files.items():
            archive.writestr(one, data)


# --- speed ------------------------------------------------------------------------------


def test_a_thousand_cases_are_decided_in_little_time_and_without_heavy_imports(
    store: Store,
) -> None:
    files = two_files(*changed(20, 20, 960))
    code = (
        "import sys; from evalkit.cli.main import main; status = main(sys.argv[1:]);"
        "heavy = {'pandas', 'scipy.stats', 'rich', 'httpx', 'jinja2'} & set(sys.modules);"
        "print(sorted(heavy), file=sys.stderr); sys.exit(status)"
    )

    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, "gate", *files, "--json"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    took_s = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    assert took_s < 15  # CPU time on a slow machine; on others it is about one second


@pytest.mark.parametrize(
    "option", ["--alpha=nan", "--max-drop=nan", "--tolerance=nan", "--alpha=1e-320"]
)
def test_what_is_no_share_is_a_usage_error(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results = str(write_csv(tmp_path / "r.csv", [("a", 1), ("b", 0)]))

    assert main(["gate", "--candidate", results, "--baseline", results, option]) == 2

    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert option.split("=")[0] in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk here that is full")
@pytest.mark.parametrize("other", ["after.csv", "sub/../j.xml"])
def test_nothing_is_written_over_what_is_compared_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    rows = "case_id,metric,score\n" + "".join(f"c{n},m,1\n" for n in range(9))
    for name in ("before.csv", "after.csv"):
        (tmp_path / name).write_text(rows)
    files = ["--baseline", "before.csv", "--candidate", "after.csv"]

    status = main(["gate", *files, "--junit", "j.xml", "--markdown", other])

    assert status == 2
    assert f"--markdown {other}" in capsys.readouterr().err
    assert (tmp_path / "after.csv").read_text() == rows
    assert not (tmp_path / "j.xml").exists()


@pytest.mark.parametrize("kind", ["junit", "sarif", "markdown", "code-quality"])
def test_a_file_that_a_full_disk_does_not_take_is_no_usage_error(
    store: Store, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = two_files([1] * 100, [1] * 100)

    assert main(["gate", *files, f"--{kind}", "/dev/full"]) == 3
    assert f"--{kind} /dev/full: cannot be written: No space left" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk here that is full")
@pytest.mark.parametrize("command", [["--help"], ["gate", "--json"]])
def test_a_verdict_that_cannot_be_written_is_no_pass(tmp_path: Path, command: list[str]) -> None:
    results = str(write_csv(tmp_path / "r.csv", [(f"c{n}", n % 2) for n in range(80)]))
    sides = ["--candidate", results, "--baseline", results] if len(command) > 1 else []
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "evalkit", *command, *sides],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip

    assert done.returncode == 3
    assert done.stderr == "error: No space left on device.\n"
