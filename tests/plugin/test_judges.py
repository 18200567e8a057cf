"""A judge that nobody held to people's labels fails no case under pytest."""

from __future__ import annotations

from evalkit.store.judges import save_figure
from evalkit.store.views import open_store
from tests.plugin.conftest import Project

OWN = """
[providers.own]
wire = "embedded"
[models.ruler]
provider = "own"
id = "hashed-ngrams"
price = { input = 0.0, output = 0.0 }
"""
FITS = """\
name: fits
version: v1
model: ruler
inputs: [reference]
null_answers: allowed
rubric: [{name: fits, scale: 0 or 1, description: Does the answer say what the reference says?}]
pass_at: 1.0
"""


def test_a_must_pass_metric_fails_a_case_only_by_a_calibrated_judge(project: Project) -> None:
    with (project.path / "evalkit.toml").open("a", encoding="utf-8") as file:
        file.write(OWN)
    (project.path / "judges").mkdir()
    (project.path / "judges" / "fits.yaml").write_text(FITS, encoding="utf-8")
    golden = project.path / "golden_sets" / "tickets" / "golden_set.yaml"
    text = golden.read_text(encoding="utf-8")
    metric = "  - {name: fits, judge: fits, must_pass: true}\ncases: c"
    golden.write_text(text.replace("cases: c", metric), encoding="utf-8")
    careless = ("--llm-eval-prompt", "classify@v2", "--llm-eval-no-gate")

    before = project.eval(*careless)
    store = open_store(project.path / ".evalkit")
    [row] = store.sql(
        "SELECT scorer_version, count(*) FILTER (NOT passed) AS failed FROM scores "
        "WHERE metric = 'fits' GROUP BY ALL"
    )
    figure = {"overall": {"n": 40, "kappa": {"value": 0.9}}}
    save_figure(store, "fits", row["scorer_version"], figure)
    after = project.eval(*careless)

    assert row["failed"] > 0
    assert before.ret == 0
    assert before.parseoutcomes()["below"] >= row["failed"]
    assert after.ret == 1
    assert after.parseoutcomes()["failed"] == row["failed"]
