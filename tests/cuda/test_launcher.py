"""The launcher: what it reads in a source, what it converts, and what it refuses before anything is launched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.cuda import launcher
from kernels.cuda.launcher import Kernels, Parameter, signatures

CODE = """
// extern "C" __global__ void commented(int n) {}
#include "shared.cuh"
#define SIZE 4
extern "C" __global__ void scale(const T* __restrict__ x, const float* b /* or null */, T* y, float by, int n) {}
extern "C" __global__ void __launch_bounds__(256)
counts(unsigned char *out, // the first
       const unsigned long long seed, bool flag, long long* big) {}
"""


class Recorder:
    """A launcher that takes NumPy arrays and keeps what it is asked to launch."""

    array = np.ndarray

    def __init__(self) -> None:
        self.launches: list[tuple[Any, ...]] = []
        self.place = ""

    def elsewhere(self, array: np.ndarray) -> str:
        return self.place

    def launch(self, *launch: Any) -> None:
        self.launches.append(launch)


@pytest.fixture
def recorder():
    recorder = Recorder()
    with launcher.using(recorder):
        yield recorder


@pytest.fixture
def kernels(tmp_path: Path) -> Kernels:
    (tmp_path / "shared.cuh").write_text("// put in place\n")
    path = tmp_path / "kernels.cu"
    path.write_text(CODE)
    return Kernels(path)


def arguments(**replaced: Any) -> list[Any]:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    return list(({"x": x, "b": None, "y": np.empty_like(x), "by": 2.5, "n": 6} | replaced).values())


def test_signatures_are_read_off_the_source():
    assert signatures("#define T half\n" + CODE) == {
        "scale": (
            Parameter("x", np.dtype(np.float16), pointer=True),
            Parameter("b", np.dtype(np.float32), pointer=True, optional=True),
            Parameter("y", np.dtype(np.float16), pointer=True),
            Parameter("by", np.dtype(np.float32)),
            Parameter("n", np.dtype(np.int32)),
        ),
        "counts": (
            Parameter("out", np.dtype(np.uint8), pointer=True),
            Parameter("seed", np.dtype(np.uint64)),
            Parameter("flag", np.dtype(np.bool_)),
            Parameter("big", np.dtype(np.int64), pointer=True),
        ),
    }


def test_a_type_without_a_numpy_type_is_an_error():
    with pytest.raises(ValueError, match="scale: parameter x has the type 'T', which is none of bool"):
        signatures(CODE)


def test_scalars_get_their_exact_type_and_sources_their_includes_and_types(kernels, recorder):
    kernels.launch("scale", (2, 1), (32,), *arguments(by=2, n=np.int64(6)), T=np.float32)
    ((source, kernel, grid, block, given, shared),) = recorder.launches
    assert (kernel, grid, block, shared) == ("scale", (2, 1), (32,), 0)
    assert source.code.startswith("#define T float\n") and "// put in place" in source.code
    assert given[1] is None
    assert [(type(value), value) for value in given[3:]] == [(np.float32, 2), (np.int32, 6)]


def test_half_gets_its_header(kernels, recorder):
    x = np.zeros(3, np.float16)
    kernels.launch("scale", (1,), (32,), x, None, x, 1.0, 3, T=x.dtype)
    assert recorder.launches[0][0].code.startswith("#include <cuda_fp16.h>\n#define T half\n")


def test_an_empty_grid_launches_nothing_but_is_checked(kernels, recorder):
    kernels.launch("scale", (0,), (32,), *arguments(), T=np.float32)
    with pytest.raises(TypeError, match="scale: n must be"):
        kernels.launch("scale", (0,), (32,), *arguments(n=0.5), T=np.float32)
    assert not recorder.launches


X = np.zeros((4, 6), np.float32)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"x": X.astype(np.float64)}, r"scale: x must be a numpy float32 array, got numpy float64 array \(4, 6\)"),
        ({"x": 1.5}, "scale: x must be a numpy float32 array, got float 1.5"),
        ({"y": None}, "scale: y must be a numpy float32 array, got NoneType None"),
        ({"x": X[:, ::2]}, r"scale: x must be C-contiguous, got numpy float32 array \(4, 3\) with strides \(24, 8\)"),
        ({"n": 2.0}, "scale: n must be an int32, got float 2.0"),
        ({"n": True}, "scale: n must be an int32, got bool True"),
        ({"n": 2**31}, "scale: n must be an int32, got int 2147483648"),
        ({"n": X}, r"scale: n must be an int32, got numpy float32 array \(4, 6\)"),
        ({"by": "2"}, "scale: by must be a float32, got str '2'"),
        ({"by": 1e39}, r"scale: by must be a float32, got float 1e\+39"),
        ({"more": 1}, r"scale: expected 5 arguments \(x, b, y, by, n\), got 6"),
    ],
)
def test_one_error_names_kernel_argument_expected_and_given(kernels, recorder, replaced, message):
    with pytest.raises(TypeError, match=f"^{message}$"):
        kernels.launch("scale", (1,), (32,), *arguments(**replaced), T=np.float32)
    assert not recorder.launches


@pytest.mark.parametrize(
    ("grid", "block", "shared", "message"),
    [
        ((1,), (2048,), 0, r"scale: a block must have 1 to 1024 threads, got 2048 \(2048,\)"),
        (
            (1, 70000),
            (32,),
            0,
            r"scale: a grid must have at most \(2147483647, 65535, 65535\) blocks, got \(1, 70000\)",
        ),
        ((1,), (32,), 50000, "scale: shared memory must be at most 49152 bytes, got 50000"),
    ],
)
def test_a_launch_that_no_card_can_make_is_an_error(kernels, recorder, grid, block, shared, message):
    with pytest.raises(TypeError, match=f"^{message}$"):
        kernels.launch("scale", grid, block, *arguments(), shared=shared, T=np.float32)
    assert not recorder.launches


def test_arrays_beyond_the_range_of_an_index_are_refused(kernels, recorder, monkeypatch):
    monkeypatch.setattr(launcher, "LARGEST", 5)
    with pytest.raises(TypeError, match=r"scale: x must have at most 5 elements, got numpy float32 array \(2, 3\)"):
        kernels.launch("scale", (1,), (32,), *arguments(), T=np.float32)


def test_arrays_of_another_device_are_refused(kernels, recorder):
    recorder.place = "on device 1 while 0 is current"
    message = r"scale: x must be on the current device, got numpy float32 array \(2, 3\) on device 1 while 0 is current"
    with pytest.raises(TypeError, match=message):
        kernels.launch("scale", (1,), (32,), *arguments(), T=np.float32)
    assert not recorder.launches


def test_importing_the_kernels_imports_no_cupy():
    code = "import sys, kernels.cuda; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
