"""What a judge is: a rubric with its scales, what it sees and its examples, read from YAML.

`judges/NAME.yaml` -> `JudgeSpec`: a judge that grades one answer, one that compares two
(`pairwise`), or a panel of others (`judges`). The part of tier 2 that makes no call and
knows no answer; every problem of a file is told at once, as `file:line: problem. fix`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from evalkit.content import find_content
from evalkit.errors import ContentError
from evalkit.records import Json
from evalkit.schemas import Fault, find_faults, label, nearest
from evalkit.strict import StrictError, load_yaml, loads_json, read_text

MAX_JUDGE_BYTES = 200_000
WIRE_VERSION = "1"
"""Part of a judge's hash: another way of asking is another judge."""
PIECES = ("input", "documents", "reference")
"""What a judge may see beside the answer, in the order it is shown."""
GRADED, COMPARED = ("output",), ("first", "second")
"""Blocks that hold what is judged: one answer, or two."""
BETTER = "better of two"
"""The scale of a pairwise judge."""

Combine = Literal["mean", "median", "majority"]


@dataclass(frozen=True, slots=True)
class Scale:
    """The grades of a criterion; `steps` is None where any number from 0 to 1 will do."""

    words: str
    low: int
    high: int
    steps: tuple[int, ...] | None

    def schema(self) -> dict[str, Any]:
        if self.steps is None:
            return {"type": "number", "minimum": self.low, "maximum": self.high}
        return {"type": "integer", "enum": list(self.steps)}

    def has(self, grade: Json) -> bool:
        if self.steps is None:
            return type(grade) in (int, float) and bool(self.low <= grade <= self.high)
        # JSON Schema, which the judge was given, has 4.0 for an integer as well.
        return type(grade) in (int, float) and grade in self.steps

    def share(self, grade: float) -> float:
        """The grade on 0..1."""
        return (grade - self.low) / (self.high - self.low)


