"""Which value of an option counts, and that the header says where it is from."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project


def header(result: pytest.RunResult) -> str:
    (line,) = [line for line in result.stdout.lines if line.startswith("evalkit: ")]
    return line


def configure(project: Project, table: str) -> None:
    config = project.path / "evalkit.toml"
    config.write_text(config.read_text("utf-8") + table, encoding="utf-8")


def ask_for_a_key(project: Project) -> None:
    config = project.path / "evalkit.toml"
    with_key = 'wire = "openai"\napi_key_env = "KEY_OF_NOBODY"'
    config.write_text(config.read_text("utf-8").replace('wire = "openai"', with_key), "utf-8")


def test_the_nearer_one_counts(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    ini = "[pytest]\nllm_eval_limit = 1\n"
    project.pytester.makeini(ini)
    shown = [header(project.eval("--llm-eval-no-gate"))]

    configure(project, "\n[pytest]\nlimit = 2\n")
    shown.append(header(project.eval("--llm-eval-no-gate")))
    monkeypatch.setenv("EVALKIT_LIMIT", "3")
    shown.append(header(project.eval("--llm-eval-no-gate")))
    result = project.eval("--llm-eval-no-gate", "--llm-eval-limit=4")
    shown.append(header(result))

    result.assert_outcomes(passed=4)
    assert ["limit: 1 (ini file)" in shown[0], "limit: 2 (evalkit.toml)" in shown[1]] == [True] * 2
    assert "limit: 3 (environment)" in shown[2]
    assert "limit: 4 (command line)" in shown[3]


def test_what_concerns_every_run_is_in_the_run_table(project: Project) -> None:
    config = project.path / "evalkit.toml"
    text = config.read_text("utf-8").replace("[run]", "[run]\nconcurrency = 3\nseed = 7")
    config.write_text(text, encoding="utf-8")

    result = project.eval("--collect-only")

    assert "concurrency: 3 (evalkit.toml)" in header(result)
    assert "seed: 7 (evalkit.toml)" in header(result)


def test_lists_flags_and_files_have_their_forms_everywhere(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(project, '\n[pytest]\nprompt = ["classify@v1", "classify@v2"]\nreport = "r.html"\n')
    monkeypatch.setenv("EVALKIT_NO_GATE", "yes")

    result = project.eval()

    assert "prompt: classify@v1 classify@v2 (evalkit.toml)" in header(result)
    assert "no-gate: True (environment)" in header(result)
    assert sum(result.parseoutcomes().values()) == 20
    assert (project.path / "r.html").exists()


@pytest.mark.parametrize("given", ["--llm-eval-limit=0", "--llm-eval-max-cost=nan"])
def test_a_number_that_is_none_is_a_usage_error(project: Project, given: str) -> None:
    result = project.eval(given)

    assert result.ret == 4
    result.stderr.fnmatch_lines([f"*{given.split('=')[0]} (command line): *from ? up*"])


def test_the_store_is_where_it_was_said(project: Project) -> None:
    result = project.eval("--llm-eval-no-gate", "--llm-eval-store", "elsewhere")

    assert (project.path / "elsewhere" / "runs").is_dir()
    assert not (project.path / ".evalkit").exists()
    assert "elsewhere (command line)" in header(result)


def test_the_configuration_is_the_one_nearest_to_the_arguments(project: Project) -> None:
    (project.path / "help").mkdir()
    for name in ("evalkit.toml", "prompts", "golden_sets"):
        (project.path / name).rename(project.path / "help" / name)

    result = project.eval("--llm-eval-no-gate", "help")

    result.assert_outcomes(passed=10)
    assert "evalkit: help/evalkit.toml, store: help/.evalkit" in header(result)


def test_without_a_configuration_the_header_says_where_it_was_looked_for(project: Project) -> None:
    (project.path / "evalkit.toml").unlink()

    result = project.eval("--collect-only")

    assert f"no evalkit.toml in {project.path} or above" in header(result)


def test_a_key_that_is_not_there_is_said_once_before_any_test_runs(served: Project) -> None:
    ask_for_a_key(served)

    result = served.eval()

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: environment variable KEY_OF_NOBODY is not set; *"])
    result.stdout.no_fnmatch_line("*FAILED*")


def test_a_test_may_bring_its_key_in_a_fixture(served: Project) -> None:
    ask_for_a_key(served)
    served.pytester.makepyfile(
        test_own="""
        import pytest

        @pytest.fixture(autouse=True, scope="session")
        def key():
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("KEY_OF_NOBODY", "secret-of-nobody")
                yield

        @pytest.mark.llm_eval(golden_set="tickets")
        def test_label(case, record):
            assert record.output
        """
    )

    served.eval("test_own.py").assert_outcomes(passed=10)
