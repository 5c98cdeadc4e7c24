"""benchmarks/studies/index.md and its kin: every claim that has a page in a folder, with its verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from minicnn import checkpoint
from minicnn.study import page, report
from minicnn.study.page import Block, Heading, Table, Text

HEAD = ("claim", "verdict", "scale", "seeds", "decided by", "the papers")


def write(folder: Path) -> Path:
    """Write index.md and index.html from the pages' own summaries; returns the former's path."""
    summaries = sorted(map(_read, folder.glob("[0-9][0-9]-*.json")), key=lambda summary: summary["number"])
    rows = [
        (
            f"[{s['number']}. {s['title']}]({s['name']}.md)",
            f"**{s['verdict']}**" + (", against the papers" if s["contradicts"] else ""),
            s["scale"] or "–",
            str(s["seeds"] or "–"),
            s["figure"] or "–",
            s["published"],
        )
        for s in summaries
    ]
    blocks: list[Block] = [
        Heading("The claims of the papers, and what came out here", 1),
        Text(
            "Each verdict is computed from an interval, by `python -m minicnn.study`: a claim holds if the whole "
            "interval lies where the claim says, does not hold if it lies wholly elsewhere, and is undecided "
            "otherwise."
        ),
        Table(HEAD, rows),
    ]
    path = folder / "index.md"
    checkpoint.write_whole(path, page.markdown(blocks).encode())
    checkpoint.write_whole(folder / "index.html", page.html("Studies", blocks).encode())
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text("utf-8"))
        return {key: summary[key] for key in report.SUMMARY}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: is damaged or of another version; delete it, and write its page anew") from None
