"""Fill one section of a prompt, and keep data apart from instructions.

Jinja2 in a sandbox: no files, no code, no calls but the few named here, bounded loops
and output. What `{{ … }}` inserts is data and stands in a `<data>` block that it cannot
close; `| inline` and `render_documents` are the two other forms. Imported by `prompts.py`
when the first prompt is read, as Jinja2 is slow to load.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from types import BuiltinMethodType, TracebackType
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import missing, pass_context

from evalkit.errors import ContentError
from evalkit.schemas import label, nearest

MAX_SECTION_CHARS = 4_000_000
"""About a million tokens: more than any model reads."""
MAX_LOOP_STEPS = 10_000
"""Of all loops of one section together."""
MAX_INLINE_CHARS = 200
MAX_KEYS_SHOWN = 20

Fill = Callable[[Mapping[str, Any]], str]
"""Variables to the text of a section; raises ContentError."""

FILTERS = (
    "abs", "capitalize", "default", "dictsort", "first", "float", "int", "items", "join", "last",
    "length", "list", "lower", "map", "rejectattr", "reverse", "round", "selectattr", "sort",
    "title", "tojson", "trim", "truncate", "unique", "upper",
)  # fmt: skip
"""The filters of Jinja2 that only look at data, or rearrange it."""

METHODS = frozenset({
    "endswith", "get", "items", "keys", "lower", "split", "splitlines", "startswith", "strip",
    "upper", "values",
})  # fmt: skip
"""What may be called on text, lists and tables."""

_REFUSED_NODES: Mapping[type[nodes.Node], str] = {
    nodes.Assign: "set",
    nodes.AssignBlock: "set",
    nodes.Block: "block",
    nodes.CallBlock: "call",
    nodes.Extends: "extends",
    nodes.FilterBlock: "filter",
    nodes.FromImport: "from",
    nodes.Import: "import",
    nodes.Include: "include",
    nodes.Macro: "macro",
    nodes.With: "with",
}
"""What reads files, leaves the delimiting out, or lets text grow beyond what comes in."""

_COUNTED = " counted"
_STEPS = " steps"
"""A filter and a variable that no template can name, because of the space."""

RAW_HINT = "To show braces as they are, write {% raw %} before and {% endraw %} after them"
DOCUMENTS_HINT = 'Send a list of {"id": "…", "text": "…", "title": "…"}'


class Ready(str):
    """Text that is safe to stand in a prompt as it is; all other text is data."""

    __slots__ = ()


# --- data ------------------------------------------------------------------------

_TAG = re.compile(r"<(?=[^\w<]*+(?:data|document))", re.IGNORECASE)
"""The bracket of anything that reads like a tag of ours, odd spaces and case included."""


def neutral(text: str) -> str:
    """`text` with nothing in it that could open or close a block of data."""
    return _TAG.sub("&lt;", text)


def as_data(value: Any) -> str:
    """What `{{ value }}` inserts: text and tables in a block, numbers and the like as they are."""
    if isinstance(value, (Ready, Undefined)):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if callable(value):
        raise _Refused("a function is not data", "Call it, or remove it")
    return f"<data>\n{neutral(_as_text(value))}\n</data>"


def inline(value: Any) -> Ready:
    """A short value within a line: one line, no angle brackets, at most `MAX_INLINE_CHARS`."""
    start = _as_text(value)[: MAX_INLINE_CHARS * 4]
    text = " ".join("".join(c if c.isprintable() else " " for c in start).split())
    if len(text) > MAX_INLINE_CHARS:
        text = text[: MAX_INLINE_CHARS - 1] + "…"
    return Ready(text.replace("<", "&lt;").replace(">", "&gt;"))


def render_documents(documents: Iterable[Any]) -> Ready:
    """`<document id="…" title="…">` blocks of `{id, text, title?}`, in their order.

    A document without an id is named by its place: d1, d2, …
    """
    if isinstance(documents, (str, Mapping)) or not isinstance(documents, (Sequence, Undefined)):
        raise _Refused("documents is not a list", DOCUMENTS_HINT)
    return Ready("\n".join(_document(one, number) for number, one in enumerate(documents, 1)))


def _document(document: Any, number: int) -> str:
    if isinstance(document, str):
        document = {"text": document}
    if not isinstance(document, Mapping) or not isinstance(document.get("text"), str):
        raise _Refused(f"document {number} has no text", DOCUMENTS_HINT)
    name = _attribute(document.get("id", "")) or f"d{number}"
    title = document.get("title")
    attributes = f'id="{name}"' + (f' title="{_attribute(title)}"' if title is not None else "")
    return f"<document {attributes}>\n{neutral(document['text'])}\n</document>"


def _attribute(value: Any) -> str:
    return inline(value).replace('"', "&quot;")


def _as_text(value: Any) -> str:
    if isinstance(value, (Mapping, list, tuple)):
        return json.dumps(value, ensure_ascii=False, indent=1, default=str)
    return str(value)


# --- templates -------------------------------------------------------------------


def compile_section(source: str, *, where: str, line: int) -> Fill:
    """Compile a section that begins on `line` of the file `where`.

    Raises ContentError for what is not a template, or is not available in a prompt.
    """

    def fault(at: int, problem: str, fix: str) -> ContentError:
        stop = "" if fix.endswith(("?", ".")) else "."
        return ContentError(f"{where}:{line + at - 1}: {problem}. {fix}{stop}")

    environment = _environment()
    try:
        tree = environment.parse(source)
        for node in tree.find_all(tuple(_REFUSED_NODES)):
            problem = f"{{% {_REFUSED_NODES[type(node)]} %}} is not available in a prompt"
            raise fault(node.lineno, problem, "Write the text out, or prepare the value before")
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, _COUNTED, [], [], None, None, lineno=loop.lineno)
        code = environment.compile(tree, filename=where)
        template = Template.from_code(environment, code, environment.globals)
    except TemplateSyntaxError as error:
        raise fault(error.lineno, *_syntax_problem(error.message or "")) from None
    except (RecursionError, SyntaxError, OverflowError) as error:
        raise fault(1, f"not a template: {error}", "Nest less deeply") from None

    def fill(variables: Mapping[str, Any]) -> str:
        own = {key: value for key, value in variables.items() if key not in environment.globals}
        try:
            return _run(template, {**own, _STEPS: [0]})
        except Exception as error:  # a template is a program: whatever it does, say where
            at = template.get_corresponding_lineno(_last_line(error.__traceback__, where))
            raise fault(at, *_run_problem(error, variables)) from None

    if _is_plain(tree):
        text = fill({})
        return lambda variables: text
    return fill


def _is_plain(tree: nodes.Template) -> bool:
    """Whether a section is the same text whatever the input."""
    return all(
        isinstance(node, nodes.Output)
        and all(isinstance(part, nodes.TemplateData) for part in node.nodes)
        for node in tree.body
    )


def _run(template: Template, variables: dict[str, Any]) -> str:
    pieces, size = [], 0
    for piece in template.root_render_func(template.new_context(variables)):
        size += len(piece)
        if size > MAX_SECTION_CHARS:
            raise _Refused(f"more than {MAX_SECTION_CHARS:,} characters", "Send less data")
        pieces.append(piece)
    return "".join(pieces).strip()


class _Refused(Exception):
    """A value or a size that a prompt cannot take; the arguments are the problem and the fix."""


class _NoKey(Exception):
    """A value that is not there; the arguments are its name and what should have it."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox, narrowed: named methods only, no way to make data grow."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def is_safe_callable(self, obj: Any) -> bool:
        if isinstance(obj, BuiltinMethodType):
            return obj.__name__ in METHODS
        return any(obj is function for function in self.globals.values())

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not all(isinstance(one, (int, float)) for one in (left, right)):
            raise SecurityError(f"{operator} is for numbers alone, and ** for none")
        return super().call_binop(context, operator, left, right)


