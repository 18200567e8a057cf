"""Bring golden sets and results of other tools over to ours, and say what stayed behind.

A reader for each format (`evalkit.exchange.foreign`) turns a file into one `Foreign`;
this file makes it a folder that `evalkit check` accepts. Foreign files are data: nothing
in them is run, sizes are bounded, and what has no counterpart is listed, never guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import Any

from evalkit.errors import ConfigError, InputFileError, cannot_be_written

READERS: dict[str, tuple[str, str]] = {
    "promptfoo": ("evalkit.exchange.foreign.promptfoo", "a configuration or the output of a run"),
    "openai-evals": ("evalkit.exchange.foreign.openai_evals", "samples, a registry file or a log"),
    "inspect": ("evalkit.exchange.foreign.inspect_log", "a log, .eval or .json"),
    "deepeval": ("evalkit.exchange.foreign.deepeval", "a data set or a test run"),
}
"""Format -> (module with a `read`, what FILE may be)."""

MAX_EXAMPLES = 5
MAX_CASES = 200_000
MAX_ID_CHARS = 200

Case = dict[str, Any]
Spec = dict[str, Any]


class Lost:
    """What has no counterpart here: each thing with how often, and where for example."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, what: str, where: str = "") -> None:
        self._found.setdefault(what, []).append(where)

    def lines(self) -> list[str]:
        return [_lost_line(what, places) for what, places in self._found.items()]


def _lost_line(what: str, places: list[str]) -> str:
    named = [place for place in dict.fromkeys(places) if place]
    if not named:
        return what
    shown = ", ".join(named[:MAX_EXAMPLES])
    more = f" and {len(named) - MAX_EXAMPLES} more" if len(named) > MAX_EXAMPLES else ""
    return f"{what} ({shown}{more})"


@dataclass(kw_only=True)
class Foreign:
    """What a foreign file holds, in our words; a reader fills it."""

    name: str
    description: str
    cases: list[Case] = field(default_factory=list)
    metrics: list[Spec] = field(default_factory=list)
    """Of the golden set; a case has its own under `checks`."""
    results: list[Mapping[str, Any]] = field(default_factory=list)
    """Rows of a results file, as `evalkit gate --candidate FILE` reads it."""
    prompts: list[str] = field(default_factory=list)
    """Bodies of prompts, in order: v1, v2, …"""
    judges: dict[str, str] = field(default_factory=dict)
    """Name -> what a judge is asked, a question with a yes or a no."""
    lost: Lost = field(default_factory=Lost)
    _ids: set[str] = field(default_factory=set)

    def free_id(self, wanted: object) -> str:
        """An id like the wanted one that no case has yet."""
        text = "".join(c for c in str(wanted) if c.isprintable()).strip()[: MAX_ID_CHARS - 8]
        text = text or f"c-{len(self._ids) + 1}"
        found, n = text, 1
        while found in self._ids:
            n += 1
            found = f"{text}~{n}"
        self._ids.add(found)
        return found

    def add_case(self, case: Case) -> None:
        if len(self.cases) >= MAX_CASES:
            raise InputFileError(f"more than {MAX_CASES:,} cases. Split the file.")
        self.cases.append(case)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was written, and what was not."""

    written: tuple[Path, ...]
    n_cases: int
    n_results: int
    lost: tuple[str, ...]
    config: str
    """Lines for evalkit.toml, so that the golden set has its feature; none where it had one."""


def read_foreign(kind: str, path: Path) -> Foreign:
    """Read `path` as a file of `kind`. Raises InputFileError for anything else."""
    if not path.is_file():
        raise InputFileError(f"{path}: no such file. Name {READERS[kind][1]}.")
    read: Callable[[Path], Foreign] = import_module(READERS[kind][0]).read
    try:
        foreign = read(path)
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except RecursionError:
        raise InputFileError(f"{path}: nested too deeply.") from None
    if not foreign.cases and not foreign.results:
        raise InputFileError(f"{path}: no cases. Name {READERS[kind][1]} of {kind}.")
    return foreign


def write_golden_set(foreign: Foreign, folder: Path, *, feature: str | None = None) -> Imported:
    """Write golden set, results, prompts and judges below `folder`; nothing that is there.

    Raises ConfigError before anything is written when a file is there already.
    """
    from evalkit.score.metric_specs import NAME_FIX, is_name

    name = slug(foreign.name)
    feature = name if feature is None else feature
    if not is_name(feature):
        raise ConfigError(f"feature is {feature!r}. {NAME_FIX}.")
    has_prompts = (folder / "prompts" / feature).is_dir()
    if has_prompts and foreign.prompts:
        foreign.lost.add(f"prompts: feature {feature} has its own")
    files = _files(foreign, name, feature, with_prompts=not has_prompts)
    there = [folder / path for path in files if (folder / path).exists()]
    if there:
        raise ConfigError(f"{there[0]} is there already. Choose another folder: -o DIR.")
    written: list[Path] = []
    try:
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            written.append(folder / path)
            # A lone surrogate, which UTF-8 cannot hold, becomes a question mark.
            (folder / path).write_text(text, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        for one in written:  # a part of a golden set would stop every run
            one.unlink(missing_ok=True)
        raise cannot_be_written(str(folder), error) from None
    return Imported(
        written=tuple(written),
        n_cases=len(foreign.cases),
        n_results=len(foreign.results),
        lost=tuple(foreign.lost.lines()),
        config=_config(foreign, feature) if foreign.cases and not has_prompts else "",
    )


def _files(foreign: Foreign, name: str, feature: str, *, with_prompts: bool) -> dict[str, str]:
    """Path -> text; cases are kept that every metric can score."""
    place = f"golden_sets/{name}"
    files: dict[str, str] = {}
    if foreign.cases:
        metrics = _sound(foreign.metrics, foreign)
        for case in foreign.cases:
            _keep_sound_checks(case, foreign)
        files[f"{place}/golden_set.yaml"] = _header(foreign, name, feature, metrics)
        files[f"{place}/cases.jsonl"] = _lines(foreign.cases)
        if with_prompts:
            bodies = foreign.prompts or [prompt_of(foreign.cases)]
            files |= {f"prompts/{feature}/v{n}.md": body for n, body in enumerate(bodies, 1)}
        files |= {f"judges/{one}.yaml": _judge(one, ask) for one, ask in foreign.judges.items()}
    if foreign.results:
        files[f"results/{name}.jsonl"] = _lines(foreign.results)
    return files


def _sound(specs: Iterable[Spec], foreign: Foreign) -> list[Spec]:
    """Metrics that our checks can carry out; of the others, why not."""
    from evalkit.score.metric_specs import check_faults

    kept = []
    for spec in specs:
        faults = [] if "judge" in spec else check_faults(spec, folder=Path())
        if faults:
            foreign.lost.add(f"{spec.get('check')}: {faults[0].problem}", str(spec.get("name", "")))
        else:
            kept.append(spec)
    return kept


def _keep_sound_checks(case: Case, foreign: Foreign) -> None:
    from evalkit.score.metric_specs import check_faults

    kept = []
    for spec in case.get("checks", ()):
        faults = check_faults(spec, folder=Path())
        if faults:
            foreign.lost.add(f"{spec.get('check')}: {faults[0].problem}", str(case["id"]))
        else:
            kept.append(spec)
    if kept:
        case["checks"] = kept
    else:
        case.pop("checks", None)


# --- texts ---------------------------------------------------------------------------


def slug(text: str) -> str:
    """A name that a golden set, a prompt or a metric may have."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:60] or "imported"


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