SCALES: dict[str, Scale] = {
    "0 or 1": Scale("0 or 1", 0, 1, (0, 1)),
    "1 to 3": Scale("1 to 3", 1, 3, (1, 2, 3)),
    "1 to 4": Scale("1 to 4", 1, 4, (1, 2, 3, 4)),
    "1 to 5": Scale("1 to 5", 1, 5, (1, 2, 3, 4, 5)),
    "0 to 1, any number": Scale("0 to 1, any number", 0, 1, None),
    BETTER: Scale("1 the first, 2 the second, 0 a tie", 0, 2, (0, 1, 2)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One question of the rubric."""

    name: str
    scale: Scale
    description: str
    anchors: tuple[tuple[str, str], ...]
    """(grade, what it means), best first as the file has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A judgement shown to the judge before the real question."""

    pieces: Mapping[str, Json]
    reason: str
    grades: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSpec:
    """A judge as its file describes it."""

    name: str
    version: str
    hash: str
    path: Path
    model: str | None
    """None: the configuration's `judge_model`."""
    criteria: tuple[Criterion, ...]
    inputs: tuple[str, ...]
    """Of input, documents, reference: what the judge sees beside the answer."""
    optional: frozenset[str]
    """Those of `inputs` that a case may lack."""
    examples: tuple[Example, ...]
    votes: int
    pass_at: float
    temperature: float = 0.0
    pairwise: bool = False
    """Two answers of the same case are compared; else one is graded."""
    members: tuple[JudgeSpec, ...] = ()
    """Of a panel: it has no rubric of its own."""
    combine: Combine | None = None
    """How a panel makes one score of its members'."""
    null_answers_allowed: bool = False
    """Whether an answer that says nothing can be right by this rubric."""

    @property
    def judged(self) -> tuple[str, ...]:
        """Blocks that hold what is judged."""
        return COMPARED if self.pairwise else GRADED

    @property
    def leaves(self) -> tuple[JudgeSpec, ...]:
        """The judges that ask a model: the members of a panel, else the judge itself."""
        return self.members or (self,)


# --- loading ---------------------------------------------------------------------


def load_judge(path: Path) -> JudgeSpec:
    """Read a judge's file; raises ContentError with every problem as `file:line: …`."""
    return _load(path, member=False)


def _load(path: Path, *, member: bool) -> JudgeSpec:
    shown = f"{path.parent.name}/{path.name}"
    try:
        text = read_text(path, max_bytes=MAX_JUDGE_BYTES)
        document = load_yaml(text, where=shown)
    except StrictError as error:
        raise ContentError(f"{shown}:{error.line}: {error.message}.") from None
    faults = find_faults(document.value, "judge") or list(_cross_check(document.value, path))
    if faults:
        raise ContentError([f"{shown}:{document.line(one.place)}: {one}" for one in faults])
    normalised = text.replace("\r\n", "\n").replace("\r", "\n")
    if "judges" in document.value and member:
        names = ", ".join(document.value["judges"])
        raise ContentError(f"{path.stem} is a panel itself. Name its judges instead: {names}.")
    if "judges" not in document.value:
        return _spec(document.value, path, _digest(normalised))
    members, problems = _members(document.value["judges"], path)
    if problems:
        line = document.line(("judges",))
        raise ContentError([f"{shown}:{line}: {problem}" for problem in problems])
    return _panel(document.value, path, members, normalised)


def _digest(text: str) -> str:
    return sha256(f"{WIRE_VERSION}\n{text}".encode()).hexdigest()[:16]


def _members(names: Sequence[str], path: Path) -> tuple[tuple[JudgeSpec, ...], list[str]]:
    """The judges of a panel, found as any judge is, and what is wrong with their being there."""
    members: list[JudgeSpec] = []
    problems: list[str] = []
    for name in names:
        try:
            file = find_content("judges", f"{name}.yaml", project=path.parent.parent)
            members.append(_load(file, member=True))
        except ContentError as error:
            problems += error.problems
    if len({one.pairwise for one in members}) > 1:
        pairwise = [one.name for one in members if one.pairwise]
        problems.append(f"{', '.join(pairwise)} compares, the others grade. Use either kind.")
    return tuple(members), problems


def _panel(
    table: Mapping[str, Any], path: Path, members: tuple[JudgeSpec, ...], text: str
) -> JudgeSpec:
    """A panel is another one when a member is, and needs of a case what any member needs."""
    wanted = {kind for one in members for kind in one.inputs}
    needed = {kind for one in members for kind in set(one.inputs) - one.optional}
    return JudgeSpec(
        name=table["name"],
        version=table["version"],
        hash=_digest("\n".join([text, *(one.hash for one in members)])),
        path=path,
        model=None,
        criteria=(),
        inputs=tuple(kind for kind in PIECES if kind in wanted),
        optional=frozenset(wanted - needed),
        examples=(),
        votes=1,
        pass_at=table.get("pass_at", 0.5),
        pairwise=members[0].pairwise,
        members=members,
        combine=table.get("combine", "mean"),
        null_answers_allowed=_allows_null(table),
    )


def _spec(table: Mapping[str, Any], path: Path, digest: str) -> JudgeSpec:
    return JudgeSpec(
        name=table["name"],
        version=table["version"],
        hash=digest,
        path=path,
        model=table.get("model"),
        criteria=tuple(
            Criterion(
                name=one["name"],
                scale=SCALES[one["scale"]],
                description=_one_line(one["description"]),
                anchors=tuple((k, _one_line(v)) for k, v in one.get("anchors", {}).items()),
            )
            for one in table["rubric"]
        ),
        inputs=tuple(one.rstrip("?") for one in table["inputs"]),
        optional=frozenset(one.rstrip("?") for one in table["inputs"] if one.endswith("?")),
        examples=tuple(
            Example(
                pieces={k: one[k] for k in (*PIECES, *GRADED, *COMPARED) if k in one},
                reason=_one_line(one["reason"]),
                grades={c["name"]: one["grades"][c["name"]] for c in table["rubric"]},
            )
            for one in table.get("examples", ())
        ),
        votes=table.get("votes", 1),
        pass_at=table.get("pass_at", 0.5),
        temperature=table.get("temperature", 0.0),
        pairwise=table.get("pairwise", False),
        null_answers_allowed=_allows_null(table),
    )


def _allows_null(table: Mapping[str, Any]) -> bool:
    return bool(table.get("null_answers", "fail") == "allowed")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cross_check(table: Mapping[str, Any], path: Path) -> Iterator[Fault]:
    """What the schema cannot say: names that must agree, grades that must be on the scale."""
    if table["name"] != path.stem:
        problem = f'name is "{table["name"]}", the file is {path.name}'
        yield Fault(("name",), problem, f"Write name: {path.stem}, or rename the file")
    if "judges" in table:
        for key in ("rubric", "inputs", "examples", "votes", "model", "temperature", "pairwise"):
            if key in table:
                fix = "Leave it out; it stands in the judges' own files"
                yield Fault((key,), f'"{key}" has no meaning for a panel', fix)
        return
    if "combine" in table:
        yield Fault(("combine",), '"combine" belongs to a panel', "Add judges: [...], or remove it")
    scales = {one["name"]: SCALES[one["scale"]] for one in table["rubric"]}
    if len(scales) < len(table["rubric"]):
        yield Fault(("rubric",), "two criteria have the same name", "Rename one")
    pairwise = table.get("pairwise", False)
    for number, one in enumerate(table["rubric"]):
        scale = SCALES[one["scale"]]
        if (one["scale"] == BETTER) != pairwise:
            at = ("rubric", number, "scale")
            fix = f"Write scale: {BETTER}" if pairwise else "Add pairwise: true, or grade each"
            yield Fault(at, f'{label(at)} is "{one["scale"]}"', fix)
        for grade in one.get("anchors", {}):
            if not _is_anchor(grade, scale):
                place = ("rubric", number, "anchors", grade)
                yield Fault(place, f'{label(place)}: "{grade}" is no grade', f"Use {scale.words}")
    for number, example in enumerate(table.get("examples", ())):
        where = ("examples", number)
        yield from _check_example(example, where, scales, table["inputs"])
        yield from _check_judged(example, where, pairwise=pairwise)


def _is_anchor(grade: str, scale: Scale) -> bool:
    try:
        value = loads_json(grade, where="anchor")
    except StrictError:
        return False
    return scale.has(value)


def _check_judged(
    example: Mapping[str, Any], place: tuple[str | int, ...], *, pairwise: bool
) -> Iterator[Fault]:
    """An example shows one answer to a judge that grades, two to one that compares."""
    wanted, other = (COMPARED, GRADED) if pairwise else (GRADED, COMPARED)
    for key in wanted:
        if key not in example:
            yield Fault(place, f'{label(place)} has no "{key}"', "Add it: an answer to judge")
    for key in other:
        if key in example:
            where = (*place, key)
            fix = f"Write {' and '.join(wanted)}"
            yield Fault(where, f"{label(where)}: this judge does not see it", fix)


def _check_example(
    example: Mapping[str, Any],
    place: tuple[str | int, ...],
    scales: Mapping[str, Scale],
    inputs: Sequence[str],
) -> Iterator[Fault]:
    grades = example["grades"]
    for name, scale in scales.items():
        if name not in grades:
            where = (*place, "grades")
            yield Fault(where, f"{label(where)} has no {name}", f"Add {name}: {scale.words}")
        elif not scale.has(grades[name]):
            where = (*place, "grades", name)
            yield Fault(where, f"{label(where)} is {grades[name]}", f"Use {scale.words}")
    for name in grades.keys() - scales.keys():
        where = (*place, "grades", name)
        yield Fault(where, f"{label(where)}: no such criterion", nearest(name, scales))
    wanted = {one.rstrip("?") for one in inputs}
    for kind in PIECES:
        if kind in example and kind not in wanted:
            where = (*place, kind)
            yield Fault(
                where, f"{label(where)}: the judge does not see it", f"Add {kind} to inputs"
            )
        elif kind in inputs and kind not in example:
            yield Fault(place, f"{label(place)} has no {kind}", f"Add {kind}: the judge sees it")
