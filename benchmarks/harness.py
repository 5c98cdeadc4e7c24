"""Measuring fairly: each measurement in a process of its own, one at a time, alternating, with a rest between.

A measurement is a function of ours that takes and returns what JSON can hold. `in_process(f, threads, …)` runs it in a
new Python, which is `python -m benchmarks.harness MODULE:FUNCTION ARGUMENTS`, and adds the peak memory of that process.
`attempt` does the same with what may fail.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]

REST = 0.5  # seconds: the machine calms down, and a chip that has run hot cools
# They would give a child another OpenBLAS, or another allocator, than the one that users have.
STEERING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "GLIBC_TUNABLES", "LD_PRELOAD")
LONGEST = 300  # characters of a reason for a failure
THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def environment(threads: int | None = None, **further: str) -> dict[str, str]:
    """The environment of a child: ours, with as many threads for every library, and with BLAS and malloc as installed.

    `further` is added to it, and may steer them.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in STEERING}
    counts = {} if threads is None else dict.fromkeys(THREAD_COUNTS, str(threads))
    return {**inherited, **counts, **further}


def in_process(
    f: Callable[..., Record],
    *,
    threads: int,
    variables: Mapping[str, str] | None = None,
    limit: float | None = None,
    **arguments: Any,
) -> Record:
    """f(threads=…, **arguments), run in a new process with these environment variables; its result and `peak_mb`.

    Raises RuntimeError with the reason, in one line, if it fails, or is not done after `limit` seconds.
    """
    name = f"{f.__module__}:{f.__qualname__}"
    command = [sys.executable, "-m", "benchmarks.harness", name, json.dumps({"threads": threads, **arguments})]
    variables = environment(threads, **variables or {})
    pipe = subprocess.PIPE
    # A group of its own: whatever the child has started, such as a compiler, ends with it.
    with subprocess.Popen(command, env=variables, stdout=pipe, stderr=pipe, text=True, process_group=0) as child:
        try:
            output, errors = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{name} {arguments}: not done after {limit:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    if child.returncode:
        reason = (errors.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        raise RuntimeError(f"{name} {arguments}: {reason}")
    return json.loads(output.splitlines()[-1])


def attempt(f: Callable[..., Record], **options: Any) -> Record:
    """As `in_process`, but a failure is a record too: {"failed": reason}."""
    try:
        return in_process(f, **options)
    except RuntimeError as error:
        return {"failed": str(error)}


def alternate(
    measurements: Mapping[str, Callable[[], Record]],
    rounds: int,
    *,
    rest: float = REST,
    report: Callable[[str, int, Record], None] = lambda name, round, record: None,
) -> dict[str, list[Record]]:
    """Every measurement once a round, for so many rounds, every other round backwards: a drift then hits all alike.

    Each record says how `busy` the machine was, with other things, in the rest before it.
    """
    records: dict[str, list[Record]] = {name: [] for name in measurements}
    for i in range(rounds):
        for name in list(measurements)[:: 1 if i % 2 == 0 else -1]:
            busy = busy_during(rest)
            records[name].append({**measurements[name](), "busy": busy})
            report(name, i, records[name][-1])
    return records


def busy_during(rest: float) -> float | None:
    """Sleep, and return the share of all cores' time that others used meanwhile; None where it cannot be known."""
    before = _core_ticks()
    time.sleep(rest)
    total, idle = (after - earlier for after, earlier in zip(_core_ticks(), before, strict=True))
    return 1 - idle / total if total else None


def _core_ticks() -> tuple[int, int]:
    """All ticks of all cores since the machine started, and those in which they had nothing to do."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:  # not Linux
        return 0, 0
    return sum(ticks), ticks[3] + ticks[4]  # idle, and waiting for a disk


def spread(values: Sequence[float]) -> dict[str, float]:
    """What a table says of repeated measurements: their median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def peak_megabytes() -> float:
    """The most memory (resident set) that this process has had at once."""
    most = _status("VmHWM")  # Linux's ru_maxrss would count what the parent had when it started us
    if most is None:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return most / 1e6


def resident_megabytes() -> float | None:
    """The memory (resident set) that this process has now; None where that cannot be known."""
    now = _status("VmRSS")
    return None if now is None else now / 1e6


def _status(entry: str) -> int | None:
    """An entry of /proc/self/status, in bytes; None where there is no such file."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux
        return None
    [line] = [line for line in lines if line.startswith(f"{entry}:")]
    return int(line.split()[1]) * 1024


def main(name: str, arguments: str) -> None:
    module, _, function = name.partition(":")
    try:
        record = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    except Exception as error:  # one line: it becomes a note of a table
        reason = " ".join(str(error).split())
        sys.exit(f"{type(error).__name__}: {reason[:LONGEST]}")
    print(json.dumps({**record, "peak_mb": peak_megabytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
