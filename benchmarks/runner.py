"""The runner against a bare loop doing the same requests and checks, in the same run.

    python -m benchmarks.runner [--cases 2000] [--large 20000] [--json FILE]

A loopback provider in a process of its own answers after 50 ms. The bare loop is
aiohttp, a compiled JSON Schema, a regex, and nothing else: what the work costs when
nothing is recorded. evalkit does the same work with records, scores, journal and
Parquet. Wall, CPU and peak memory are those of the whole process, imports included. A long run
is sealed by a process beside it: CPU counts both, and so does the memory of the largest run,
where what they share counts once (the sum of their PSS, looked at ten times a second).

Wall time means waiting and computing. On a slow machine computing hides the waiting, and
the ratio of wall times becomes that of CPU; so where the bare loop takes more CPU than on
the machine that the bounds were set on, both run once more with answers as many times
slower. That pair is only printed: the bound is held to the first.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DELAY_MS = 50
IN_FLIGHT = 100
BOUND_WALL, BOUND_CPU, BOUND_MB = 1.5, 3.0, 150.0
BARE_CPU_S = 1.2 / 2000
"""CPU a case of the bare loop where the bounds were set, imports and all."""

SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["billing", "delivery", "other"]}},
    "required": ["label"],
    "additionalProperties": False,
}

JUDGE = """
name: always-pleased
version: v1
null_answers: allowed  # the loopback provider gives every answer the same grades
inputs: [input]
rubric:
  - name: helpfulness
    scale: 1 to 5
    description: How much of what the asker needed do they have, in a form they can use?
  - name: focus
    scale: 0 or 1
    description: Is the answer free of padding, repetition and talk about itself?
"""


@dataclass(frozen=True)
class Measured:
    """What one process took."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def measure(command: list[str], cwd: Path, *, together: bool = False) -> Measured:
    """Run one process to its end; with `together`, memory is that of its own processes, too.

    Raises CalledProcessError when it fails.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    looks: list[float] = []
    if together:
        looking = threading.Thread(target=_look_at_memory, args=(process.pid, looks))
        looking.start()
    errors = process.stderr.read()
    if together:
        looking.join()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.stderr.write(errors.decode())
        raise subprocess.CalledProcessError(process.returncode, command)
    peak_mb = max(looks) if together else usage.ru_maxrss / 1024
    return Measured(wall_s, usage.ru_utime + usage.ru_stime, peak_mb)


def _look_at_memory(pid: int, looks: list[float]) -> None:
    """MB of a process and its children, until it has ended (and is not yet waited for)."""
    while mb := _pss_mb(pid):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        looks.append(mb + sum(_pss_mb(int(child)) for child in children))
        time.sleep(0.1)


def _pss_mb(pid: int) -> float:
    try:
        found = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


def write_project(folder: Path, *, base_url: str, n_cases: int) -> None:
    """A project with one feature on the loopback provider, two checks and a judge."""
    golden = folder / "golden_sets" / "bench"
    golden.mkdir(parents=True)
    (folder / "prompts" / "bench").mkdir(parents=True)
    (folder / "judges").mkdir()
    (folder / "judges" / "always-pleased.yaml").write_text(JUDGE)
    (folder / "evalkit.toml").write_text(
        f"""
[providers.loopback]
wire = "openai"
base_url = "{base_url}"
max_in_flight = {IN_FLIGHT}

[models.m]
provider = "loopback"
id = "loopback-model"
price = {{ input = 0.1, output = 0.2 }}

[features.bench]
task = "classify"
prompt = "bench@v1"
model = "m"
output_schema = "golden_sets/bench/label.schema.json"
max_tokens = 64
max_latency_ms = 20000

