"""What golden sets under pytest cost: against the latency alone, and without the flag.

    python -m benchmarks.pytest_plugin [--cases 5000] [--delay-ms 50] [--in-flight 256]

A loopback provider in a process of its own answers after the delay. There are two ideals:
latency alone, cases x delay / calls in flight; and, because pytest takes its time for items
that do nothing, too, those items and the latency after one another. At 50 ms and 256 in flight
such items take three times as long as the answers, and the shorter way through pytest that our
cases take still longer than the half second that 1.5 times latency alone leaves: the first bound
is out of reach there, and is not where answers take a second (the second part).

What `evalkit run` takes for the same calls, without pytest, is measured beside them: both work
on the one core that a Python process has. CPU is the time it takes with that core to itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.runner import Measured, measure

BOUND_IDEAL, BOUND_SILENT_MS = 1.5, 20.0
OTHERS = ("cacheprovider", "randomly", "cov", "xdist", "hypothesispytest")
"""Plugins that would be measured with us: one imports its package at the end of any session."""
QUIET = ("-q", *(word for name in OTHERS for word in ("-p", f"no:{name}")))

IDLE_ITEMS = """
import pytest

class Idle(pytest.Item):
    def runtest(self): pass
    def reportinfo(self): return self.path, 0, self.name

class IdleFile(pytest.File):
    def collect(self):
        for number in range({n}):
            yield Idle.from_parent(self, name=f"c-{{number}}[m/bench@v1]")

def pytest_collect_file(file_path, parent):
    if file_path.name == "golden_set.yaml":
        return IdleFile.from_parent(parent, path=file_path)
"""


def write_project(folder: Path, *, base_url: str, n_cases: int, in_flight: int) -> None:
    from tests.project import write_project as write

    write(folder, base_url=base_url, cases=n_cases, run=f"concurrency = {in_flight}")
    config = folder / "evalkit.toml"
    limit = f'wire = "openai"\nmax_in_flight = {in_flight}'
    config.write_text(config.read_text("utf-8").replace('wire = "openai"', limit), "utf-8")


def run_pytest(folder: Path, *arguments: str) -> Measured:
    return measure([sys.executable, "-m", "pytest", *QUIET, *arguments], folder)


def silent_costs_ms(folder: Path, rounds: int) -> list[float]:
    """CPU that the plugin adds to a run without its flag, once a round; who is first changes."""
    (folder / "test_empty.py").write_text("def test_empty(): pass\n", "utf-8")
    without = ("-p", "no:evalkit")
    for kind in ((), without):
        run_pytest(folder, *kind)  # bytecode
    added = []
    for number in range(rounds):
        kinds = [(), without] if number % 2 else [without, ()]
        taken = {kind: run_pytest(folder, *kind).cpu_s * 1000 for kind in kinds}
        added.append(taken[()] - taken[without])
    return added


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pytest_plugin", description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--delay-ms", type=float, default=50.0)
    parser.add_argument("--slow-ms", type=float, default=1000.0, help="0 leaves this part out")
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(scratch) / "pyc")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        ok = [show_cases(Path(scratch) / "fast", options, options.delay_ms)]
        if options.slow_ms:
            ok.append(show_cases(Path(scratch) / "slow", options, options.slow_ms))
        ok.append(show_silent(Path(scratch) / "empty", options.rounds))
    return 0 if all(ok) else 1


def show_cases(folder: Path, options: argparse.Namespace, delay_ms: float) -> bool:
    """Run the cases under pytest, and what of it cannot be saved; print both."""
    from tests.loopback import loopback_process

    project, idle = folder / "project", folder / "idle"
    idle.mkdir(parents=True)
    with loopback_process(delay_ms=delay_ms) as url:
        write_project(
            project, base_url=f"{url}/v1", n_cases=options.cases, in_flight=options.in_flight
        )
        for one in (idle, project):
            (one / "pytest.ini").write_text("[pytest]\n", "utf-8")
        (idle / "golden_set.yaml").write_text("", "utf-8")
        (idle / "conftest.py").write_text(IDLE_ITEMS.format(n=options.cases), "utf-8")
        run_pytest(project, "--llm-eval", "--llm-eval-no-gate", "--llm-eval-limit=10")  # bytecode
        pytest_alone = run_pytest(idle, "-p", "no:evalkit")
        calls_alone = measure([sys.executable, "-m", "evalkit", "run", "--json"], project)
        both = run_pytest(project, "--llm-eval", "--llm-eval-no-gate")
    latency_s = options.cases * delay_ms / 1000 / options.in_flight
    work_s = pytest_alone.wall_s + calls_alone.wall_s
    print(
        f"{options.cases:,} cases at {delay_ms:g} ms, {options.in_flight} in flight, "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    print(f"  {'':20}     wall      CPU  memory  CPU / latency alone")
    print(f"  {'latency alone':20} {latency_s:6.2f} s")
    for name, m in (
        ("pytest, idle items", pytest_alone),
        ("evalkit run", calls_alone),
        ("pytest --llm-eval", both),
    ):
        ratio = m.cpu_s / latency_s
        print(f"  {name:20} {m.wall_s:6.2f} s {m.cpu_s:6.2f} s {m.peak_mb:4.0f} MB {ratio:8.2f}")
    floor_s = pytest_alone.cpu_s + latency_s
    print(f"       CPU / (idle items' CPU + latency): {both.cpu_s / floor_s:.2f}")
    ideals = {
        "latency alone": latency_s,
        "idle items + latency": pytest_alone.wall_s + latency_s,
    }
    print(f"       wall / (idle items + evalkit run): {both.wall_s / work_s:.2f}")
    ok = [show(f"wall / {name}", both.wall_s / s, BOUND_IDEAL) for name, s in ideals.items()]
    return all(ok)


def show_silent(folder: Path, rounds: int) -> bool:
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n", "utf-8")
    print(f"pytest without the flag, {rounds} rounds with and without the plugin")
    added = silent_costs_ms(folder, rounds)
    low, _, high = statistics.quantiles(added, n=4)
    print(f"  CPU that the plugin adds: quartiles {low:.1f} to {high:.1f} ms")
    return show("median, ms", statistics.median(added), BOUND_SILENT_MS)


def show(name: str, value: float, bound: float) -> bool:
    ok = value <= bound
    print(f"  {'ok  ' if ok else 'OVER'} {name}: {value:.2f} (bound {bound:g})")
    return ok


if __name__ == "__main__":
    sys.exit(main())
