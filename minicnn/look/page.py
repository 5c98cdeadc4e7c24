"""One HTML page with all pictures in it: it needs no other file and no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

STYLE = """
body { font: 16px/1.5 sans-serif; color: #222; max-width: 60em; margin: 2em auto; padding: 0 1em; }
h2 { margin-top: 2.5em; }
img { max-width: 100%; border: 1px solid #ddd; }
th { text-align: left; padding-right: 1.5em; font-weight: normal; color: #666; vertical-align: top; }
figure { margin: 1em 0; }
figcaption, .how { color: #555; }
"""


class Figure(NamedTuple):
    """A picture as a file, and what is said of it."""

    file: str  # "filters.png"; its suffix is its kind, png or svg
    content: bytes
    caption: str


class Section(NamedTuple):
    """The answer to one question: what is shown, how to read it, the pictures."""

    title: str
    explanation: str  # paragraphs with empty lines between them; what is indented is a formula or a table
    figures: list[Figure]


def html(title: str, facts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """The page as text."""
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        "<table>",
        *(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items()),
        "</table>",
    ]
    for section in sections:
        lines += [f"<h2>{escape(section.title)}</h2>", *map(_paragraph, section.explanation.split("\n\n"))]
        for figure in section.figures:
            lines.append(
                f'<figure><img src="{_inlined(figure)}" alt="{escape(section.title)}">'
                f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
            )
    return "\n".join([*lines, "</body></html>", ""])


def _paragraph(text: str) -> str:
    return f"<pre>{escape(text)}</pre>" if text.startswith("    ") else f'<p class="how">{escape(text)}</p>'


def _inlined(figure: Figure) -> str:
    kind = "svg+xml" if figure.file.endswith(".svg") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(figure.content).decode()}"
