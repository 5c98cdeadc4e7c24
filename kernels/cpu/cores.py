"""How many cores this process may use: what its affinity says, and what the quota of its control groups amounts to."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cores() -> int:
    """The default number of threads, at least 1."""
    return max(1, int(min(visible_cores(), quota())))


def visible_cores() -> int:
    """How many cores this process may run on, however little of their time it is granted."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota(membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores' worth of time that the control groups (version 1 or 2) of this process grant; infinite without a limit."""
    try:
        groups = [line.split(":", 2)[1:] for line in membership.read_text().splitlines()]
    except OSError:
        return math.inf
    limits = [math.inf]
    for controllers, path in groups:  # version 2 names no controllers
        if controllers == "" or "cpu" in controllers.split(","):
            top = mount / "cpu" if controllers else mount
            group = top / path.lstrip("/")
            while group.is_relative_to(top):  # a group is bound by the limits of those around it
                limits.append(_limit(group))
                group = group.parent
    return min(limits)


def _limit(group: Path) -> float:
    """One group's own limit: microseconds of CPU time per microseconds of a period."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            allowed, period = " ".join((group / file).read_text() for file in files).split()
        except OSError:
            continue
        return math.inf if allowed in ("max", "-1") else int(allowed) / int(period)
    return math.inf
