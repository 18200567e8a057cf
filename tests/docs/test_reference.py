"""The documentation says what the code does: generated pages, links, commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from evalkit.cli.main import cli
from scripts.reference import FOLDER, pages

CHECKOUT = Path(__file__).resolve().parents[2]
WRITTEN = sorted([CHECKOUT / "README.md", *(CHECKOUT / "docs").glob("*.md")])


@pytest.mark.parametrize("name", list(pages()))
def test_reference_pages_are_as_the_code_is(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8")

    assert written == pages()[name], "bring it up to date: python -m scripts.reference"


def test_there_is_no_other_page_beside_them() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(pages())


def ids(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", WRITTEN, ids=ids)
def test_links_lead_to_a_file_and_a_heading_that_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    broken = [
        target
        for target in re.findall(r"\]\(([^)\s]+)\)", _without_code(text))
        if not target.startswith(("https://", "http://")) and not _is_there(path, target)
    ]

    assert not broken


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def _is_there(path: Path, target: str) -> bool:
    file, _, heading = target.partition("#")
    found = (path.parent / file).resolve() if file else path
    if not heading or not found.is_file():
        return found.exists()
    headings = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
    return heading in {_anchor(one) for one in headings}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", WRITTEN, ids=ids)
def test_commands_in_the_text_exist_with_their_options(path: Path) -> None:
    wrong = [line for line in _commands(path.read_text(encoding="utf-8")) if not _exists(line)]

    assert not wrong


def test_commands_are_found_in_the_text_at_all() -> None:
    assert [*_commands("    evalkit gate --strict     # words\n")] == ["evalkit gate --strict"]
    assert not _exists("evalkit gate --strickt")
    assert not _exists("evalkit gait")
    assert _exists("evalkit baseline set RUN")


def _commands(text: str) -> Iterator[str]:
    """Lines of code that begin with evalkit, without what a comment or a pipe adds."""
    for line in re.findall(r"^    (?:\$ )?(evalkit [a-z].*)$", text, re.MULTILINE):
        yield re.split(r"\s+#|\s\||\s&&|;| \\$", line)[0]


def _exists(line: str) -> bool:
    try:
        words = shlex.split(line.replace("…", "").replace("[", "").replace("]", ""))[1:]
    except ValueError:
        return True
    command: click.Command = cli
    context = click.Context(cli)
    while words and isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        if found is None:
            return False
        command, words = found, words[1:]
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    return used <= known | {"--help"}
