"""Foreign text as its reader would see it, and as nothing else.

Markdown becomes HTML that this module alone writes: no raw HTML, no image, no link that can
be followed. What cannot be seen is written as an escape, what is long is cut and counted.
Citations of documents lead to the document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from evalkit.decide.report_text import count, visible
from evalkit.strict import StrictError, loads_json

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

MAX_RENDERED_CHARS = 20_000
"""Longer texts are shown plain, and only their beginning."""
MAX_DOCUMENTS = 100
MAX_FIELDS = 20
_MARKDOWN_SIGN = re.compile(r"[*_`#>|~\[\]]|^\s*(?:[-+]|\d+[.)])\s|\n\s*\n|^ {4}", re.M)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document that the answer was to be based on."""

    number: int
    """From 1; its anchor in the page is `doc-1`."""
    id: str
    title: str
    html: Markup
    cited: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text for the page."""

    html: Markup
    kind: str
    """fields | json | prose | plain"""
    n_cut: int = 0
    source: str | None = None
    """The text as it came, where the page shows it otherwise."""


def render_text(text: str, *, documents: Mapping[str, int] | None = None) -> Text:
    """An answer or an input: JSON as its fields, Markdown as prose, all else as it is.

    `documents`: id -> number of those that a citation can lead to.
    """
    known = documents or {}
    if len(text) > MAX_RENDERED_CHARS:
        shown, n_cut = visible(text[:MAX_RENDERED_CHARS]), len(text) - MAX_RENDERED_CHARS
        return Text(html=escape(shown), kind="plain", n_cut=n_cut)
    if text.lstrip()[:1] in ("{", "["):
        try:
            return render_value(loads_json(text, where=""), documents=known)
        except StrictError:
            pass
    return _prose(visible(text), known)


def _prose(shown: str, known: Mapping[str, int]) -> Text:
    if not _MARKDOWN_SIGN.search(shown):
        return Text(html=cite(shown, known), kind="plain")
    html = Markup(_markdown().render(shown, {"documents": known}))
    return Text(html=html, kind="prose", source=shown)


def render_input(value: Any) -> Text | None:
    """An input: of a single text the text alone; None when there is nothing in it."""
    return None if value in (None, "", {}) else render_value(value, is_input=True)


def render_value(
    value: Any, *, documents: Mapping[str, int] | None = None, is_input: bool = False
) -> Text:
    """A parsed value: a bare text as text, a flat object field by field, else indented JSON."""
    known = documents or {}
    if isinstance(value, str):
        return render_text(value, documents=known)
    if isinstance(value, dict) and len(value) == 1:
        only = next(iter(value.values()))
        if isinstance(only, str) and is_input:
            return render_text(only, documents=known)
    source = json.dumps(value, indent=2, ensure_ascii=False)
    if len(source) > MAX_RENDERED_CHARS:
        shown, n_cut = visible(source[:MAX_RENDERED_CHARS]), len(source) - MAX_RENDERED_CHARS
        return Text(html=escape(shown), kind="plain", n_cut=n_cut)
    if not _is_flat(value):
        return Text(html=render_json(value, known), kind="json")
    fields = [
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(visible(key), _field(one, known))
        for key, one in value.items()
    ]
    html = Markup("<dl>{}</dl>").format(Markup("").join(fields))
    return Text(html=html, kind="fields", source=visible(source))


def _is_flat(value: Any) -> bool:
    """Whether an object's fields read well one below the other."""
    if not isinstance(value, dict) or not 0 < len(value) <= MAX_FIELDS:
        return False
    inside = [one for of in value.values() for one in (of if isinstance(of, list) else [of])]
    return not any(isinstance(one, dict | list) for one in inside)


def _field(value: Any, known: Mapping[str, int]) -> Markup:
    """One field; what is no text is marked as such, so that 5 is not taken for "5"."""
    if isinstance(value, list):
        parts = [Markup("<li>{}</li>").format(_field(one, known)) for one in value]
        return Markup("<ul>{}</ul>").format(Markup("").join(parts)) if parts else _atom("[]")
    if not isinstance(value, str):
        return _atom(_dumps(value))
    if value in known:
        return _link(visible(value), known[value])
    if not value.strip():
        return _atom(visible(_dumps(value)))
    prose = _prose(visible(value), known)
    return Markup('<div class="is-{}">{}</div>').format(prose.kind, prose.html)


def _atom(text: str) -> Markup:
    return Markup('<code class="atom">{}</code>').format(text)


def render_documents(documents: Any, outputs: Sequence[str]) -> list[Document]:
    """The documents of an input, those that an answer names marked as cited."""
    listed = documents if isinstance(documents, list) else []
    ids = document_numbers(documents)
    cited = {id_ for output in outputs for id_ in cited_ids(output, ids)}
    found = []
    for number, one in enumerate(listed[:MAX_DOCUMENTS], 1):
        of = one if isinstance(one, Mapping) else {"text": str(one)}
        id_ = str(of.get("id", f"d{number}"))
        text = of.get("text")
        found.append(
            Document(
                number=number,
                id=id_,
                title=str(of.get("title") or ""),
                html=render_value(text if isinstance(text, str) else dict(of)).html,
                cited=id_ in cited,
            )
        )
    return found


