"""Cases are reported without setup and teardown where nobody could tell the difference."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project
from tests.project import case

PHASES_SEEN = """
def pytest_runtest_logreport(report):
    with open("phases", "a") as file:
        print(report.nodeid.split("::")[1], report.when, report.outcome, file=file)
"""
LISTENER = """
def pytest_runtest_setup(item):
    with open("setups", "a") as file:
        print(item.name, file=file)
"""


def test_reports_are_those_of_the_long_way(project: Project) -> None:
    project.write_cases([case(0), case(1, must_pass=True), case(2)])
    options = ("--llm-eval-no-gate", "--llm-eval-prompt", "classify@v2")
    phases = project.path / "phases"

    project.pytester.makeconftest(PHASES_SEEN)
    short = project.eval_apart(*options)
    reported = phases.read_text("utf-8")
    phases.unlink()
    project.pytester.makeconftest(PHASES_SEEN + LISTENER)
    long = project.eval_apart(*options)

    assert phases.read_text("utf-8") == reported
    assert reported.splitlines()[3:6] == [
        "t-0001[small/classify@v2] setup passed",
        "t-0001[small/classify@v2] call failed",
        "t-0001[small/classify@v2] teardown passed",
    ]
    short.assert_outcomes(passed=2, failed=1)
    long.assert_outcomes(passed=2, failed=1)


def test_who_listens_to_the_phases_of_items_hears_those_of_cases(project: Project) -> None:
    project.pytester.makeconftest(LISTENER)

    project.eval_apart("--llm-eval-no-gate", "--llm-eval-limit=4")

    assert len((project.path / "setups").read_text("utf-8").splitlines()) == 4


def test_marks_that_a_conftest_gives_are_obeyed(project: Project) -> None:
    project.pytester.makeconftest(
        """
        import pytest

        def pytest_collection_modifyitems(items):
            items[0].add_marker(pytest.mark.skip(reason="not today"))
        """
    )

    result = project.eval("--llm-eval-no-gate", "-rs")

    result.assert_outcomes(passed=9, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*not today"])


@pytest.mark.parametrize("stop", [(), ("-x",)], ids=["to the end", "to the first failure"])
def test_fixtures_of_tests_before_and_after_are_torn_down_in_time(
    project: Project, stop: tuple[str, ...]
) -> None:
    project.write_cases([case(1, must_pass=True), *(case(n) for n in (2, 4, 6))])
    fixture = """
        import pytest

        @pytest.fixture(scope="{scope}", autouse=True)
        def thing():
            yield
            print("\\nend of {scope}")

        def test_own():
            pass
        """
    project.pytester.makepyfile(
        test_a=fixture.format(scope="session"), test_z=fixture.format(scope="module")
    )

    result = project.eval_apart(
        "-s", "-v", "--llm-eval-no-gate", "--llm-eval-prompt=classify@v2", *stop,
        "test_a.py", "golden_sets", "test_z.py",
    )  # fmt: skip

    result.assert_outcomes(failed=1, passed=1 if stop else 5)
    order = [line for line in result.outlines if "PASSED" in line or line.startswith("end of")]
    if stop:
        assert order[-1] == "end of session"
    else:
        assert order[-2:] == ["end of module", "end of session"]
    assert "ERROR" not in result.stdout.str()


def test_a_fixture_that_fails_to_end_is_an_error_after_a_stop_too(project: Project) -> None:
    project.write_cases([case(1, must_pass=True), *(case(n) for n in (2, 4, 6))])
    project.pytester.makepyfile(
        test_a="""
        import pytest

        @pytest.fixture(scope="session")
        def thing():
            yield
            raise OSError("cannot end")

        def test_own(thing):
            pass
        """
    )

    result = project.eval_apart(
        "-x", "--llm-eval-no-gate", "--llm-eval-prompt=classify@v2", "test_a.py", "golden_sets"
    )

    result.assert_outcomes(passed=1, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of t-0001*", "*OSError: cannot end"])


def test_what_an_application_prints_stands_with_the_case_that_waited_for_it(
    project: Project,
) -> None:
    project.write_cases([case(0, must_pass=True), case(2)])
    (project.path / "app.py").write_text(
        "def answer(input):\n    print('thinking')\n    return {'label': 'delivery'}\n", "utf-8"
    )
    config = project.path / "evalkit.toml"
    text = config.read_text("utf-8").replace("tests.apps:by_prompt", "app:answer")
    config.write_text(text, encoding="utf-8")

    result = project.eval_apart("--llm-eval-no-gate", "--llm-eval-concurrency=1")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*Captured stdout call*", "thinking"])
    assert not [line for line in result.outlines if line.endswith(".thinking")]


def test_evalkits_own_modules_are_imported_as_they_are(project: Project) -> None:
    project.pytester.makeconftest(
        'import pytest\npytest.register_assert_rewrite("evalkit.score", "evalkit.store")'
    )
    project.pytester.makepyfile(
        test_own="""
        import evalkit.score.runner, evalkit.store.sealing

        def test_own():
            loaders = [evalkit.score.runner.__loader__, evalkit.store.sealing.__loader__]
            assert not [one for one in loaders if "rewrite" in type(one).__module__]
        """
    )

    result = project.eval_apart("test_own.py")

    result.assert_outcomes(passed=1)
