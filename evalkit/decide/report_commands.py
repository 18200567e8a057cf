"""Write down how to do it again: the commands behind a run and a verdict.

Part of the report. Names in manifests are hostile data and these lines are made to be
pasted into a shell: every word is quoted, and a name that would start an option is refused.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from evalkit.decide.report_text import visible

Row: TypeAlias = Mapping[str, Any]
MAX_WORDS = 60
MAX_LINE = 88


def how_to_run(run: Row) -> list[str]:
    """Commands that make this run again; empty for one that no command made."""
    request = run.get("request")
    if not isinstance(request, Mapping):
        return []
    paths = [one.get("path") for one in (run.get("golden_sets") or {}).values()]
    if not paths or not all(paths):
        return []
    words: list[Any] = ["evalkit", "run", *(str(PurePosixPath(path).parent) for path in paths)]
    words += _repeated("--model", request.get("models"))
    words += _repeated("--prompt", request.get("prompts"))
    for option, key in _OPTIONS.items():
        if request.get(key) is not None:
            words += [option, request[key]]
    if run.get("seed") is not None and request.get("seed") is None:
        words += ["--seed", run["seed"]]
    words += [option for option, key in _FLAGS.items() if request.get(key)]
    commit = (run.get("git") or {}).get("commit")
    checkout = [["git", "checkout", commit]] if commit else []
    return _lines([*checkout, words])


_OPTIONS = {
    "--trials": "trials",
    "--limit": "limit",
    "--max-cost": "max_cost_usd",
    "--baseline-pair": "baseline_pair",
    "--shard": "shard",
}
_FLAGS = {"--stop-early": "stop_early", "--batch": "batch"}


def how_to_gate(verdict: Row | None) -> list[str]:
    """The command that decides again; empty where nothing was compared between two runs."""
    if verdict is None:
        return []
    sides: dict[str, set[Any]] = {"candidate": set(), "baseline": set()}
    pooled = False
    for one in verdict["comparisons"]:
        for side, names in sides.items():
            of_side = one.get(side) or {}
            names.add(of_side.get("run_id") or of_side.get("file"))
            pooled = pooled or len(of_side.get("run_ids") or ()) > 1
    if any(len(names) != 1 or None in names for names in sides.values()):
        return []
    (candidate,), (baseline,) = sides["candidate"], sides["baseline"]
    words = ["evalkit", "gate", "--candidate", candidate]
    if candidate == baseline:
        words += _repeated("--compare", _met(verdict))
    else:
        words += ["--baseline", "pooled" if pooled else baseline]
    words += ["--alpha", f"{verdict['alpha']:g}", "--correction", verdict["correction"]]
    return _lines([words])


def _met(verdict: Row) -> list[str]:
    """Pairs of one run that were compared with one another, as `--compare` wants them."""

    def pair(side: Row) -> str:
        return f"{side.get('model')}/{side.get('prompt_name')}@{side.get('prompt_version')}"

    met = [f"{pair(one['candidate'])}:{pair(one['baseline'])}" for one in verdict["comparisons"]]
    return list(dict.fromkeys(met))


def _repeated(option: str, values: Sequence[Any] | None) -> list[Any]:
    return [word for value in values or () for word in (option, value)]


def _lines(commands: Iterable[Sequence[Any]]) -> list[str]:
    """Commands as lines of shell; none at all where one of them cannot be written safely."""
    lines = []
    for words in commands:
        texts = [str(word) for word in words]
        if len(texts) > MAX_WORDS or any(not _is_safe(word) for word in texts):
            return []
        lines += _wrapped(texts)
    return lines


def _wrapped(words: Sequence[str]) -> list[str]:
    """One command; a long one goes on in the next line, an option beside its value."""
    if len(shlex.join(words)) <= MAX_LINE:
        return [shlex.join(words)]
    groups = [list(words[:2])]
    for word in words[2:]:
        after_option = groups[-1][-1] in _OWN and len(groups[-1]) == 1
        if after_option and word not in _OWN:
            groups[-1].append(word)
        else:
            groups.append([word])
    lines = [("  " if n else "") + shlex.join(group) for n, group in enumerate(groups)]
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


_OWN = {*_OPTIONS, *_FLAGS, "--model", "--prompt", "--seed"} | {
    "--candidate", "--baseline", "--compare", "--alpha", "--correction"
}  # fmt: skip


def _is_safe(word: str) -> bool:
    return (not word.startswith("-") or word in _OWN) and visible(word) == word and "\n" not in word
