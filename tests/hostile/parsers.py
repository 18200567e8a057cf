"""Every reader of foreign files: seeds that it accepts, how it is called, and what it may raise."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.call.flags import read_flags
from evalkit.call.prompts import read_prompt
from evalkit.call.providers.sse import EventDecoder
from evalkit.cli.ci_comment import read_verdict
from evalkit.config import load_settings
from evalkit.errors import EvalkitError
from evalkit.exchange.baseline_file import export_baselines, import_baselines
from evalkit.exchange.golden_sets import read_foreign
from evalkit.exchange.labels import export_labels, format_of, import_labels
from evalkit.exchange.logs import import_log
from evalkit.exchange.results import load_results
from evalkit.score.attacks import load_attacks
from evalkit.score.golden import load_golden_set
from evalkit.score.labelled import read_labels
from evalkit.score.rubric import load_judge
from evalkit.session import run_golden_sets
from evalkit.store.views import open_store
from evalkit.strict import StrictError, load_toml, load_yaml
from evalkit.wiring import RunRequest
from tests.decide.verdicts import verdict as a_verdict
from tests.exchange.test_golden_sets import HEADER, sample
from tests.exchange.test_labels import labelled as labels_of
from tests.exchange.test_logs import SAMPLES
from tests.project import write_project

ROOT = Path(__file__).resolve().parent.parent.parent
Read = Callable[[Path, bytes], Any]


@dataclass(frozen=True, slots=True)
class Parser:
    """`read` gets a folder of its own and the bytes of one file."""

    read: Read
    seeds: tuple[bytes, ...] | Callable[[Path], tuple[bytes, ...]]
    """Files that it accepts, or what makes them in a folder."""
    raises: tuple[type[Exception], ...] = (EvalkitError,)


def of_repository(*names: str) -> tuple[bytes, ...]:
    return tuple((ROOT / name).read_bytes()[:6000].rsplit(b"\n", 1)[0] + b"\n" for name in names)


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def config(folder: Path, data: bytes) -> None:
    write_project(folder)
    load_settings(put(folder, "evalkit.toml", data))


def golden_set(folder: Path, name: str, data: bytes) -> None:
    write_project(folder, cases=3)
    put(folder, f"golden_sets/tickets/{name}", data)
    settings = load_settings(folder / "evalkit.toml")
    load_golden_set(folder / "golden_sets/tickets", settings=settings)


def header(folder: Path, data: bytes) -> None:
    golden_set(folder, "golden_set.yaml", data)


def cases(folder: Path, data: bytes) -> None:
    golden_set(folder, "cases.jsonl", data)


def schema(folder: Path, data: bytes) -> None:
    golden_set(folder, "label.schema.json", data)


def judge(folder: Path, data: bytes) -> None:
    load_judge(put(folder, "judges/correctness.yaml", data))


def prompt(folder: Path, data: bytes) -> None:
    made = read_prompt(put(folder, "prompts/p/v1.md", data), name="p", version="v1")
    made.render({"text": "{{ 7*7 }}"})


def flags(folder: Path, data: bytes) -> None:
    write_project(folder)
    settings = load_settings(folder / "evalkit.toml")
    for name in ("flags.toml", "flags.json"):
        try:
            read_flags(Path(name), data.decode("utf-8", "replace"), settings)
        except StrictError:
            continue


def yaml(folder: Path, data: bytes) -> None:
    load_yaml(data.decode("utf-8", "replace"), where="any")


def toml(folder: Path, data: bytes) -> None:
    load_toml(data.decode("utf-8", "replace"), where="any")


def attacks(folder: Path, data: bytes) -> None:
    load_attacks(put(folder, "attacks.jsonl", data))


def labelled(folder: Path, data: bytes) -> None:
    for name in ("l.jsonl", "l.csv"):
        try:
            read_labels(put(folder, name, data), pairwise=False)
        except EvalkitError:
            continue


def labels(name: str) -> Read:
    def read(folder: Path, data: bytes) -> None:
        path = put(folder, name, data)
        import_labels(open_store(folder / "store"), path, format_of(path), annotator="ann")

    return read


def results(name: str) -> Read:
    return lambda folder, data: load_results(put(folder, name, data))


def log(format: str | None) -> Read:
    def read(folder: Path, data: bytes) -> None:
        import_log(put(folder, "log.jsonl", data), open_store(folder / "store"), format=format)

    return read


def foreign(kind: str, name: str) -> Read:
    return lambda folder, data: read_foreign(kind, put(folder, name, data))


def baselines(folder: Path, data: bytes) -> None:
    import_baselines(open_store(folder / "store"), put(folder, "b.zip", data))


def verdict(folder: Path, data: bytes) -> None:
    read_verdict(data)


def sse(folder: Path, data: bytes) -> None:
    decoder = EventDecoder()
    for at in range(0, len(data), 7):
        decoder.feed(data[at : at + 7])


def archive(header: Any, *samples: Any) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("header.json", json.dumps(header))
        for number, one in enumerate(samples, 1):
            opened.writestr(f"samples/{number}_epoch_1.json", json.dumps(one))
    return content.getvalue()


def own_file(name: str) -> Callable[[Path], tuple[bytes, ...]]:
    """A file of the small project that other tests use."""
    return lambda folder: ((write_project(folder, cases=5) / name).read_bytes(),)


def parquet(folder: Path) -> tuple[bytes, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"case_id": ["a", "b"], "metric": ["m", "m"], "score": [0.5, None]})
    pq.write_table(table, folder / "seed.parquet")
    return ((folder / "seed.parquet").read_bytes(),)


def exported_labels(name: str) -> Callable[[Path], tuple[bytes, ...]]:
    def export(folder: Path) -> tuple[bytes, ...]:
        path = folder / name
        export_labels(open_store(labels_of(folder / "a")), path, format_of(path))
        return (path.read_bytes(),)

    return export


def exported_baselines(folder: Path) -> tuple[bytes, ...]:
    write_project(folder, cases=3)
    settings = load_settings(folder / "evalkit.toml")
    run_id = run_golden_sets(settings, RunRequest()).run_id
    store = open_store(folder / ".evalkit")
    store.baselines.set("tickets", "classify", run_id)
    export_baselines(store, folder / "b.zip")
    return ((folder / "b.zip").read_bytes(),)


RESULTS = b'case_id,metric,score,trial,model\na,m,0.5,0,x\nb,m,1,0,x\nc,m,,1,"x, y"\n'
PROMPT = b"""---
description: a
---
## system
Say {{ text | upper }}.
## user
{% if text %}{% for one in [text] %}{{ one }}{% endfor %}{% endif %}
"""
PROMPTFOO = b"""prompts: ["Say {{text}}", {raw: "Hi", label: v2}]
providers: [openai:gpt-4o]
defaultTest: {assert: [{type: is-json}, {type: llm-rubric, value: Is it polite?}]}
tests:
  - vars: {text: Hello}
    assert: [{type: icontains, value: bonjour}, {type: regex, value: "a+b"}]
