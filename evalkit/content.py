"""Find the content that people write or replace: judges, report templates, SQL, scaffolds.

One rule for every lookup: the user's own folder of that name first, then what the
wheel ships, then the checkout's folder beside the package (an editable install
does not see files that the wheel build adds).
"""

from __future__ import annotations

from pathlib import Path

from evalkit.errors import ContentError

_PACKAGE = Path(__file__).resolve().parent


def content_dirs(kind: str, *, project: Path) -> list[Path]:
    """Folders that may hold `kind` ("judges", "reports", "scaffold"), in the order they win."""
    candidates = [project / kind, _PACKAGE / "_shipped" / kind, _PACKAGE.parent / kind]
    seen: dict[Path, Path] = {}
    for folder in candidates:
        if folder.is_dir():
            seen.setdefault(folder.resolve(), folder)
    return list(seen.values())


def find_content(kind: str, name: str, *, project: Path) -> Path:
    """Path of the content file `kind/name`.

    Raises ContentError when no folder has it, naming the nearest that exists.
    """
    folders = content_dirs(kind, project=project)
    for folder in folders:
        path = folder / name
        if path.is_file():
            return path
    known = sorted({str(p.relative_to(f)) for f in folders for p in f.rglob("*") if p.is_file()})
    raise ContentError(
        f"{kind}/{name}: no such file in {project / kind} or in the package. "
        f"There are: {', '.join(known) or 'none'}."
    )
