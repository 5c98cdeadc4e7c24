"""What a benchmark leaves behind: a table as Markdown for people, and the same with all raw figures as JSON."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import minicnn

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of raw figures, and how to show them.

    `columns` maps a heading to a format of the row's entries: {"ms": "{minicnn[median]:.0f}"}. An entry that is None
    shows as a dash; entries without a column are found in the JSON only.
    """

    name: str  # of the files
    title: str
    columns: Mapping[str, str]
    rows: Sequence[Row]
    machine: Mapping[str, str]
    notes: Sequence[str] = ()
    figure: str | None = None  # an SVG

    def markdown(self) -> str:
        cells = [[_cell(form, row) for form in self.columns.values()] for row in self.rows]
        rule = [":--", *["--:"] * (len(self.columns) - 1)]
        rows = "\n".join(f"| {' | '.join(row)} |" for row in [self.columns, rule, *cells])
        figure = [f"![{self.title}]({self.name}.svg)"] if self.figure else []
        facts = "\n".join(f"- {fact}: {value}" for fact, value in self.machine.items())
        return "\n\n".join([f"# {self.title}", rows, *figure, *self.notes, facts]) + "\n"

    def json(self) -> str:
        """All raw figures, a row a line: what changes from one measurement to the next can be seen."""
        about = json.dumps({**dataclasses.asdict(self), "figure": None, "rows": []}, indent=1, ensure_ascii=False)
        rows = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in self.rows)
        return about.replace('"rows": []', f'"rows": [\n  {rows}\n ]', 1) + "\n"


def _cell(form: str, row: Row) -> str:
    try:
        return form.format(**row)
    except TypeError:  # a None has no decimals, and no entries
        return "–"


def write(table: Table, folder: Path) -> list[Path]:
    """Write NAME.md, NAME.json and the figure, if any, as NAME.svg; returns their paths.

    All are written under other names first, so that an error leaves what was there as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {".md": table.markdown(), ".json": table.json(), ".svg": table.figure}
    paths = {folder / (table.name + suffix): text for suffix, text in texts.items() if text is not None}
    for path, text in paths.items():
        path.with_name(path.name + ".part").write_text(text, encoding="utf-8")
    for path in paths:
        path.with_name(path.name + ".part").replace(path)
    return list(paths)


PACKAGES = ("numpy", "numba", "llvmlite", "torch")


def machine(threads: int) -> dict[str, str]:
    """Where and when a table was made, and with which versions."""
    versions = {"minicnn": minicnn.__version__, **{name: _version(name) for name in PACKAGES}}
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores, {_memory()}",
        "threads": str(threads),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "date": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    }


def _processor() -> str:
    """The model's name, and on Linux its family and model numbers: hypervisors shorten the name."""
    try:
        entries = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (entry.partition(":") for entry in entries)}
    if "model name" not in facts:  # ARM
        return platform.machine()
    return f"{facts['model name']} (family {facts.get('cpu family')}, model {facts.get('model')})"


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