PARTS = {
    "documents": "{{ render_documents(documents) }}",
    "conversation": (
        "{% for turn in conversation %}{{ turn.role | inline }}:\n{{ turn.text }}\n{% endfor %}"
    ),
    "text": "{{ text }}",
    "choices": "{% for choice in choices %}{{ loop.index }}. {{ choice }}\n{% endfor %}",
}
"""Key of an input -> how a prompt shows it, in this order."""


def prompt_of(cases: Iterable[Case], *, system: str = "") -> str:
    """A prompt with the instructions, as they are, and every part that an input here has.

    Inputs without any of our parts are shown by their own names.
    """
    inputs = [case["input"] for case in cases]
    shown = []
    for key, text in PARTS.items():
        n = sum(key in one for one in inputs)
        if n:
            always = n == len(inputs)
            shown.append(text if always else f"{{% if {key} is defined %}}{text}{{% endif %}}")
    if not shown:
        keys = dict.fromkeys(key for one in inputs for key in one if _is_variable(key))
        shown = [f"{{% if {key} is defined %}}{key}: {{{{ {key} }}}}{{% endif %}}" for key in keys]
    # Braces in the instructions are theirs, not a template's.
    raw = "{% raw %}" + system.replace("{% endraw %}", "") + "{% endraw %}"
    head = f"## system\n\n{raw}\n\n" if system.strip() else ""
    return head + "## user\n\n" + "\n\n".join(shown) + "\n"


def _is_variable(key: str) -> bool:
    return key.isidentifier() and not iskeyword(key.lower())


def _header(foreign: Foreign, name: str, feature: str, metrics: list[Spec]) -> str:
    named = {"name": name, "description": foreign.description, "feature": feature}
    lines = [f"{key}: {_yaml(text)}" for key, text in named.items()]
    if metrics:
        lines += ["metrics:", *(f"  - {_yaml(spec)}" for spec in metrics)]
    return "\n".join([*lines, "cases: cases.jsonl"]) + "\n"


def _yaml(value: Any) -> str:
    """JSON is YAML: quoted throughout, so that nothing is read as something else."""
    return json.dumps(value, ensure_ascii=False)


def _judge(name: str, ask: str) -> str:
    rubric = [{"name": "meets_it", "scale": "0 or 1", "description": ask}]
    return (
        f"name: {_yaml(name)}\nversion: v1\ninputs: [input, \"reference?\"]\n"
        f"rubric: {_yaml(rubric)}\npass_at: 1.0\n"
    )  # fmt: skip


def _config(foreign: Foreign, feature: str) -> str:
    has_judge = any("judge" in spec for spec in foreign.metrics)
    judge = '\n[run]\njudge_model = "embedded"' if has_judge else ""
    key = f'"{feature}"' if "." in feature else feature
    return (
        f'[features.{key}]\nprompt = "{feature}@v1"\nmodel = "embedded"\n'
        f"max_latency_ms = 30_000\n{judge}".rstrip()
    )
