"""Puts the shards of one run, made on several machines, together into one sealed run.

Reads journals, writes a new run; the shards are left as they are. No model is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from evalkit.errors import NotComparable, StoreError
from evalkit.ids import new_id
from evalkit.score.summary import RunSummary, count_line
from evalkit.store.views import Store, open_store

SAME_IN_ALL = ("prompts", "pairs", "seed", "versions")
"""Keys of the manifest that shards of one run have in common."""
SAME_REQUEST = ("trials", "limit", "models", "prompts")
"""What was asked of each of them alike."""


def merge_runs(
    store: str | Path, run_ids: Sequence[str], *, others: Sequence[Path] = ()
) -> tuple[str, RunSummary]:
    """Merge complete shards into a new run of `store`; returns its id and what is in it.

    A run is looked for in `store`, then in the stores `others`. Raises NotComparable when
    the runs are not all the shards of one plan, StoreError for one that is not there,
    DamagedStore for one whose manifest cannot be read.
    """
    opened = open_store(store)
    stores = [opened, *map(open_store, others)]
    found = [_find(run_id, stores) for run_id in run_ids]
    manifests = [store.manifest(run_id) for store, run_id in found]
    _refuse_merged_before(opened, run_ids)
    _refuse_what_does_not_fit(manifests)
    _refuse_twice(found)
    merged = _merged_manifest(manifests)
    summary = RunSummary(planned=merged["planned"])
    with opened.create_run(merged) as writer:
        for line in _lines(found, writer.run_id):
            writer.append(line)
            count_line(line, summary)
        facts = {"notes": _notes(manifests)}
        writer.seal("complete", counts=dict(summary.outcomes), facts=facts)
    return writer.run_id, summary


def _find(run_id: str, stores: Sequence[Store]) -> tuple[Store, str]:
    for store in stores:
        if any(run["run_id"] == run_id for run in store.runs()):
            return store, run_id
    for store in stores:
        store.refuse_unreadable(run_id)
    places = ", ".join(str(store.path) for store in stores)
    raise StoreError(f"no run {run_id} in {places}. Name the shard's store: --from DIR.")


def _refuse_merged_before(store: Store, run_ids: Sequence[str]) -> None:
    """Raise NotComparable where a run of these shards is there: two would be taken for two."""
    for run in store.runs():
        if run["status"] == "complete" and not set(run_ids).isdisjoint(
            run.get("merged_from") or ()
        ):
            raise NotComparable(
                f"run {run['run_id']} in {store.path} is merged from these shards already: use it."
            )


def _refuse_what_does_not_fit(manifests: Sequence[Mapping[str, Any]]) -> None:
    """Raise NotComparable, saying which run is at fault, unless these are all shards of one run."""
    first = manifests[0]
    numbers = []
    for run in manifests:
        run_id, shard = run["run_id"], run.get("shard")
        if shard is None:
            raise NotComparable(f"run {run_id} is no shard: make shards with run --shard i/n.")
        if run["status"] != "complete":
            raise NotComparable(f"run {run_id} is not complete: evalkit run --resume {run_id}.")
        if shard["of"] != first["shard"]["of"]:
            raise NotComparable(f"run {run_id} is one of {shard['of']} shards, the first is not.")
        for key in SAME_IN_ALL:
            if run.get(key) != first.get(key):
                raise NotComparable(f"run {run_id} has other {key} than {first['run_id']}.")
        for key in SAME_REQUEST:
            if (run.get("request") or {}).get(key) != (first.get("request") or {}).get(key):
                raise NotComparable(
                    f"run {run_id} was run with other {key} than {first['run_id']}."
                )
        if _golden_hashes(run) != _golden_hashes(first):
            raise NotComparable(f"run {run_id} has another golden set than {first['run_id']}.")
        if changed := _made_otherwise(run, first):
            raise NotComparable(f"run {run_id} has another {changed} than {first['run_id']}.")
        numbers.append(shard["number"])
    wanted = range(1, first["shard"]["of"] + 1)
    missing, twice = set(wanted) - set(numbers), len(numbers) - len(set(numbers))
    if missing or twice:
        what = (
            f"shard {min(missing)} of {len(wanted)} is missing" if missing else "a shard is twice"
        )
        raise NotComparable(f"{what}: name each shard of the run once.")
    _refuse_other_cases(manifests)


def _made_otherwise(run: Mapping[str, Any], first: Mapping[str, Any]) -> str | None:
    """What scores hang on that one had otherwise (a judge, a model), by name; None: nothing."""
    one, other = run.get("made_with") or {}, first.get("made_with") or {}
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return ", ".join(names) or None


def _refuse_other_cases(manifests: Sequence[Mapping[str, Any]]) -> None:
    """Raise NotComparable unless the shards are the parts of one list of cases."""
    for name in manifests[0]["golden_sets"]:
        total = sum(run["golden_sets"][name]["n_cases"] for run in manifests)
        for run in manifests:
            number, of = run["shard"]["number"], run["shard"]["of"]
            n, wanted = run["golden_sets"][name]["n_cases"], len(range(number - 1, total, of))
            if n != wanted:
                raise NotComparable(
                    f"run {run['run_id']} has {n} cases of {name}; shard {number} of {of} of "
                    f"{total} cases has {wanted}."
                )


def _refuse_twice(found: Sequence[tuple[Store, str]]) -> None:
    """Raise NotComparable where two shards have the same case, trial and pair."""
    seen: set[tuple[Any, ...]] = set()
    for store, run_id in found:
        with store.open_run(run_id) as shard:
            for line in shard.finished():
                key = tuple(line["key"])
                if key in seen:
                    golden_set, pair, case_id, _, trial = key
                    raise NotComparable(
                        f"run {run_id}: {golden_set}: case {case_id}, trial {trial} of {pair} is "
                        "in another shard, too."
                    )
                seen.add(key)


def _golden_hashes(run: Mapping[str, Any]) -> dict[str, Any]:
    return {name: golden["hash"] for name, golden in run["golden_sets"].items()}


def _merged_manifest(manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = manifests[0]
    golden_sets = {
        name: {
            **golden,
            "n_cases": sum(run["golden_sets"][name]["n_cases"] for run in manifests),
        }
        for name, golden in first["golden_sets"].items()
    }
    own = ("status", "run_id", "created_at", "sealed_at", "counts", "files", "shard", "notes")
    return {
        **{key: value for key, value in first.items() if key not in own},
        "run_id": new_id(),
        "planned": sum(run["planned"] for run in manifests),
        "golden_sets": golden_sets,
        "merged_from": [run["run_id"] for run in manifests],
    }


def _notes(manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """What all shards note, then what one does, whose counts are of that one alone."""
    noted = {run["shard"]["number"]: run.get("notes") or [] for run in manifests}
    shared = [note for note in next(iter(noted.values())) if all(note in n for n in noted.values())]
    return shared + [
        f"shard {number}: {note}"
        for number, notes in sorted(noted.items())
        for note in notes
        if note not in shared
    ]


def _lines(found: Sequence[tuple[Store, str]], run_id: str) -> Iterator[dict[str, Any]]:
    """The shards' journal lines, as lines of the new run."""
    with ExitStack() as stack:
        for store, shard_id in found:
            shard = stack.enter_context(store.open_run(shard_id))
            for line in shard.finished():
                scores = [{**score, "run_id": run_id} for score in line["scores"]]
                yield {**line, "scores": scores}
