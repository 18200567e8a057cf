"""A store with answers to label, and the server as a browser would meet it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from evalkit.cli.main import main
from evalkit.score.label_queue import LabelQueue, NewItem
from evalkit.score.labels import Question, pass_question
from evalkit.store.views import Store
from tests.decide.report_world import CANDIDATE, line, seal

JUDGED = {"metric": "grounded", "tier": 2, "scorer": "groundedness", "scorer_version": "1"}


def judged_run(
    folder: Path, run_id: str = CANDIDATE, *, n: int = 40, outputs: Sequence[str] = ("Fine.",)
) -> Store:
    """A sealed run whose judge passed three of four answers."""
    lines = []
    for at in range(n):
        passed = at % 4 != 0
        lines.append(
            line(
                run_id,
                f"t-{at:03d}",
                prompt_version="v3",
                slices={"channel": ("mail", "chat")[at % 2]},
                metrics=[
                    {"metric": "label", "passed": at % 3 != 0, "score": float(at % 3 != 0)},
                    {**JUDGED, "score": float(passed), "passed": passed},
                ],
                of_call={
                    "input": {"text": f"Question number {at}?"},
                    "output": outputs[at % len(outputs)],
                },
            )
        )
    return seal(folder, run_id, lines, pairs=["small/classify-ticket@v3"])


def queue_of(
    folder: Path, n: int, *, question: Question | None = None, wanted: int = 1, **shown: Any
) -> LabelQueue:
    """A queue of n items that nobody has begun."""
    queue = LabelQueue(folder)
    queue.add(question or pass_question("tone"), items(n, wanted=wanted, **shown), run="run-1",
              design={})  # fmt: skip
    return queue


def items(n: int, *, wanted: int = 1, **shown: Any) -> list[NewItem]:
    return [
        NewItem(
            facts=[{
                "trace_id": f"trace-{at}", "run_id": "run-1", "golden_set": "tickets",
                "case_id": f"t-{at:03d}", "case_hash": "bbbb", "trial": 0, "model": "secret-model",
                "prompt_name": "classify-ticket", "prompt_version": "v3",
            }],
            shown={"input": {"text": f"Question {at}?"}, "outputs": [f"Answer {at}."], **shown},
            share="random",
            why="",
            stratum="tickets",
            inclusion_prob=0.25,
            wanted=wanted,
        )
        for at in range(n)
    ]  # fmt: skip


def labels(store: Path) -> list[dict[str, Any]]:
    """What the store's view has."""
    return Store(store).sql("SELECT * FROM labels ORDER BY labelled_at, label_id")


def standing(store: Path) -> list[dict[str, Any]]:
    """Labels that no other one replaces, and that say something."""
    rows = labels(store)
    replaced = {row["supersedes"] for row in rows}
    return [row for row in rows if row["label_id"] not in replaced and row["score"] is not None]


class Server:
    """`evalkit label serve` as a process of its own."""

    def __init__(self, store: Path, *annotators: str, more: Sequence[str] = ()) -> None:
        names = [part for name in annotators for part in ("--annotator", name)]
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "evalkit",
                "label",
                "serve",
                "--store",
                str(store),
                *names,
                *more,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=store.parent,
        )
        self.people: list[Annotator] = []
        self.urls = [self.next_url() for _ in annotators]
        self.base = self.urls[0].split("/?")[0]

    def open(self, url: str | None = None) -> Annotator:
        """Somebody opens an address."""
        self.people.append(Annotator(url or self.urls[0]))
        return self.people[-1]

    def next_url(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)
        assert found, line
        return found[0]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=120)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.people:
            one.http.close()
        if self.process.poll() is None:
            self.stop()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Annotator:
    """A person with a browser without scripts: follows links and sends forms."""

    def __init__(self, url: str) -> None:
        self.base = url.split("/?")[0]
        self.http = httpx.Client(
            base_url=self.base, headers={"origin": self.base}, follow_redirects=True, timeout=120
        )
        self.http.get(url).raise_for_status()
        self.page = self.get("/")

    def get(self, path: str) -> str:
        self.answer = self.http.get(path)
        self.page = self.answer.text
        return self.page

    def send(self, action: str | None = None, **fields: str) -> str:
        """Send the page's first form, or the one to `action`, with these fields filled in."""
        action = action or re.search(r'<form[^>]* action="([^"]+)"', self.page)[1]  # type: ignore[index]
        csrf = re.search(r'name="csrf" value="([^"]+)"', self.page)[1]  # type: ignore[index]
        self.answer = self.http.post(action, data={"csrf": csrf, **fields})
        self.page = self.answer.text
        return self.page

    @property
    def item(self) -> str | None:
        """The item on the screen."""
        found = re.fullmatch(r"/item/([^/]+)", self.answer.url.path)
        return found and found[1]

    def label_all(self, choice: str = "pass", *, at_most: int = 10_000) -> int:
        n = 0
        while self.item and n < at_most:
            self.send(a0=choice)
            n += 1
        return n


@contextmanager
def annotating(store: Path, *names: str) -> Iterator[list[Annotator]]:
    """A server, and somebody at each of its addresses."""
    with Server(store, *names) as server:
        yield [server.open(url) for url in server.urls]


def evalkit(*argv: str, store: Path) -> int:
    return main([*argv, "--store", str(store)])


def said(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["annotator"], row["metric"], row["score"], row["passed"]) for row in rows]
