"""Make a page of a template and what it is told; nothing but text comes of foreign text.

For the report, the dashboard and the pages for labelling. Model output is hostile: everything
is escaped, nothing is loaded, and a page's own policy forbids any style or script but those
it came with.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.content import content_dirs, find_content
from evalkit.decide import report_text as texts
from evalkit.errors import ContentError

if TYPE_CHECKING:
    from jinja2 import Environment


def templates(project: Path, **filters: Callable[..., Any]) -> Environment:
    """Escapes everything, always; what a template names and nobody gives is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(content_dirs("reports", project=project)),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else texts.visible(value),
    )
    environment.filters |= filters
    return environment


def fill(environment: Environment, name: str, values: Mapping[str, Any]) -> str:
    """The page of `reports/<name>` as text. Raises ContentError when a template is broken."""
    from jinja2 import TemplateError

    try:
        return environment.get_template(name).render(values)
    except TemplateError as error:
        line, broken = getattr(error, "lineno", 1), getattr(error, "name", None)
        raise ContentError(f"reports/{broken or name}:{line}: {error}") from None


def own_part(name: str, *, project: Path) -> str:
    """A style or script that stands in the page: a file of the project, or of the package."""
    text = find_content("reports", name, project=project).read_text(encoding="utf-8").strip()
    if "</" in text or "<!--" in text:
        raise ContentError(f"reports/{name}: must not have </ or <!-- in it. Write <\\/.")
    return text


def source_of(text: str) -> str:
    """What a page's policy calls a style or script that it allows."""
    digest = base64.b64encode(sha256(text.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"


# --- the report -----------------------------------------------------------------------


def render(name: str, told: Mapping[str, Any], *, project: Path, script: bool) -> str:
    """The page of `reports/<name>` as text, with or without the report's script."""
    from markupsafe import Markup

    css, js = (own_part(part, project=project) for part in ("report.css", "report.js"))
    policy = (
        f"default-src 'none'; style-src {source_of(css)}; "
        + (f"script-src {source_of(js)}; " if script else "")
        + "img-src data:; base-uri 'none'; form-action 'none'"
    )
    own = {"css": Markup(css), "js": Markup(js), "policy": policy, "version": version("evalkit")}
    environment = templates(
        project,
        score=texts.score,
        points=texts.points,
        p_value=texts.p_value,
        percent=texts.percent,
        milliseconds=texts.milliseconds,
        dollars=texts.dollars,
        count=texts.count,
        amount=texts.amount,
        hundredths=texts.hundredths,
        moment=_moment,
    )
    return fill(environment, name, {**own, **told})


def _moment(text: str | None) -> str | None:
    """A time of the store for people; anything else as it is."""
    try:
        return None if text is None else f"{datetime.fromisoformat(text):%d %B %Y, %H:%M} UTC"
    except ValueError:
        return text
