"""Markdown, code and formulas as HTML that is safe to show, whatever the text says.

Texts come from models and from strangers. Raw HTML stays text, images become their descriptions (a remote one would
tell its server who reads what), links go to the web or to a mail address only, and formulas keep nothing but MathML.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from threading import Lock
from typing import Any
from xml.etree import ElementTree as ET

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name  # pyright: ignore[reportUnknownVariableType] - its options have no types
from pygments.util import ClassNotFound

LONGEST = 50_000
"""Characters of a text that is rendered; longer ones are shown as they are."""

DEEPEST = 40
"""Quotes and lists inside each other; a text with more is shown as it is."""

_MATHML = frozenset(
    [
        "math",
        "mrow",
        "mi",
        "mn",
        "mo",
        "ms",
        "mtext",
        "mspace",
        "msub",
        "msup",
        "msubsup",
        "munder",
        "mover",
        "munderover",
        "mfrac",
        "msqrt",
        "mroot",
        "mtable",
        "mtr",
        "mtd",
        "mpadded",
        "mphantom",
        "menclose",
        "mstyle",
        "mmultiscripts",
        "mprescripts",
        "none",
    ]
)
_MATHML_ATTRIBUTES = frozenset(
    [
        "display",
        "mathvariant",
        "stretchy",
        "fence",
        "form",
        "separator",
        "lspace",
        "rspace",
        "minsize",
        "maxsize",
        "accent",
        "accentunder",
        "linethickness",
        "columnalign",
        "rowspacing",
        "columnspacing",
        "displaystyle",
        "scriptlevel",
        "width",
        "height",
        "depth",
        "notation",
        "movablelimits",
    ]
)
_BRACKETS = re.compile(r"\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL)
_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]*`)", re.DOTALL)


def rendered(text: str) -> str:
    """Markdown as safe HTML; a text of more than `LONGEST` characters as one preformatted block.

    Threads take turns: the parser is not made for several at once, and who wanted the same text finds it ready.
    """
    with _TURN:
        return _rendered(text)


@lru_cache(maxsize=4096)
def _rendered(text: str) -> str:
    if len(text) > LONGEST:
        return f"<pre>{escape(text)}</pre>"
    env: dict[str, Any] = {}
    tokens = _MARKDOWN.parse(_dollars(text), env)
    if any(token.level >= DEEPEST - 1 for token in tokens):  # the parser leaves out what is nested deeper
        return f"<pre>{escape(text)}</pre>"
    return str(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, env))


def _dollars(text: str) -> str:
    r"""Formulas in \[ \] and \( \) written with dollars, outside of code."""
    parts = _CODE.split(text)
    return "".join(part if k % 2 else _BRACKETS.sub(_with_dollars, part) for k, part in enumerate(parts))


def _with_dollars(found: re.Match[str]) -> str:
    block, inline = found.groups()
    return f"$${block.strip()}$$" if block else f"${inline.strip()}$"


def _formula(latex: str, options: dict[str, Any]) -> str:
    """A formula as MathML, or as its own source where it cannot be read."""
    try:
        root = ET.fromstring(convert(latex, display="block" if options.get("display_mode") else "inline"))
        return ET.tostring(_only_maths(root), encoding="unicode", default_namespace=None)
    except Exception:  # noqa: BLE001 - whatever a converter makes of hostile input, the text itself can be shown
        return f"<code>{escape(latex)}</code>"


def _only_maths(node: ET.Element) -> ET.Element:
    name = node.tag.rpartition("}")[2]
    if name not in _MATHML:
        raise ValueError(name)
    kept = ET.Element(name, {k: v for k, v in node.attrib.items() if k in _MATHML_ATTRIBUTES})
    kept.text, kept.tail = node.text, node.tail
    kept.extend(_only_maths(child) for child in node)
    return kept


def _highlighted(code: str, language: str, _: str) -> str:
    try:
        return highlight(code, get_lexer_by_name(language), HtmlFormatter(nowrap=True)) if language else ""
    except (ClassNotFound, ValueError):
        return ""


def _image(_renderer: Any, tokens: Sequence[Any], index: int, *_: Any) -> str:
    return f'<span class="image">[image: {escape(tokens[index].content)}]</span>'


def _link(renderer: Any, tokens: Sequence[Any], index: int, *rest: Any) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    tokens[index].attrSet("target", "_blank")
    return str(renderer.renderToken(tokens, index, *rest))


def _allowed(url: str) -> bool:
    return url.lower().startswith(("http://", "https://", "mailto:"))


def _markdown() -> MarkdownIt:
    found = MarkdownIt("commonmark", {"html": False, "highlight": _highlighted, "maxNesting": DEEPEST}).enable(
        ["table", "strikethrough"]
    )
    found.use(dollarmath_plugin, renderer=_formula, allow_space=False, double_inline=True)
    found.add_render_rule("image", _image)
    found.add_render_rule("link_open", _link)
    found.validateLink = _allowed
    return found


_MARKDOWN = _markdown()
_TURN = Lock()