[run]
judge_model = "m"
concurrency = {IN_FLIGHT}
"""
    )
    (folder / "prompts" / "bench" / "v1.md").write_text(
        "---\ndescription: Bench.\n---\n\n## system\n\nAnswer with a label as JSON.\n\n"
        "## user\n\n{{ text }}\n"
    )
    (golden / "label.schema.json").write_text(json.dumps(SCHEMA))
    (golden / "golden_set.yaml").write_text(
        "name: bench\nfeature: bench\nmetrics:\n"
        "  - {name: shape, check: json_schema, schema: label.schema.json, gate: true}\n"
        "  - {name: no_card, check: regex, pattern: '\\b\\d{16}\\b', negate: true}\n"
        "  - {name: judged, judge: always-pleased}\n"
        "cases: cases.jsonl\n"
    )
    with (golden / "cases.jsonl").open("w") as file:
        for number in range(n_cases):
            text = f"Order {number}: the parcel has not arrived yet and I am waiting. " * 2
            file.write(json.dumps({"id": f"c-{number:06}", "input": {"text": text}}) + "\n")


def evalkit_run(folder: Path, *, together: bool = False) -> Measured:
    return measure([sys.executable, "-m", "evalkit", "run", "--json"], folder, together=together)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runner", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--large", type=int, default=20_000, help="0 leaves out the memory test")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    from tests.loopback import loopback_process

    with tempfile.TemporaryDirectory() as scratch, loopback_process(delay_ms=DELAY_MS) as url:
        bare, ours = side_by_side(Path(scratch) / "small", url, options.cases)
        large = None
        if options.large:
            big = Path(scratch) / "large"
            write_project(big, base_url=f"{url}/v1", n_cases=options.large)
            large = evalkit_run(big, together=True)
    print(f"{options.cases:,} cases, two calls each, {IN_FLIGHT} in flight")
    tell(bare, ours, DELAY_MS, options.cases)
    rows = [
        ("wall, evalkit / bare loop", ours.wall_s / bare.wall_s, BOUND_WALL),
        ("CPU, evalkit / bare loop", ours.cpu_s / bare.cpu_s, BOUND_CPU),
        ("peak memory, MB", ours.peak_mb, BOUND_MB),
    ]
    if large is not None:
        rows.append((f"both processes at {options.large:,} cases, MB", large.peak_mb, BOUND_MB))
    slowness = bare.cpu_s / (BARE_CPU_S * options.cases)
    if slowness > 1:
        delay_ms = round(DELAY_MS * slowness)
        with tempfile.TemporaryDirectory() as scratch, loopback_process(delay_ms=delay_ms) as url:
            bare, ours = side_by_side(Path(scratch), url, options.cases)
        print(f"  this machine is {slowness:.1f} times slower than where the bounds were set")
        tell(bare, ours, delay_ms, options.cases)
        print(f"    evalkit / bare loop: {ours.wall_s / bare.wall_s:.2f} in wall time")
    return report(rows, options.json)


def side_by_side(folder: Path, url: str, n_cases: int) -> tuple[Measured, Measured]:
    """The bare loop, then evalkit, on the same provider."""
    write_project(folder, base_url=f"{url}/v1", n_cases=n_cases)
    command = [
        sys.executable, "-m", "benchmarks.bare_loop", "--base-url", f"{url}/v1",
        "--cases", str(n_cases), "--in-flight", str(IN_FLIGHT),
    ]  # fmt: skip
    return measure(command, Path(__file__).resolve().parent.parent), evalkit_run(folder)


def tell(bare: Measured, ours: Measured, delay_ms: int, n_cases: int) -> None:
    ideal_s = n_cases * 2 * delay_ms / 1000 / IN_FLIGHT
    print(f"  at {delay_ms} ms, ideally {ideal_s:.2f} s:")
    for name, one in (("bare loop", bare), ("evalkit", ours)):
        print(
            f"    {name:10} {one.wall_s:6.2f} s wall {one.cpu_s:6.2f} s CPU {one.peak_mb:6.0f} MB"
        )


def report(rows: list[tuple[str, float, float]], file: Path | None) -> int:
    """Print each value with its bound; 1 when one does not hold."""
    for name, value, bound in rows:
        print(f"  {'ok  ' if value <= bound else 'OVER'} {name}: {value:.2f} (bound {bound:g})")
    if file is not None:
        result: dict[str, Any] = {name: {"value": value, "bound": b} for name, value, b in rows}
        file.write_text(json.dumps(result, indent=2))
    return 0 if all(value <= bound for _, value, bound in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