class _Missing(StrictUndefined):
    """A missing value: any use of it raises `_NoKey` where Jinja2 would word an error."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        raise _NoKey(self._undefined_name, self._undefined_obj)


@lru_cache(maxsize=1)
def _environment() -> _Sandbox:
    environment = _Sandbox(
        undefined=_Missing,
        finalize=as_data,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    known = environment.filters
    environment.filters = {name: known[name] for name in FILTERS}
    environment.filters |= {"inline": inline, _COUNTED: _counted}
    environment.globals = {"range": safe_range, "render_documents": render_documents}
    return environment


@pass_context
def _counted(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    steps = context[_STEPS]
    for item in items:
        steps[0] += 1
        if steps[0] > MAX_LOOP_STEPS:
            raise _Refused(f"loops of more than {MAX_LOOP_STEPS:,} steps", "Send less data")
        yield item


# --- what went wrong ---------------------------------------------------------------


def _syntax_problem(message: str) -> tuple[str, str]:
    unknown = re.match(r"No filter named '([^']*)'", message)
    if unknown:
        return f'there is no filter "{unknown[1]}"', nearest(unknown[1], [*FILTERS, "inline"])
    return f"not a template: {message[:1].lower()}{message[1:].rstrip('.')}", RAW_HINT


def _run_problem(error: Exception, variables: Mapping[str, Any]) -> tuple[str, str]:
    if isinstance(error, _Refused):
        return error.args
    if isinstance(error, _NoKey):
        name, holder = error.args
        return _missing_problem(str(name), holder, variables)
    said = " ".join(_ADDRESS.sub("", str(error))[:200].split())
    if isinstance(error, SecurityError):
        return f"not allowed in a prompt: {said}", "Prepare the value before the call"
    return f"{type(error).__name__}: {said}", "Correct the template or the input"


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def _missing_problem(name: str, holder: Any, variables: Mapping[str, Any]) -> tuple[str, str]:
    if not isinstance(holder, Mapping) and holder is not missing:
        return f'a {type(holder).__name__} of the input has no "{name}"', "Correct the template"
    whole = holder is missing or holder is variables.get("input")
    known = variables if holder is missing else holder
    keys = sorted(label((str(key),)) for key in known if not (whole and key == "input"))
    near = get_close_matches(name, keys, n=1)
    fix = f'Did you mean "{near[0]}"?' if near else "Add it to the input, or correct the prompt"
    who, what = "the input" if whole else "a table of the input", ", ".join(keys[:MAX_KEYS_SHOWN])
    return f'{who} has no "{name}"; it has: {what or "nothing"}', fix


def _last_line(traceback: TracebackType | None, where: str) -> int:
    """Line of the innermost frame that runs the template."""
    line = 1
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == where:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
