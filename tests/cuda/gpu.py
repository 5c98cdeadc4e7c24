"""`python -m tests.cuda.gpu` is level 4: on a machine with a GPU it verifies and measures, and writes a dated report.

The report, GPU-DATE-CARD.md and .json, has the machine's facts, training steps beside PyTorch's, NVIDIA's sanitizer on
a short run, and the whole test suite with `--device=cuda`; what cannot be done here, or has had no time left, says why.
`--device=host` is its dry run: the CPU in the GPU's place, small networks, a few tests, and no times.

The exit code is 1 if something has failed, and 0 if what was run is well.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness, tables
from benchmarks.harness import Record
from minicnn import _cli, device
from tests.cuda import gpu_processes as processes

ROOT = Path(__file__).parents[2]
SECONDS = 2.0  # of timed steps in a process
STEPS_SHARE, SANITIZER_SHARE = 0.45, 0.15  # of the time for all; the tests have the rest
TESTS = {"cuda": ["tests"], "host": ["tests/autograd"]}
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
LATE = "no time was left"
LAYOUTS = {"NCHW": False, "channels_last": True}
PRECISIONS = {"float32": False, "TF32": True}


class Section(NamedTuple):
    """A part of the report: `state` is passed, failed, unfinished or not run; `data` is all that was found."""

    title: str
    state: str
    text: str  # Markdown
    data: Any = None


class Setting(NamedTuple):
    """Where it all runs, and why there is no PyTorch to compare with, if there is none."""

    on: str
    threads: int
    without_torch: str | None


class Clock:
    """The time that is left of so many seconds."""

    def __init__(self, seconds: float):
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._end - time.monotonic()


# --- Sections ----------------------------------------------------------------------------------------------------


def steps(setting: Setting, clock: Clock) -> Section:
    """Training steps of minicnn and, where it is installed, PyTorch with cuDNN."""
    rows: list[Record] = []
    for name, network in processes.COMPARED[setting.on].items():
        records = {}
        for side, measure in contenders(name, setting).items():
            records[side] = measure(clock.left) if clock.left > 0 else {}
            if clock.left <= 0 and "ms" not in records[side]:
                records[side] = {"failed": LATE}
            print(f"  {name}, {side}: {records[side].get('failed', 'done')}", flush=True)
        rows.append({"network": name, "batch": f"{network.batch} × {network.side}²", "records": records})
    notes = {
        "cuda": "A step is forward, loss, backward and SGD with momentum on images that lie on the device; the loss is "
        f"read after every step. Each figure is the median of the steps in {SECONDS:g} s, in a process of its own, "
        "after two that do not count. PyTorch runs eagerly, in the faster of NCHW and channels_last, and searches for "
        "the fastest algorithms (`cudnn.benchmark`).",
        "host": "A dry run on the CPU: each side has made its steps, and no time is claimed.",
    }
    absent = f"PyTorch is not compared: {setting.without_torch}." if setting.without_torch else ""
    records = {f"{row['network']}, {side}": record for row in rows for side, record in row["records"].items()}
    failures = [f"- {name}: {record['failed']}" for name, record in records.items() if "failed" in record]
    text = "\n\n".join(filter(None, [table(rows, setting.on), notes[setting.on], absent, "\n".join(failures)]))
    ours = [record.get("failed") for name, record in records.items() if ", minicnn, " in name]
    return Section("Training steps", state(ours), text, rows)


def state(failures: list[str | None]) -> str:
    """What parts that failed for these reasons, or did not, make of a section."""
    if all(failure == LATE for failure in failures):
        return "not run"
    if any(failure not in (None, LATE) for failure in failures):
        return "failed"
    return "unfinished" if LATE in failures else "passed"


def contenders(network: str, setting: Setting) -> dict[str, Callable[[float], Record]]:
    """What is measured of one network: a function of the time that is left, for each side and precision."""
    common: dict[str, Any] = {"network": network, "seconds": SECONDS, "on": setting.on, "threads": setting.threads}

    def ours(tf32: bool) -> Callable[[float], Record]:
        variables = {"CUPY_TF32": str(int(tf32))}
        return lambda limit: harness.attempt(processes.minicnn_step, variables=variables, limit=limit, **common)

    def theirs(tf32: bool, channels_last: bool) -> Callable[[float], Record]:
        options = {**common, "tf32": tf32, "channels_last": channels_last}
        return lambda limit: harness.attempt(processes.torch_step, limit=limit, **options)

    found: dict[str, Callable[[float], Record]] = {}
    for precision, tf32 in PRECISIONS.items():
        found[f"minicnn, {precision}"] = ours(tf32)
        if setting.without_torch is None:
            found |= {f"PyTorch, {precision}, {layout}": theirs(tf32, last) for layout, last in LAYOUTS.items()}
    return found


def table(rows: list[Record], on: str) -> str:
    """The steps' times, PyTorch's in its faster layout."""

    def best(records: dict[str, Record], side: str) -> float | None:
        return min((r["ms"] for name, r in records.items() if name.startswith(side) and r.get("ms")), default=None)

    lines = [
        "| network | batch | precision | minicnn, ms | PyTorch, ms | PyTorch ÷ minicnn |",
        "|:--|--:|:--|--:|--:|--:|",
    ]
    if on == "host":
        lines = ["| network | batch | sides that ran |", "|:--|--:|:--|"]
    for row in rows:
        if on == "host":
            ran = "; ".join(side for side, record in row["records"].items() if "failed" not in record)
            lines.append(f"| {row['network']} | {row['batch']} | {ran or '–'} |")
            continue
        for precision in PRECISIONS:
            ours, theirs = (best(row["records"], f"{side}, {precision}") for side in ("minicnn", "PyTorch"))
            ratio = f"{theirs / ours:.2f}" if ours and theirs else "–"
            cells = ["–" if ms is None else f"{ms:.1f}" for ms in (ours, theirs)]
            lines.append(f"| {row['network']} | {row['batch']} | {precision} | {' | '.join(cells)} | {ratio} |")
    return "\n".join(lines)


def sanitizer(setting: Setting, clock: Clock) -> Section:
    """NVIDIA's compute-sanitizer on two steps of small networks, with each of its tools."""
    title = "compute-sanitizer"
    if setting.on == "host":
        return Section(title, "not run", "A dry run has no GPU to watch.")
    program = shutil.which("compute-sanitizer", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/local/cuda/bin")
    if program is None:
        return Section(title, "not run", "It is not installed; it comes with NVIDIA's CUDA toolkit.")
    name = f"{processes.__name__}:{processes.short.__name__}"
    watched = [sys.executable, "-m", "benchmarks.harness", name, json.dumps({"threads": setting.threads})]
    said: dict[str, str] = {}
    failures: list[str | None] = []
    for tool in TOOLS:
        code, output = finished([program, "--tool", tool, "--error-exitcode", "99", *watched], clock.left)
        summary = re.findall(r"\w+ SUMMARY: .*", output) or output.strip().splitlines() or [LATE]
        said[tool] = LATE if code is None else f"exit code {code}, {summary[-1]}"
        failures.append(None if code == 0 else said[tool])
        print(f"  {tool}: {said[tool]}", flush=True)
    return Section(title, state(failures), "\n".join(f"- {tool}: {line}" for tool, line in said.items()), said)


def tests(setting: Setting, clock: Clock) -> Section:
    """The project's tests, all of them on a GPU."""
    arguments = [f"--device={setting.on}", *TESTS[setting.on]]
    title = f"python -m pytest {' '.join(arguments)}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.xml")
        code, output = finished([sys.executable, "-m", "pytest", f"--junit-xml={file}", *arguments], clock.left)
        cases = list(xml.parse(file).getroot().iter("testcase")) if file.exists() else []
    if code is None:
        del cases[-1:]  # pytest has no word for the one that was interrupted, and counts it as passed
    outcomes: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for case in cases:
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        outcomes[outcome].append(f"{case.get('classname')}.{case.get('name')}")
    text = ", ".join(f"{len(names)} {outcome}" for outcome, names in outcomes.items())
    text += "." if code is not None else "; the time ran out before the last test."
    if outcomes["failed"] or code:
        text += f"\n\n```\n{output[-6000:]}\n```"
    judged = "failed" if outcomes["failed"] or code else "passed" if code == 0 else "unfinished" if cases else "not run"
    return Section(title, judged, text, outcomes)


