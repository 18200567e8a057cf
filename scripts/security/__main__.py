"""Run the security linters over the checkout, offline, and print one table: 0 findings or exit 1.

python -m scripts.security                  what `make security` runs
python -m scripts.security --keep-secrets   after looking at each: note what is no secret
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RULES = Path(__file__).with_name("semgrep.yaml")
KNOWN = Path(__file__).with_name("known_secrets.json")
"""File -> hashes of texts in it that look like secrets and are none, as tests have them."""
CODE = ("evalkit", "scripts")
WORKFLOWS = (".github", "scaffold/github", "action.yml")
TIMEOUT_S = 600


class Missing(Exception):
    """A tool is not installed."""


def tool(name: str) -> str:
    """Path of a tool: where `make security` installs it, else beside this Python or on the PATH."""
    folders = (ROOT / ".venv-security" / "bin", Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join(map(str, folders))) or shutil.which(name)
    if found is None:
        raise Missing(name)
    return found


def run(*command: str, fine: tuple[int, ...] = (0,)) -> str:
    """Output of a tool; RuntimeError when it failed for another reason than findings."""
    environment = os.environ | {"SEMGREP_SEND_METRICS": "off", "NO_COLOR": "1"}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment
    )
    if done.returncode not in fine:
        raise RuntimeError(f"{command[0]}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


# --- one function for each tool: the findings, a line each ----------------------------


def bandit() -> list[str]:
    said = run(tool("bandit"), "-q", "-c", "pyproject.toml", "-f", "json", "-r", *CODE, fine=(0, 1))
    return [
        f"{one['filename']}:{one['line_number']}: {one['test_id']} {one['issue_text']}"
        for one in json.loads(said)["results"]
    ]


def semgrep() -> list[str]:
    options = ("--metrics", "off", "--disable-version-check", "--quiet", "--json")
    said = run(tool("semgrep"), "scan", "--config", str(RULES), *options, *CODE)
    found = json.loads(said)
    return [
        f"{one['path']}:{one['start']['line']}: {one['check_id'].rpartition('.')[2]}: "
        f"{one['extra']['message']}"
        for one in found["results"]
    ]


def zizmor() -> list[str]:
    paths = [path for path in WORKFLOWS if (ROOT / path).exists()]
    command = [tool("zizmor"), "--offline", "--no-progress", "--format", "json", *paths]
    said = run(*command, fine=(0, 11, 12, 13, 14))
    return [
        f"{one['locations'][0]['symbolic']['key']}: {one['ident']}: {one['desc']}"
        for one in json.loads(said)
    ]


def detect_secrets() -> list[str]:
    known = json.loads(KNOWN.read_text(encoding="utf-8")) if KNOWN.exists() else {}
    return [
        f"{path}:{one['line_number']}: {one['type']}. A real one: take it out, and revoke it. "
        "None: python -m scripts.security --keep-secrets"
        for path, found in suspects().items()
        for one in found
        if one["hashed_secret"] not in known.get(path, ())
    ]


def suspects() -> Mapping[str, list[dict[str, object]]]:
    """What looks like a secret in the files that git knows."""
    files = [path for path in run("git", "ls-files").splitlines() if (ROOT / path).is_file()]
    files = [path for path in files if Path(path) != KNOWN.relative_to(ROOT)]
    found: Mapping[str, list[dict[str, object]]]
    found = json.loads(run(tool("detect-secrets"), "scan", "--all-files", *files))["results"]
    return found


def keep_secrets() -> None:
    kept = {
        path: sorted({str(one["hashed_secret"]) for one in found})
        for path, found in sorted(suspects().items())
    }
    KNOWN.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


TOOLS: Mapping[str, Callable[[], list[str]]] = {
    "bandit": bandit,
    "semgrep": semgrep,
    "zizmor": zizmor,
    "detect-secrets": detect_secrets,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.security")
    parser.add_argument("--keep-secrets", action="store_true")
    parser.add_argument("tools", nargs="*", metavar="TOOL", help=f"of {', '.join(TOOLS)}")
    asked = parser.parse_args()
    if asked.keep_secrets:
        keep_secrets()
    status = 0
    for name in asked.tools or TOOLS:
        try:
            found = TOOLS[name]()
        except Missing:
            print(f"{name:15} is not installed: `make security` does that")
            status = 2
            continue
        print(f"{name:15} {len(found)} findings")
        print("".join(f"  {line}\n" for line in found), end="")
        status = status or bool(found)
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
