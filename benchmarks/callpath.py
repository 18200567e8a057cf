"""What one call costs with every stage on, beside clients that do nothing but send.

    python -m benchmarks.callpath [--calls 2000] [--in-flight 100] [--rounds 3]
                                  [--burst 10000] [--litellm DIR] [--json FILE]

`Orchestrator.execute()` with guard, prompt, cache, schema and record (`evalkit`), and with
spending caps on top (`capped`), against bare aiohttp, bare httpx and LiteLLM's
`acompletion`, each in a process of its own. LiteLLM needs an environment of its own; DIR is
that environment's folder. The loopback provider runs in processes of its own and is
measured first, so that it is seen not to be the limit. Medians over rounds taken in turns;
exit status 1 when a bound does not hold.

Half a millisecond a call is meant for a machine on which bare aiohttp takes a tenth of one,
so the bound is five times what aiohttp takes in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DELAY_MS, SLOW_MS = 50, 2000
WIDE = 1000

BOUND_CPU = 5.0
BOUND_LITELLM = 8.0
BOUND_ADDED = 1.5
BOUND_WIDE_S = 1.0
BOUND_MB = 1500.0

Facts = Mapping[str, Any]


def run_client(
    name: str, url: str, *, calls: int, in_flight: int, warm: int = 0, python: str = sys.executable
) -> Facts:
    """One client's line of facts; see `callpath_client`."""
    command = [
        python, "benchmarks/callpath_client.py", name, "--base-url", f"{url}/v1",
        "--calls", str(calls), "--in-flight", str(in_flight), "--warm", str(warm),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        raise SystemExit(f"client {name} failed")
    facts: Facts = json.loads(done.stdout.splitlines()[-1])
    if facts["failed"]:
        print(f"  {name}: {facts['failed']} calls failed: {facts['first_failure']}")
    return facts


def steady(url: str, clients: Mapping[str, str], options: argparse.Namespace) -> dict[str, Facts]:
    """Medians per client of `--rounds` runs at `--in-flight`; the server's own first."""
    rows: dict[str, list[Facts]] = {name: [] for name in ("raw", *clients)}
    for _ in range(options.rounds):
        for name in rows:
            n = options.in_flight
            python = clients.get(name, sys.executable)
            facts = run_client(name, url, calls=options.calls, in_flight=n, warm=n, python=python)
            rows[name].append(facts)
    middle = {
        name: {
            key: statistics.median(row[key] for row in several)
            for key in ("cpu_us", "wall_s", "p50_s", "p99_s", "peak_mb", "finished")
        }
        for name, several in rows.items()
    }
    print(f"{options.calls:,} calls at {DELAY_MS} ms, {options.in_flight} in flight")
    print(f"  {'':10} {'CPU us/call':>12} {'calls/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'MB':>6}")
    for name, row in middle.items():
        print(
            f"  {'server' if name == 'raw' else name:10} {row['cpu_us']:12.0f} "
            f"{row['finished'] / row['wall_s']:9.0f} {row['p50_s'] * 1e3:8.0f} "
            f"{row['p99_s'] * 1e3:8.0f} {row['peak_mb']:6.0f}"
        )
    print("  server: bytes made beforehand, on plain sockets; what the provider gives at most\n")
    return middle


def at_once(url: str, *, calls: int, in_flight: int) -> dict[str, Facts]:
    """The bare loop and evalkit against a provider that takes two seconds."""
    print(f"{calls:,} calls at {SLOW_MS} ms, {in_flight:,} in flight")
    print(f"  {'':10} {'finished':>9} {'p50 added s':>12} {'p99 added s':>12} {'MB':>6}")
    found = {}
    for name in ("aiohttp", "evalkit"):
        facts = run_client(name, url, calls=calls, in_flight=in_flight)
        p50, p99 = (facts[key] - SLOW_MS / 1000 for key in ("p50_s", "p99_s"))
        found[name] = {**facts, "added_s": p99}
        print(f"  {name:10} {facts['finished']:9,} {p50:12.2f} {p99:12.2f} {facts['peak_mb']:6.0f}")
    print()
    return found


def bounds_of(
    rows: Mapping[str, Facts], burst: Mapping[str, Facts], wide: Mapping[str, Facts], n_burst: int
) -> list[tuple[str, float, float]]:
    """(what, value, the most it may be)."""
    ours = rows["evalkit"]["cpu_us"]
    found = [("CPU of execute() / bare aiohttp", ours / rows["aiohttp"]["cpu_us"], BOUND_CPU)]
    if "litellm" in rows:
        share = ours / rows["litellm"]["cpu_us"]
        found.append(("CPU, execute() / LiteLLM", share, 1 / BOUND_LITELLM))
    added = burst["evalkit"]["added_s"] / burst["aiohttp"]["added_s"]
    return [
        *found,
        (f"p99 added at {n_burst:,} at once, execute() / aiohttp", added, BOUND_ADDED),
        (f"calls lost of {n_burst:,}", n_burst - burst["evalkit"]["finished"], 0.0),
        (f"peak memory at {n_burst:,}, MB", burst["evalkit"]["peak_mb"], BOUND_MB),
        (f"p99 added at {WIDE:,} in flight, s", wide["evalkit"]["added_s"], BOUND_WIDE_S),
    ]


def clients_of(litellm: Path | None) -> dict[str, str]:
    """Client to the Python that runs it."""
    clients = dict.fromkeys(("aiohttp", "httpx", "evalkit", "capped"), sys.executable)
    if litellm is None:
        print("LiteLLM is left out: give --litellm the folder of an environment that has it.\n")
    else:
        clients["litellm"] = str(litellm.absolute() / "bin" / "python")
    return clients


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.callpath", description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--burst", type=int, default=10_000)
    parser.add_argument("--litellm", type=Path, metavar="DIR")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)

    from tests.loopback import loopback_process

    clients = clients_of(options.litellm)
    with loopback_process(delay_ms=DELAY_MS) as url, loopback_process(delay_ms=SLOW_MS) as slow:
        rows = steady(url, clients, options)
        wide = at_once(slow, calls=3 * WIDE, in_flight=WIDE)
        burst = at_once(slow, calls=options.burst, in_flight=options.burst)
    bounds = bounds_of(rows, burst, wide, options.burst)
    for what, value, most in bounds:
        print(f"  {'ok  ' if value <= most else 'OVER'} {what}: {value:.3g} (bound {most:.3g})")
    if options.json:
        result = {"steady": rows, "wide": wide, "burst": burst}
        options.json.write_text(json.dumps(result, indent=2))
    return 0 if all(value <= most for _, value, most in bounds) else 1


if __name__ == "__main__":
    sys.exit(main())
