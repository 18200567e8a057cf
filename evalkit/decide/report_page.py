"""Make a page of a template and what it is told; nothing but text comes of foreign text.

Part of the report. Model output is hostile: everything is escaped, nothing is loaded, and
the page's own policy forbids any style or script but those it came with.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
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


def render(name: str, told: Mapping[str, Any], *, project: Path, script: bool) -> str:
    """The page of `reports/<name>` as text, with or without the report's script.

    Raises ContentError when a template is broken.
    """
    from jinja2 import TemplateError

    try:
        template = _environment(project).get_template(name)
        return template.render(**_own_parts(project, script=script), **told)
    except TemplateError as error:
        line, broken = getattr(error, "lineno", 1), getattr(error, "name", None)
        raise ContentError(f"reports/{broken or name}:{line}: {error}") from None


def _environment(project: Path) -> Environment:
    """Escapes everything, always; what a template names and nobody gives is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(content_dirs("reports", project=project)),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else texts.visible(value),
    )
    environment.filters |= {
        name: getattr(texts, name)
        for name in (
            "score",
            "points",
            "p_value",
            "percent",
            "milliseconds",
            "dollars",
            "count",
            "amount",
            "hundredths",
        )
    }
    environment.filters["moment"] = _moment
    return environment


def _moment(text: str | None) -> str | None:
    """A time of the store for people; anything else as it is."""
    try:
        return None if text is None else f"{datetime.fromisoformat(text):%d %B %Y, %H:%M} UTC"
    except ValueError:
        return text


def _own_parts(project: Path, *, script: bool) -> dict[str, Any]:
    """The page's own style and script, and the policy that allows these alone.

    The only text that is not escaped: files of the project, or of the package.
    """
    from markupsafe import Markup

    css, js = (
        find_content("reports", name, project=project).read_text(encoding="utf-8").strip()
        for name in ("report.css", "report.js")
    )
    for name, text in (("report.css", css), ("report.js", js)):
        if "</" in text or "<!--" in text:
            raise ContentError(f"reports/{name}: must not have </ or <!-- in it. Write <\\/.")
    policy = (
        f"default-src 'none'; style-src '{_hash(css)}'; "
        + (f"script-src '{_hash(js)}'; " if script else "")
        + "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return {"css": Markup(css), "js": Markup(js), "policy": policy, "version": version("evalkit")}


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode("ascii")
