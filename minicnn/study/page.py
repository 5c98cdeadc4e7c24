"""A page as a list of blocks, and two ways to write it down: Markdown with pictures beside it, and one HTML file."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple


class Heading(NamedTuple):
    text: str
    level: int = 2


class Text(NamedTuple):
    """A paragraph; `code` and **bold** are marked as in Markdown."""

    text: str


class Bullets(NamedTuple):
    items: Sequence[str]


class Table(NamedTuple):
    """Cells as text; all columns but the first are numbers, and stand on the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Picture(NamedTuple):
    """An SVG as text, or a PNG as bytes; `name` is its file's."""

    name: str
    content: str | bytes
    says: str


class Code(NamedTuple):
    text: str


Block = Heading | Text | Bullets | Table | Picture | Code


def markdown(blocks: Sequence[Block]) -> str:
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Text(text):
            return text
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Table(head, rows):
            rule = [":--", *["--:"] * (len(head) - 1)]
            cells = ([cell.replace("|", "\\|") for cell in row] for row in rows)
            return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *cells])
        case Picture(name, _, says):
            return f"![{says}]({name})"
        case Code(text):
            return f"```bash\n{text}\n```"


STYLE = """body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;margin:1rem 0;font-size:.9rem}th,td{border-bottom:1px solid #ddd;padding:.25rem .7rem;
text-align:right}th:first-child,td:first-child{text-align:left}svg,img{max-width:100%;height:auto}
code,pre{background:#f4f4f4;padding:.1rem .3rem}pre{padding:.7rem;overflow:auto}"""


def html(title: str, blocks: Sequence[Block]) -> str:
    """One file with everything in it."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_inline(text)}</h{level}>"
        case Text(text):
            return f"<p>{_inline(text)}</p>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</ul>"
        case Table(head, rows):
            lines = [_row(head, "th"), *(_row(row, "td") for row in rows)]
            return f"<table>{''.join(lines)}</table>"
        case Picture(_, content, says):
            if isinstance(content, str):
                return f"<figure>{content}</figure>"
            encoded = base64.b64encode(content).decode()
            return f'<figure><img alt="{escape(says)}" src="data:image/png;base64,{encoded}"/></figure>'
        case Code(text):
            return f"<pre>{escape(text)}</pre>"


def _row(cells: Sequence[str], kind: str) -> str:
    return f"<tr>{''.join(f'<{kind}>{_inline(cell)}</{kind}>' for cell in cells)}</tr>"


def _inline(text: str) -> str:
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    text = re.sub(r"\[([^]]+)\]\(([^)]+)\)", lambda m: f'<a href="{_page(m[2])}">{m[1]}</a>', text)
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)


def _page(link: str) -> str:
    """A link from one of our pages to another, which has the same ending."""
    return link.removesuffix(".md") + ".html" if link.endswith(".md") else link