"""
OPENAI = lines({"input": [{"role": "user", "content": "2+2?"}], "ideal": "4"})
DEEPEVAL = json.dumps([{"input": "a", "expected_output": "b", "context": ["c"]}]).encode()

PARSERS: dict[str, Parser] = {
    "config": Parser(config, own_file("evalkit.toml")),
    "golden set": Parser(header, own_file("golden_sets/tickets/golden_set.yaml")),
    "cases": Parser(cases, own_file("golden_sets/tickets/cases.jsonl")),
    "schema": Parser(schema, own_file("golden_sets/tickets/label.schema.json")),
    "judge": Parser(judge, of_repository("judges/correctness.yaml")),
    "prompt": Parser(prompt, (PROMPT,)),
    "flags": Parser(flags, (b'[a]\nshare = 0.5\nprompt = "classify@v1"\n', b'{"a": {"share": 1}}')),
    "yaml": Parser(yaml, of_repository("golden_sets/tickets/golden_set.yaml"), (StrictError,)),
    "toml": Parser(toml, of_repository("evalkit.toml"), (StrictError,)),
    "attacks": Parser(attacks, of_repository("judges/attacks.jsonl")),
    "labels to calibrate": Parser(
        labelled, (lines({"output": "a", "label": 1, "input": {"q": "?"}}), b"output,label\na,1\n")
    ),
    "labels, JSONL": Parser(labels("l.jsonl"), exported_labels("l.jsonl")),
    "labels, CSV": Parser(labels("l.csv"), exported_labels("l.csv")),
    "labels, Label Studio": Parser(labels("l.json"), exported_labels("l.json")),
    "results, CSV": Parser(results("r.csv"), (RESULTS,)),
    "results, JSONL": Parser(
        results("r.jsonl"), (lines({"case_id": "a", "metric": "m", "score": 0.5, "slice": "s=1"}),)
    ),
    "results, Parquet": Parser(results("r.parquet"), parquet),
    "log": Parser(log(None), tuple(lines(one) for one in SAMPLES.values())),
    "promptfoo": Parser(foreign("promptfoo", "p.yaml"), (PROMPTFOO,)),
    "openai-evals": Parser(foreign("openai-evals", "o.jsonl"), (OPENAI,)),
    "inspect": Parser(foreign("inspect", "i.eval"), (archive(HEADER, sample(1, 1, "C")),)),
    "inspect, JSON": Parser(
        foreign("inspect", "i.json"), (lines(HEADER | {"samples": [sample(1, 1, "C")]}),)
    ),
    "deepeval": Parser(foreign("deepeval", "d.json"), (DEEPEVAL,)),
    "baselines": Parser(baselines, exported_baselines),
    "verdict": Parser(verdict, (lines(a_verdict()),)),
    "server-sent events": Parser(
        sse, (b"event: a\ndata: {}\n\n: hi\r\ndata: x\r\ndata: y\r\n\r\n",)
    ),
}  # fmt: skip
