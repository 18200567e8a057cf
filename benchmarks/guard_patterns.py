"""How much of published attacks the injection patterns see, and how often they cry wolf.

    python benchmarks/guard_patterns.py [--data FOLDER] [--unseen FILE.jsonl] [--misses]

FOLDER has `valid.json` (prompt, label 1 = attack, source) and `NotInject_one.json` (benign
look-alikes). `--unseen` is a JSON-lines file with text, label (malicious or benign) and
channel: attacks that the patterns were not written against, so its figures are the ones to
expect elsewhere. Prints Markdown; intervals are Wilson's, 95 %. Also prints what the guard
costs a call.
"""

from __future__ import annotations

import argparse
import json
import os
import timeit
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scipy.stats import binomtest

from evalkit.call.guards import Guard
from evalkit.call.injection import find_injection
from evalkit.settings import GuardSettings

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
DATA = Path(os.environ.get("EVALKIT_SHARED_DATA") or SHARED) / "hostile" / "injection"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One text of a set, and whether it is an attack."""

    source: str
    text: str
    attack: bool
    document: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--unseen", type=Path)
    parser.add_argument("--misses", action="store_true", help="print what was judged wrongly")
    arguments = parser.parse_args()

    seen = list(read_seen(arguments.data))
    report("The set the patterns were written against", seen)
    if arguments.unseen:
        report("A set they were not written against", list(read_unseen(arguments.unseen)))
    if arguments.misses:
        for item in seen:
            if found(item) != item.attack:
                print(
                    item.source, "missed" if item.attack else "false alarm", repr(item.text[:120])
                )
    cost()


def read_seen(folder: Path) -> Iterator[Item]:
    """Attacks of the BIPIA sets are sentences put into documents; all else is a user's text."""
    for row in json.loads((folder / "valid.json").read_text(encoding="utf-8")):
        source, attack = row["source"], row["label"] == 1
        document = source.startswith("BIPIA") or source == "PINT_documents"
        yield Item(source=source, text=row["prompt"], attack=attack, document=document)
    for row in json.loads((folder / "NotInject_one.json").read_text(encoding="utf-8")):
        yield Item(source="NotInject_one, whole", text=row["prompt"], attack=False)


def read_unseen(path: Path) -> Iterator[Item]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        source, attack = row["category"], row["label"] == "malicious"
        if not attack:
            source = "benign look-alikes"
        document = row["channel"] != "user_input"
        yield Item(source=source, text=row["text"], attack=attack, document=document)


def found(item: Item) -> bool:
    return bool(find_injection(item.text, document=item.document))


def report(title: str, items: list[Item]) -> None:
    groups: dict[tuple[bool, str], list[Item]] = defaultdict(list)
    for item in items:
        groups[not item.attack, item.source].append(item)
    print(f"## {title}\n\n| texts | read as | found | share (95 % interval) |\n|---|---|---|---|")
    for (benign, source), group in sorted(groups.items()):
        hits, kind = sum(map(found, group)), "benign" if benign else "attack"
        roles = sorted({"document" if item.document else "user" for item in group})
        print(
            f"| {source} ({kind}) | {', '.join(roles)} | {hits} of {len(group)} "
            f"| {share(hits, len(group))} |"
        )
    attacks = [item for item in items if item.attack]
    caught, wrong = count(attacks), count(item for item in items if not item.attack)
    print(f"\n- Recall: {share(caught, len(attacks))}")
    print(f"- Precision: {share(caught, caught + wrong)}")
    print(f"- False alarms: {share(wrong, len(items) - len(attacks))}\n")


def count(items: Iterable[Item]) -> int:
    return sum(map(found, items))


def share(hits: int, of: int) -> str:
    low, high = binomtest(hits, of).proportion_ci(method="wilson")
    return f"{hits / of:.2f} ({low:.2f} to {high:.2f})"


def cost() -> None:
    guard = Guard(GuardSettings(pii="replace", injection="block"))
    texts = {
        "English, nothing found": "I ordered shoes on 2024-05-12 and the parcel 48213 is late. ",
        "German, nothing found": "Die am 12.05. bestellten Schuhe sind nicht da. Grüße. ",
        "Russian, nothing found": "Здравствуйте, я заказал обувь и до сих пор не получил посылку. ",
        "English, nine addresses": "Write to anna.example@example.com about the late parcel. ",
    }
    print("## What `check_input` costs on 500 characters\n\n| text | µs |\n|---|---|")
    for name, sentence in texts.items():
        text = (sentence * 10)[:500]
        check = partial(guard.check_input, {"text": text})
        best = min(timeit.repeat(check, number=500, repeat=9))
        print(f"| {name} | {best / 500 * 1e6:.0f} |")


if __name__ == "__main__":
    main()
