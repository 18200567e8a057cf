"""Our own security rules find what they are for. `make security` runs them over the checkout."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts.security.__main__ import Missing, tool

ROOT = Path(__file__).resolve().parent.parent.parent
RULES = ROOT / "scripts/security/semgrep.yaml"

BROKEN = {
    "yaml-is-read-strictly": "yaml.safe_load(text)",
    "nothing-is-unpickled-or-executed": "pickle.loads(data)",
    "no-shell": "subprocess.run(line, shell=True)",
    "templates-are-sandboxed-or-escape": "jinja2.Environment()",
    "markup-is-a-literal": "Markup(answer)",
    "redirects-are-not-followed": "session.request('POST', url, data=body)",
    "hosts-are-spoken-to-in-few-places": "urllib.request.urlopen(url)",
    "no-telemetry": "import posthog",
    "certificates-are-checked": "httpx.get(url, verify=False)",
    "files-are-replaced-in-one-place": "os.replace(new, old)",
    "archives-are-not-unpacked": "archive.extractall(folder)",
    "secrets-are-drawn-from-secrets": "random.choice(letters)",
    "values-are-no-part-of-sql": "store.sql(f'SELECT * FROM runs WHERE run_id = {run_id}')",
}
"""Rule -> a line that breaks it."""


def needs(name: str) -> pytest.MarkDecorator:
    try:
        missing = not tool(name)
    except Missing:
        missing = True
    return pytest.mark.skipif(missing, reason=f"{name} is not installed: `make security` does that")


def test_every_rule_has_a_line_that_breaks_it() -> None:
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))["rules"]

    assert [rule["id"] for rule in rules] == list(BROKEN)


@pytest.mark.slow
@needs("semgrep")
def test_a_line_that_breaks_a_rule_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "evalkit" / "labelling"
    folder.mkdir(parents=True)
    for rule, line in BROKEN.items():
        (folder / f"{rule.replace('-', '_')}.py").write_text(f"{line}\n", encoding="utf-8")

    options = ("--metrics", "off", "--disable-version-check", "--quiet", "--json")
    command = [tool("semgrep"), "scan", "--config", str(RULES), *options]
    done = subprocess.run([*command, "."], cwd=tmp_path, capture_output=True, text=True)

    found = {
        (Path(one["path"]).stem.replace("_", "-"), one["check_id"].rpartition(".")[2])
        for one in json.loads(done.stdout)["results"]
    }
    assert {(rule, rule) for rule in BROKEN} <= found


@needs("detect-secrets")
def test_a_key_in_a_file_is_found(tmp_path: Path) -> None:
    key = "AKIA" + "Z7Q2M4X8P1L5N3B9"  # nothing real, and in two parts so that none is here
    (tmp_path / "settings.py").write_text(f'aws_key = "{key}"\n', encoding="utf-8")

    command = [tool("detect-secrets"), "scan", "--all-files", "settings.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)["results"]