def finished(command: list[str], limit: float, patience: float = 20) -> tuple[int | None, str]:
    """Exit code and output of a command; None for the code if it was interrupted after `limit` seconds."""
    if limit <= 0:
        return None, ""
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
    with subprocess.Popen(command, process_group=0, **options) as child:
        try:
            output, _ = child.communicate(timeout=limit)
            return child.returncode, output
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGINT)  # pytest then reports on what it has run
        try:
            output, _ = child.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            output, _ = child.communicate()
        return None, output


# --- The report --------------------------------------------------------------------------------------------------


def markdown(on: str, known: dict[str, str], sections: list[Section]) -> str:
    title = "Verification on a GPU" if on == "cuda" else "Dry run of the verification on a GPU: the CPU is in its place"
    parts = [f"# {title}", "\n".join(f"- {name}: {value}" for name, value in known.items())]
    for section in sections:
        parts += [f"## {section.title}", f"**{section.state}**", section.text]
    return "\n\n".join(parts) + "\n"


def write(on: str, card: str, known: dict[str, str], sections: list[Section], folder: Path) -> list[Path]:
    """The report's two files."""
    slug = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-") if on == "cuda" else "dry-run"
    name = f"GPU-{datetime.date.today().isoformat()}-{slug}"
    content = {"device": on, "card": card, "facts": known, "sections": [section._asdict() for section in sections]}
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}{suffix}" for suffix in (".md", ".json")]
    paths[0].write_text(markdown(on, known, sections), encoding="utf-8")
    paths[1].write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return paths


