"""How long the HTML report of many cases takes to be made, opened and searched.

    python -m benchmarks.report_page [--cases 10000] [--trials 1] [--keep FILE]

Two runs of as many cases with three metrics and texts of 400 characters, gated and written as
one file; then a headless Chromium opens the file and types into it. Times of the page are its
own: navigation until the load event has ended, beside an empty page in the same browser, and
for a letter typed the script and the layout after it. On a busy machine the CPU time of the
page's main thread is the one to trust. Needs playwright and a Chromium.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from evalkit.config import GateSettings
from evalkit.decide.gate import run_gate
from evalkit.decide.report import write_report
from evalkit.store.views import Store, open_store

METRICS = ("label", "tone", "grounded")
WORDS = "the order parcel invoice refund address kettle never came back twice blue large".split()  # noqa: SIM905 - shorter to read
QUERIES = ("r", "re", "ref", "refund", "refund kettle", "t-00042", "nothing like this")
OPENED = 7


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_page", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--trials", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="Where to keep the report.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.keep or Path(folder) / "report.html"
        store = made(Path(folder) / "store", options.cases, options.trials)
        started = time.perf_counter()
        verdict = run_gate(store, candidate="new", baseline="old", settings=GateSettings())
        gated = time.perf_counter()
        write_report(verdict, store, path)
        written = time.perf_counter()
        print(f"{options.cases:,} cases, {options.trials} trial(s), {verdict['verdict']}")
        print(f"gate            {gated - started:8.2f} s")
        print(f"report written  {written - gated:8.2f} s, {path.stat().st_size / 1e6:.1f} MB")
        in_a_browser(path)


def made(folder: Path, n_cases: int, trials: int) -> Store:
    """A store with the runs `old` and `new`; `new` is a little worse."""
    from tests.decide.results import add_run

    rng = random.Random(7)
    store = open_store(folder)
    texts = [" ".join(rng.choices(WORDS, k=70))[:400] for _ in range(200)]
    gate = [{"name": name, "tier": 1, "gate": True, "tolerance": 0.0, "max_drop": 0.05,
             "must_pass": False} for name in METRICS]  # fmt: skip
    for run_id, version, share in (("old", "v2", 0.9), ("new", "v3", 0.88)):
        pairs = [f"small/classify-ticket@{version}"]
        with add_run(store, run_id, pairs=pairs, metrics=gate) as writer:
            for n in range(n_cases):
                for trial in range(trials):
                    writer.append(_line(rng, run_id, version, n, trial, texts, share))
            writer.seal("complete", counts={"scored": n_cases})
    return store


def _line(
    rng: random.Random,
    run_id: str,
    version: str,
    n: int,
    trial: int,
    texts: list[str],
    share: float,
) -> dict[str, Any]:
    from tests.store.journal_lines import call, plain, score

    trace_id = f"{run_id}-{n}-{trial}"
    common = {
        "run_id": run_id, "case_id": f"t-{n:05d}", "trial": trial, "prompt_version": version,
        "trace_id": trace_id, "slices": {"language": ("en", "de", "fr")[n % 3]},
    }  # fmt: skip
    scores = []
    for metric in METRICS:
        passed = rng.random() < share
        reason = "" if passed else f"not as expected: {texts[n % 50][:80]}"
        scores.append(
            plain(score(**common, metric=metric, score=float(passed), passed=passed, reason=reason))
        )
    of_call = call(
        trace_id=trace_id,
        prompt_version=version,
        input={"text": texts[n % 200]},
        output=texts[rng.randrange(200)],
    )
    pair = f"small/classify-ticket@{version}"
    key = ["tickets", pair, common["case_id"], scores[0]["case_hash"], trial]
    return {"key": key, "calls": [plain(of_call)], "scores": scores}


def in_a_browser(path: Path) -> None:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=args)
        empty = path.with_name("empty.html")
        empty.write_text("<!doctype html><title>empty</title>", encoding="utf-8")
        for name, file in (("an empty page", empty), ("the report", path)):
            loads = [_load_ms(browser, file) for _ in range(OPENED)]
            times, cpu = [one[0] for one in loads], [one[1] for one in loads]
            print(
                f"{name + ' loads':24}median {median(times):6.0f} ms, most {max(times):6.0f} ms, "
                f"CPU {median(cpu):6.0f} ms"
            )
        empty.unlink()
        page = browser.new_page()
        page.goto(path.as_uri())
        for name, script in {
            "a letter typed": _TYPED,
            "a slice chosen": _CHOSEN,
            "sorted": _SORTED,
            "a page turned": _TURNED,
        }.items():
            page.fill("#find", "")
            times = [page.evaluate(script, query) for query in QUERIES * 3]
            print(f"{name:24}median {median(times):6.1f} ms, most {max(times):6.1f} ms")
        browser.close()


def _load_ms(browser: Any, path: Path) -> tuple[float, float]:
    """Until the load event has ended: on the clock, and CPU of the page's main thread."""
    page = browser.new_page()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(path.as_uri())
    took = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    metrics = session.send("Performance.getMetrics")["metrics"]
    page.close()
    return took, 1000 * next(one["value"] for one in metrics if one["name"] == "TaskDuration")


def _timed(act: str) -> str:
    return (
        "(query) => { const at = (id) => document.getElementById(id);"
        "const from = performance.now();"
        f"{act};"
        "document.body.offsetHeight;"
        "return performance.now() - from; }"
    )


_TYPED = _timed("at('find').value = query; at('find').dispatchEvent(new Event('input'))")
_CHOSEN = _timed(
    "at('slice').selectedIndex = (at('slice').selectedIndex + 1) % 4;"
    "at('slice').dispatchEvent(new Event('change'))"
)
_SORTED = _timed("document.querySelector('[data-sort=change]').click()")
_TURNED = _timed("at('after').click()")


if __name__ == "__main__":
    main()
