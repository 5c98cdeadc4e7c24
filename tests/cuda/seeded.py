"""`python -m tests.cuda.seeded` asks whether level 3 can fail: it seeds typical mistakes one by one.

Each is a mistake that NumPy arrays forgive and a GPU does not. It is made in a copy of the project, where one of level
3's tests must then fail. It counts those found. `python -m tests.cuda L3` makes the environment that it needs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
COPIED = ("kernels", "minicnn", "tests", "pyproject.toml")
TESTS = (
    *("tests/cuda/test_host_cupy_training.py", "tests/ops/test_fused.py", "tests/ops/test_semantics.py"),
    *("tests/test_optim.py", "tests/test_memory.py", "tests/ops/test_gradients.py"),
)


class Mistake(NamedTuple):
    """In `file`, `right` becomes `wrong`."""

    what: str
    file: str
    right: str
    wrong: str


MISTAKES = (
    Mistake(
        "a NumPy array for a kernel's result",
        "kernels/cuda/arrays.py",
        "return array_module(a).empty(a.shape, a.dtype)",
        "return np.empty(a.shape, a.dtype)",
    ),
    Mistake(
        "a float where a kernel takes an int",
        "kernels/cuda/elementwise.py",
        "contiguous(x), y, y.size, T=x.dtype)",
        "contiguous(x), y, y.size / 1, T=x.dtype)",
    ),
    Mistake(
        "no ascontiguousarray",
        "kernels/cuda/elementwise.py",
        "contiguous(gy), contiguous(y), gx",
        "gy, y, gx",
    ),
    Mistake(
        "a launch that leaves out the last block",
        "kernels/cuda/arrays.py",
        "return (-(-elements // threads),)",
        "return (elements // threads,)",
    ),
    Mistake(
        "an index one beyond the end",
        "kernels/cuda/elementwise.cu",
        "if (i < n) gx[i] = float(y[i]) > 0.0f",
        "if (i <= n) gx[i] = float(y[i]) > 0.0f",
    ),
    Mistake(
        "memory that is used before anybody has written it",
        "minicnn/ops/basic.py",
        "gx = xp.zeros(shape, gy.dtype)",
        "gx = xp.empty(shape, gy.dtype)",
    ),
    Mistake(
        "float() of a device's array in the training loop",
        "minicnn/optim.py",
        "is not None:\n                    rates",
        "is not None and float(abs(p.grad).max()) >= 0:\n                    rates",
    ),
    Mistake(
        "a condition on a device's array",
        "minicnn/ops/loss.py",
        'if device.of(labels) == "cuda":',
        "if labels is None:",
    ),
    Mistake(
        "a NumPy array beside the device's",
        "minicnn/ops/basic.py",
        "xp.zeros(shape, gy.dtype)",
        "np.zeros(shape, gy.dtype)",
    ),
    Mistake(
        "a NumPy function that makes a NumPy array of a device's",
        "minicnn/ops/basic.py",
        "y = array_module(x).exp(x)",
        "y = np.exp(np.ascontiguousarray(x))",
    ),
    Mistake(
        "an update of a copy instead of the array itself",
        "kernels/cuda/optimisers.py",
        "arrays = w, contiguous(g), *state",
        "arrays = w.copy(), contiguous(g), *state",
    ),
    Mistake(
        "a gradient added to a view in place",
        "minicnn/autograd.py",
        "alone = g is not gy and not _is_view(g) and",
        "alone = g is not gy and",
    ),
)


def first_failure(mistake: Mistake | None) -> str | None:
    """The first test that fails in a copy of the project with the mistake in it, or None."""
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, Path(folder, name))
        if mistake:
            path = Path(folder, mistake.file)
            text = path.read_text(encoding="utf-8")
            if (places := text.count(mistake.right)) != 1:
                raise ValueError(
                    f"{mistake.what}: {mistake.file} has {mistake.right!r} {places} times; bring this table up to date"
                )
            path.write_text(text.replace(mistake.right, mistake.wrong), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "--device=host", "-x", "--tb=no", "-rfE", "-p", "no:cacheprovider"]
        done = subprocess.run([*command, *TESTS], cwd=folder, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0] if failed else done.stdout + done.stderr


def main() -> int:
    if failure := first_failure(None):
        sys.exit(f"level 3 fails without any mistake:\n{failure}")
    found = 0
    for mistake in MISTAKES:
        failure = first_failure(mistake)
        found += failure is not None
        print(f"{'found' if failure else 'MISSED'}: {mistake.what}: {(failure or '').partition(' - ')[0]}", flush=True)
    print(f"{found} of {len(MISTAKES)} found")
    return int(found < len(MISTAKES))


if __name__ == "__main__":
    sys.exit(main())