@_cli.command
def main(arguments: list[str] | None = None) -> int:
    parser = _cli.Parser(prog="python -m tests.cuda.gpu", description="Verify and measure on a GPU; write a report.")
    parser.add_argument("--device", choices=("cuda", "host"), default="cuda", help="host: a dry run without a GPU")
    parser.add_argument("--minutes", type=_cli.positive(float), default=9.5, help="for all of it")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for the report")
    options = parser.parse_args(arguments)
    on, seconds, threads = options.device, 60 * options.minutes, device.threads()
    whole = Clock(seconds)

    found = harness.in_process(processes.facts, threads=threads, on=on)
    if found["problem"]:
        raise RuntimeError(f"CUDA cannot be used: {found['problem']}")
    torch: Record = {"failed": "it is not installed"}
    if importlib.util.find_spec("torch"):
        torch = harness.attempt(processes.torch_facts, threads=threads)
    blind = on == "cuda" and not torch.get("available")
    setting = Setting(on, threads, torch.get("failed") or ("the one that is installed sees no GPU" if blind else None))
    known = {**found["known"], **torch.get("known", {}), **tables.machine(threads)}

    sections = []
    shares = {steps: STEPS_SHARE * seconds, sanitizer: SANITIZER_SHARE * seconds, tests: seconds}
    for section, most in shares.items():
        print(f"{section.__name__}:", flush=True)
        sections.append(section(setting, Clock(min(most, whole.left))))
        print(f"  {sections[-1].state}", flush=True)
        paths = write(on, found["card"], known, sections, options.out)  # what is there is kept, whatever comes
    print(f"written to {', '.join(map(str, paths))}")
    return int(any(section.state == "failed" for section in sections))


if __name__ == "__main__":
    sys.exit(main())
