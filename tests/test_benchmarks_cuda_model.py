"""The model of a training step on a GPU: what it takes from the sources, what it counts, and the promise it is for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import kernels.cuda
from benchmarks import __main__ as command
from benchmarks import cuda_model, hollow, launches, networks
from kernels.cuda import arrays, gemm, launcher
from minicnn import device

SOURCES = sorted(Path(kernels.cuda.__file__).parent.glob("*.cu"))
TYPES = (("T", "float"), ("WINNER", "unsigned char"), ("UNIT", "float"))
A100 = cuda_model.CARDS[0]
MULTIPLY_ADDS = 40_551_040  # of ResNet-20, forward, for an image of 32×32


# --- What a source says ---------------------------------------------------------------------------------------------

EXAMPLE = """
constexpr int SIDE = 8, PITCH = SIDE + 1;  // of a tile
__device__ __forceinline__ float helped(float v) {
    __shared__ float ours[SIDE][PITCH], more[SIDE];
    return ours[0][0] + more[0] + v;
}
extern "C" __global__ void __launch_bounds__(256) example(
    const float* __restrict__ x, float* __restrict__ y, float* z /* or null */, float* w, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.y;
    extern __shared__ float dynamic[];
    y[i * (SIDE + n)] = helped(x[i]);
    if (z) z[x[i] > 0 ? 1 : 0] = 2.0f;
    w[i] += 1.0f;
}
"""


def test_a_kernel_is_read_from_its_source():
    found = launches.kernel(EXAMPLE, "example")
    assert found.names == ("x", "y", "z", "w", "n")
    assert found.written == {"y", "z", "w"}
    assert found.read == {"x", "z", "w"}  # z is asked whether it is null; y is assigned to alone
    assert found.shared == 4 * (8 * 9 + 8)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_kernel_can_be_read(path):
    code = launcher.source(path, TYPES).code
    for name, parameters in launcher.signatures(code).items():
        found = launches.kernel(code, name)
        assert found.names == tuple(p.name for p in parameters)
        assert found.read | found.written == {p.name for p in parameters if p.pointer}
        assert found.written or name.endswith("_all")  # which write through the table of addresses
        assert 0 <= found.shared <= launcher.MOST_SHARED


# --- Arrays without elements ----------------------------------------------------------------------------------------


def test_arrays_without_elements_have_shapes_and_are_seen():
    seen = []
    with hollow.cupy(lambda name, read, written: seen.append((name, len(read), written[0].shape)), 1 << 20) as cupy:
        a = cupy.empty((1 << 20, 1 << 10), np.float32)  # 4 GB that nobody has
        b = cupy.asarray(np.arange(3, dtype=np.float32))
        assert (a[:5, ::2] + 1.0).shape == (5, 512) and (a[0] * a).dtype == np.float32
        assert a.T.base is a and not a.T.flags.c_contiguous and a[3:].serial == a.serial
        assert b.memory.tolist() == [0, 1, 2]
        with pytest.raises(AttributeError):
            cupy.sort(b)
    assert seen == [("add", 1, (5, 512)), ("multiply", 2, a.shape)]


def test_nothing_is_left_behind():
    before = sys.modules.get("cupy"), gemm._cublas, device.cuda_problem
    with launches.recording(1 << 20), pytest.raises(TypeError):
        arrays.contiguous(3)
    assert (sys.modules.get("cupy"), gemm._cublas, device.cuda_problem) == before


def launched(cache: int, call: Callable[..., list], **shapes: tuple[int, ...]) -> cuda_model.Op:
    """What `call`, which takes arrays of these shapes and returns what it makes of them, launches as one op."""
    with launches.recording(cache) as recorder:
        given = {name: sys.modules["cupy"].empty(shape, np.float32) for name, shape in shapes.items()}
        first = hollow.made()
        kept = {a.serial for a in call(**given)}
    return cuda_model.Op("forward", "op", (), recorder.launches, first, kept)


def convolution(x, w):
    return [kernels.cuda.conv2d(x, w, pad=1)]


def normalisation(x, gamma, beta):
    mean, var = kernels.cuda.batch_norm_stats(x)
    return [mean, var, kernels.cuda.batch_norm(x, gamma, beta, mean, var)]


def moved(op: cuda_model.Op, cache: int) -> tuple[float, float]:
    """Bytes read and written."""
    traffic = cuda_model.Traffic(op, cache)
    return sum(traffic.read), sum(traffic.written)


def test_columns_that_stay_in_the_cache_do_not_count():
    op = launched(16 << 20, convolution, x=(8, 32, 32, 16), w=(3, 3, 16, 16))
    x, w, y = 4 * 8 * 32 * 32 * 16, 4 * 9 * 16 * 16, 4 * 8 * 32 * 32 * 16
    assert [launch.kernel for launch in op.launches] == ["im2col", "cuBLAS"]
    assert op.launches[1].flops == 2 * (8 * 32 * 32) * (9 * 16) * 16
    assert op.unavoidable() == x + w + y
    assert moved(op, 16 << 20) == (x + w, y)
    assert sum(moved(op, 1 << 20)) == pytest.approx(x + w + y + 2 * 9 * x, rel=0.15)  # no room: columns out and back


def test_in_pieces_each_part_of_a_map_is_read_once():
    op = launched(8 << 20, convolution, x=(64, 32, 32, 16), w=(3, 3, 16, 16))
    x, w = 4 * 64 * 32 * 32 * 16, 4 * 9 * 16 * 16
    assert sum(launch.kernel == "im2col" for launch in op.launches) > 5
    assert op.unavoidable() == x + w + x
    assert sum(moved(op, 8 << 20)) == pytest.approx(x + w + x, rel=0.02)


def test_what_is_read_twice_and_does_not_fit_counts_twice():
    op = launched(4 << 20, normalisation, x=(64, 32, 32, 64), gamma=(64,), beta=(64,))
    x = 4 * 64 * 32 * 32 * 64
    assert op.unavoidable() == pytest.approx(2 * x, rel=0.001)
    assert moved(op, 4 << 20)[0] == pytest.approx(2 * x, rel=0.02)
    assert moved(op, 64 << 20)[0] == pytest.approx(x, rel=0.02)


# --- A whole step ---------------------------------------------------------------------------------------------------


def test_products_of_a_step_are_those_of_the_network():
    ops = cuda_model.step(networks.Network("resnet20", 4, 32), A100.cache)
    flops = {"forward": 0.0, "backward": 0.0}
    for op in ops:
        flops[op.phase] = flops.get(op.phase, 0) + sum(la.flops for la in op.launches if la.kernel == "cuBLAS")
    assert flops["forward"] == 2 * 4 * MULTIPLY_ADDS
    first = 2 * 4 * (32 * 32) * (9 * 3 * 16)  # the image needs no gradient
    assert flops["backward"] == 2 * flops["forward"] - first
    assert [op.name for op in ops if op.phase == "update"] == ["SGD"]


def test_an_update_reads_three_arrays_of_each_parameter_and_writes_two():
    (update,) = [op for op in cuda_model.step(networks.Network("resnet20", 2, 32), A100.cache) if op.phase == "update"]
    (launch,) = update.launches
    parameters = 4 * 269_722
    tables = 3
    assert sum(t.bytes for t in launch.writes) == 2 * parameters
    assert sum(t.bytes for t in launch.reads[tables:]) == 3 * parameters


@pytest.mark.parametrize(("name", "batch"), [("resnet50", 64), ("vgg-16", 32), ("googlenet", 64)])
def test_a_step_moves_at_most_half_more_than_it_must(name, batch):
    network = networks.Network(networks.NETWORKS[name].model, batch, 224)
    rows = cuda_model.rows(cuda_model.step(network, A100.cache), A100.cache)
    assert 1 <= cuda_model.ratio(rows) < 1.5


def test_the_command_writes_a_table(tmp_path, capsys):
    assert command.main(["cuda-model", "resnet20", "--batch-size", "2", "--out", str(tmp_path)]) == 0
    assert "launches" in capsys.readouterr().out
    entries = json.loads((tmp_path / "cuda-model-resnet20.json").read_text())
    total, forward, backward, update, *rows = entries["rows"]
    assert total["launches"] == sum(len(row["each"]) for row in rows)
    assert total["read"] == pytest.approx(forward["read"] + backward["read"] + update["read"])
    assert all(total["ms"][card.name] > 0 for card in cuda_model.CARDS)


def test_a_network_that_is_not_there(capsys):
    assert command.main(["cuda-model", "resnet5"]) == 2
    assert "resnet50" in capsys.readouterr().err
