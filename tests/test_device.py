"""What `minicnn.device` does to the process, run in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

GROWTH = """
import numpy as np, resource
import minicnn
{call}
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def turn():
    for _ in range(20):
        np.empty(64 << 20, np.uint8)[::4096] = 1
turn()
before = faults()
turn()
print(faults() - before)
"""


def page_faults(call: str) -> int:
    child = subprocess.run([sys.executable, "-c", GROWTH.format(call=call)], capture_output=True, text=True, check=True)
    return int(child.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_pages_are_kept_when_asked_for_and_not_by_importing():
    pages = 20 * (64 << 20) // 4096
    assert page_faults("assert minicnn.device.keep_pages()") < pages / 10
    assert page_faults("import minicnn.ops") > page_faults("assert minicnn.device.keep_pages()")


def test_released_memory_leaves_living_arrays_alone():
    import numpy as np

    from minicnn import device, ops

    y = ops.relu(np.full((4, 64, 64, 32), 2.0, np.float32))
    device.release_memory()
    assert (y.data == 2).all()