def document_numbers(documents: Any) -> dict[str, int]:
    """Id -> number, from 1, of the documents of an input."""
    listed = documents if isinstance(documents, list) else []
    return {
        str(one.get("id", f"d{number}")) if isinstance(one, Mapping) else f"d{number}": number
        for number, one in enumerate(listed[:MAX_DOCUMENTS], 1)
    }


def cited_ids(output: str, known: Mapping[str, int]) -> set[str]:
    """Ids that stand in an answer in brackets, or as a whole string of its JSON."""
    try:
        return {one for one in _strings(loads_json(output, where="")) if one in known} | {
            found[1] for found in _brackets(known).finditer(output)
        }
    except StrictError:
        return {found[1] for found in _brackets(known).finditer(output)}


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for one in inside for text in _strings(one)]


def _brackets(known: Mapping[str, int]) -> re.Pattern[str]:
    return _brackets_of(tuple(sorted(known, key=lambda id_: (-len(id_), id_))))


@lru_cache(maxsize=256)
def _brackets_of(ids: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"\[({'|'.join(map(re.escape, ids))})\]" if ids else r"(?!)()")


def cite(text: str, known: Mapping[str, int]) -> Markup:
    """Escaped text, with `[id]` of a document as a link to it."""
    if not known:
        return escape(text)
    parts, end = [], 0
    for found in _brackets(known).finditer(text):
        parts.append(escape(text[end : found.start()]))
        parts.append(_link(found[0], known[found[1]]))
        end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


def _link(text: str, number: int) -> Markup:
    return Markup('<a class="cite" href="#doc-{}">{}</a>').format(number, text)


# --- JSON -----------------------------------------------------------------------------


def render_json(value: Any, known: Mapping[str, int] | None = None) -> Markup:
    """A JSON value, indented, its parts told apart by class."""
    return _json(value, known or {}, "")


def _json(value: Any, known: Mapping[str, int], indent: str) -> Markup:
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        lines = [
            Markup('{}<span class="key">{}</span>: {}').format(
                deeper, visible(_dumps(key)), _json(one, known, deeper)
            )
            for key, one in value.items()
        ]
        return Markup("{{\n{}\n{}}}").format(Markup(",\n").join(lines), indent)
    if isinstance(value, list) and value:
        if all(not isinstance(one, dict | list) for one in value):
            return Markup("[{}]").format(
                Markup(", ").join(_json(one, known, deeper) for one in value)
            )
        lines = [Markup("{}{}").format(deeper, _json(one, known, deeper)) for one in value]
        return Markup("[\n{}\n{}]").format(Markup(",\n").join(lines), indent)
    if isinstance(value, str):
        if value in known:
            return _link(_dumps(value), known[value])
        text = cite(visible(_dumps(value)), known)
        return Markup('<span class="string">{}</span>').format(text)
    return Markup('<span class="atom">{}</span>').format(_dumps(value))


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- Markdown --------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    """CommonMark with tables, without HTML and images; links are shown and lead nowhere."""
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 20})
    markdown.enable(["table", "strikethrough"]).disable(["image", "html_block", "html_inline"])
    renderer: Any = markdown.renderer
    rules = renderer.rules
    rules["text"] = lambda tokens, at, options, env: str(
        cite(tokens[at].content, env.get("documents", {}))
    )
    rules["link_open"] = lambda tokens, at, options, env: '<span class="link">'
    rules["link_close"] = _link_close
    for tag in ("heading_open", "heading_close"):
        rules[tag] = _heading
    for tag in ("th", "td"):
        # Without the alignment, which would be a style attribute.
        rules[f"{tag}_open"] = lambda tokens, at, options, env: f"<{tokens[at].tag}>"
    return markdown


def _link_close(tokens: Sequence[Any], at: int, options: Any, env: Any) -> str:
    """The address behind a link's text, for people to see where it would lead."""
    depth, back = 0, at
    while back >= 0:
        depth += {"link_close": 1, "link_open": -1}.get(tokens[back].type, 0)
        if depth == 0:
            break
        back -= 1
    href = str(tokens[back].attrs.get("href", ""))
    shown = "".join(token.content for token in tokens[back + 1 : at])
    return "</span>" if shown == href else f'</span> <span class="url">({escape(href)})</span>'


def _heading(tokens: Sequence[Any], at: int, options: Any, env: Any) -> str:
    """An answer's headings are no headings of the page."""
    level = tokens[at].tag
    return f'<p class="{level}">' if tokens[at].type == "heading_open" else "</p>\n"


def cut_note(text: Text) -> str:
    return f"… {count(text.n_cut, 'more character')}" if text.n_cut else ""
