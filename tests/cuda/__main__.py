"""`python -m tests.cuda` verifies the CUDA path without a GPU, in four levels; it exits non-zero if one of them fails.

    L0  every name taken from CuPy is in CuPy's CUDA wheel
    L1  every kernel compiles with NVIDIA's compiler for seven generations of cards, within its budget
    L2  every kernel, compiled for the CPU, computes what the reference computes, in several orders of its threads
    L3  the project's tests run on CuPy itself, with the CPU in the GPU's place; the tests that cannot are listed

Levels may be named: `python -m tests.cuda L1 L2`. The wheels that they need are unpacked into folders of their own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import NamedTuple

from tests.cuda.host import environment

HERE = Path(__file__).parent
TESTS = HERE.parent
APART = {
    "L0": "test_names.py",
    "L1": "test_compiles.py",
}  # all other tests in this folder are L2's, or L3's if so named
HOST_CUPY = "test_host_cupy_*.py"


class Outcome(NamedTuple):
    """What pytest counted."""

    passed: int
    failed: int
    skipped: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped in {self.seconds:.0f} s"


def prepare(level: str) -> None:
    """The wheels that a level needs."""
    if level == "L0":
        environment.install(environment.cuda_wheel(), environment.CUDA_WHEEL, environment.CUDA_WHEEL_NEEDS)
    if level == "L1":
        environment.install(environment.compiler(), *environment.COMPILER_WHEELS)
    if level == "L3":
        environment.make(environment.default())


def arguments(level: str) -> list[str]:
    """What pytest is asked to run."""
    if level in APART:
        return [str(HERE / APART[level])]
    if level == "L3":
        return ["--device=host", str(TESTS)]
    others = [*(HERE / name for name in APART.values()), *HERE.glob(HOST_CUPY)]
    return [str(HERE), *(f"--ignore={path}" for path in others)]


def run(level: str) -> Outcome:
    """Run one level with the output of pytest as it is."""
    prepare(level)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", f"--junit-xml={report}", *arguments(level)]
        path = os.pathsep.join(filter(None, [str(environment.compiler()), os.environ.get("PYTHONPATH")]))
        code = subprocess.run(command, env={**os.environ, "PYTHONPATH": path} if level == "L1" else None).returncode
        seconds = time.monotonic() - start
        if not report.exists():  # pytest itself has failed
            return Outcome(0, max(code, 1), 0, seconds)
        suites = list(xml.parse(report).getroot().iter("testsuite"))
    total, failures, errors, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors or int(code != 0)
    return Outcome(total - failures - errors - skipped, failed, skipped, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cuda", description="Verify the CUDA path without a GPU.")
    parser.add_argument("levels", nargs="*", metavar="LEVEL", help="L0, L1, L2, L3; all of them if none is named")
    levels = parser.parse_args().levels or ["L0", "L1", "L2", "L3"]
    unknown = set(levels) - {"L0", "L1", "L2", "L3"}
    if unknown:
        parser.error(f"unknown level {min(unknown)}, choose among L0, L1, L2, L3")
    outcomes = {}
    for level in levels:
        print(f"\n{level}", flush=True)
        outcomes[level] = run(level)
    print("\n" + "\n".join(f"{level}: {outcome}" for level, outcome in outcomes.items()))
    return int(any(outcome.failed or not outcome.passed for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
