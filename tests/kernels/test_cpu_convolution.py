"""The three ways to convolve, each against the reference: all shapes, memory past the ends, threads, vector widths."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numba.core.dispatcher import Dispatcher

from kernels import cpu
from kernels.cpu import (
    columns,
    direct,
    direct_image,
    direct_weights,
    memory,
    panels,
    threads,
    winograd,
    winograd_weights,
)
from kernels.cpu.machine import VECTOR, WIDTH
from kernels.geometry import windows
from tests.strategies import LAYOUTS, Drawn, drawn, length

GENERATED = (
    direct,
    direct_image,
    direct_weights,
    winograd,
    winograd_weights,
    panels,
)  # the modules that work on addresses
TOLERANCE = {direct: 1e-5, direct_image: 1e-5, winograd: 2e-4, columns: 1e-5}  # of the largest value


@st.composite
def convolutions(draw: Callable) -> Drawn:
    """(x, w, b): up to 70 channels on either side, so that tiles, panels and strips are full, cut short and missed."""
    kh, kw, sh, sw, dh, dw = (draw(st.integers(1, most)) for most in (4, 4, 3, 3, 2, 2))
    pads = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(2))
    h, w = length(draw, kh, sh, pads[0], dh), length(draw, kw, sw, pads[1], dw)
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 5]))
    c, o = (draw(st.integers(1, 70 // groups)) for _ in range(2))
    shapes = ((draw(st.integers(1, 3)), h, w, groups * c), (kh, kw, c, groups * o), (groups * o,))
    options = {"stride": (sh, sw), "pad": pads, "dilation": (dh, dw), "groups": groups}
    return draw(drawn(st.just(shapes), **{name: st.just(value) for name, value in options.items()}))


@st.composite
def winograds(draw: Callable) -> Drawn:
    """(x, w, b) that Winograd can take: 3×3 with stride 1, channels that fill vectors."""
    pads = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(2))
    h, w = (max(1, 3 - sum(p) + draw(st.integers(0, 11))) for p in pads)
    c, o = (WIDTH * draw(st.integers(1, 70 // WIDTH)) for _ in range(2))
    shapes = ((draw(st.integers(1, 3)), h, w, c), (3, 3, c, o), (o,))
    return draw(drawn(st.just(shapes), pad=st.just(pads)))


ONE_PIXEL = Drawn(((1, 1, 1, 70), (1, 1, 70, 33), (33,)))
STRIDE_BEYOND_THE_FILTER = Drawn(((2, 7, 9, 5), (1, 1, 5, 9), (9,)), {"stride": 3})
DEPTHWISE = Drawn(((2, 5, 6, 13), (3, 3, 1, 13), (13,)), {"pad": 1, "groups": 13})
FILTER_LARGER_THAN_IMAGE = Drawn(((1, 2, 1, 4), (5, 5, 4, 8), (8,)), {"pad": 2})
STEM = Drawn(((1, 19, 17, 3), (7, 7, 3, 18), (18,)), {"stride": 2, "pad": 3})
MANY_CHUNKS = Drawn(((9, 13, 40, 7), (3, 3, 7, 20), (20,)), {"pad": 1})
WIDE_BANDS = Drawn(((2, 6, 6, 163), (3, 3, 163, 200), (200,)), {"pad": 1})  # gw beyond direct_weights.SLICE_BYTES
LARGE_PRODUCT = Drawn(((1, 5, 5, 530), (1, 1, 530, 500), (500,)))  # a 1×1 window and bands


@pytest.fixture(autouse=True)
def plan(monkeypatch):
    """Blocks and chunks so small, and threads so willing, that small examples have many of each."""
    monkeypatch.setattr(threads, "WORTHWHILE", 1)
    monkeypatch.setattr(direct, "BLOCK_TILES", 2)
    monkeypatch.setattr(direct_image, "BAND", 3)
    monkeypatch.setattr(direct_weights, "STEPS", 25)
    monkeypatch.setattr(winograd, "BLOCK_BYTES", 1)
    monkeypatch.setattr(winograd_weights, "SLICE_BLOCK", 3)
    monkeypatch.setattr(winograd_weights, "BLOCK_BYTES", 1)
    before = threads.count()
    yield monkeypatch
    threads.set_count(before)


def results(module: ModuleType, draw: Drawn) -> list[np.ndarray]:
    """y, y without bias through ReLU, gx and gw by the kernels of one module (or of a backend, by its public names)."""
    x, w, b = (np.ascontiguousarray(a) for a in draw.arrays(np.float32))
    options = {"stride": 1, "pad": 0, "dilation": 1, "groups": 1} | draw.options
    axes = windows(x.shape, w.shape[:2], options["stride"], options["pad"], options["dilation"])
    gy = upstream(draw, (len(x), axes[0].outputs, axes[1].outputs, w.shape[3]))
    if module in (direct, direct_image):
        G = options["groups"]
        by_image = module is direct_image
        return [
            direct.forward(x, w, b, axes, G),
            direct.forward(x, w, None, axes, G, relu=True),
            direct_image.input_grad(gy, w, x.shape, axes) if by_image else direct.input_grad(gy, w, x.shape, axes, G),
            direct_weights.weight_grad(gy, x, w.shape, axes, G),
        ]
    if module is winograd:
        return [
            winograd.forward(x, w, b, axes),
            winograd.forward(x, w, None, axes, relu=True),
            winograd.input_grad(gy, w, x.shape, axes),
            winograd_weights.weight_grad(gy, x, w.shape, axes),
        ]
    return [
        module.conv2d(x, w, b, **options),
        module.conv2d_relu(x, w, **options),
        module.conv2d_input_grad(gy, w, x.shape, **options),
        module.conv2d_weight_grad(gy, x, w.shape, **options),
    ]


def upstream(draw: Drawn, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(draw.seed + 1).uniform(-1, 1, shape).astype(np.float32)


def close(values: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> None:
    for value, e in zip(values, expected, strict=True):
        assert value.shape == e.shape and value.dtype == e.dtype
        np.testing.assert_allclose(value, e, rtol=0, atol=tolerance * np.abs(e).max(initial=1e-3))


@pytest.mark.parametrize("module", [direct, columns])
@given(draw=convolutions())
@example(draw=ONE_PIXEL)
@example(draw=STRIDE_BEYOND_THE_FILTER)
@example(draw=DEPTHWISE)
@example(draw=FILTER_LARGER_THAN_IMAGE)
@example(draw=STEM)
@example(draw=MANY_CHUNKS)
@example(draw=WIDE_BANDS)
@example(draw=LARGE_PRODUCT)
def test_direct_and_columns_equal_the_reference(module, draw, reference):
    close(results(module, draw), results(reference, draw), TOLERANCE[module])


@given(draw=convolutions().filter(lambda draw: draw.options["groups"] == 1))
@example(draw=FILTER_LARGER_THAN_IMAGE)
@example(draw=STEM)
@example(draw=Drawn(((2, 11, 9, 3), (4, 3, 3, 8), (8,)), {"stride": (3, 1), "pad": 2, "dilation": (1, 2)}))
def test_direct_image_equals_the_reference(draw, reference):
    close(results(direct_image, draw), results(reference, draw), TOLERANCE[direct_image])


@given(draw=winograds())
@example(draw=Drawn(((1, 1, 1, WIDTH), (3, 3, WIDTH, WIDTH), (WIDTH,)), {"pad": 1}))
@example(draw=Drawn(((7, 9, 10, 64), (3, 3, 64, 48), (48,)), {"pad": ((0, 2), (1, 3))}))
def test_winograd_equals_the_reference(draw, reference):
    close(results(winograd, draw), results(reference, draw), TOLERANCE[winograd])


@pytest.mark.parametrize("tiles", [5 * 16, 20 * 16])  # fewer and more than winograd_weights.STEPS
def test_winograd_with_filters_larger_than_the_cache(tiles, plan, reference):
    plan.setattr(winograd, "CACHED_BYTES", 0)
    plan.setattr(winograd_weights, "SLICE_BYTES", 0)
    draw = Drawn(((tiles // 16, 14, 14, 32), (3, 3, 32, 32), (32,)), {"pad": 1})
    close(results(winograd, draw), results(reference, draw), TOLERANCE[winograd])


@pytest.mark.parametrize("strip_bytes", [1, 4 * 2 * 7 * 40 * 2, 1 << 20])  # a line of outputs at a time, two, all
def test_direct_weights_with_chunks_of_images_or_of_lines(strip_bytes, plan, reference):
    plan.setattr(direct_weights, "STEPS", 50)  # room for four images of 3×4 outputs
    plan.setattr(direct_weights, "STRIP_BYTES", strip_bytes)
    draw = Drawn(((5, 6, 7, 40), (3, 3, 40, 24), (24,)), {"stride": 2, "pad": 1})
    close(results(direct, draw), results(reference, draw), TOLERANCE[direct])


def test_direct_with_rows_that_share_cache_sets(plan, reference):
    plan.setattr(direct, "WAYS", 1)
    plan.setattr(direct, "SAME_SET", 128)
    for options in ({}, {"stride": 2}, {"pad": 1}):
        draw = Drawn(((2, 5, 7, 64), (1, 1, 64, 40), (40,)), options)
        close(results(direct, draw), results(reference, draw), TOLERANCE[direct])


# ---- Memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw",
    [
        ONE_PIXEL,
        STRIDE_BEYOND_THE_FILTER,
        DEPTHWISE,
        FILTER_LARGER_THAN_IMAGE,
        STEM,
        MANY_CHUNKS,
        WIDE_BANDS,
        LARGE_PRODUCT,
    ],
)
def test_direct_stays_inside_its_arrays(draw, plan, reference):
    stays_inside(direct, draw, plan, results(reference, draw))


@pytest.mark.parametrize("draw", [ONE_PIXEL, STRIDE_BEYOND_THE_FILTER, FILTER_LARGER_THAN_IMAGE, STEM, MANY_CHUNKS])
def test_direct_image_stays_inside_its_arrays(draw, plan, reference):
    stays_inside(direct_image, draw, plan, results(reference, draw))


@pytest.mark.parametrize(("c", "o", "side"), [(1, 1, 5), (3, 2, 8), (2, 7, 1)])
def test_winograd_stays_inside_its_arrays(c, o, side, plan, reference):
    draw = Drawn(((3, side, side + 1, c * WIDTH), (3, 3, c * WIDTH, o * WIDTH), (o * WIDTH,)), {"pad": 1})
    stays_inside(winograd, draw, plan, results(reference, draw))


def stays_inside(module: ModuleType, draw: Drawn, plan: pytest.MonkeyPatch, expected: list) -> None:
    """Every array that a kernel makes lies between guard zones, and begins as NaN: only what was written is read."""
    zones = []

    def guarded(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        whole = memory.empty((size + 2 * GUARD,), np.uint8)
        whole[:] = 0xFF  # as float32: NaN
        zones.extend([whole[:GUARD], whole[GUARD + size :]])
        return whole[GUARD : GUARD + size].view(dtype).reshape(shape)

    for generated in GENERATED:
        plan.setattr(generated, "empty", guarded, raising=False)
        plan.setattr(generated, "scratch", lambda name, shape, dtype=np.float32: guarded(shape, dtype), raising=False)
    close(results(module, draw), expected, TOLERANCE[module])
    assert zones and all((zone == 0xFF).all() for zone in zones)


GUARD = 4096  # bytes on either side


@pytest.mark.parametrize("module", GENERATED)
def test_compiled_code_makes_no_arrays(module):
    """An array made inside Numba is freed after its last use by name, whoever still has its address."""
    for f in vars(module).values():
        if isinstance(f, Dispatcher):
            assert not {"np", "empty", "zeros", "ones", "full", "copy"} & set(f.py_func.__code__.co_names), f


# ---- Threads, rules, inputs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "draw"),
    [
        (direct, MANY_CHUNKS),
        (direct, WIDE_BANDS),
        (direct, LARGE_PRODUCT),
        (direct, STEM),
        (direct_image, STEM),
        (direct_image, MANY_CHUNKS),
        (winograd, Drawn(((5, 14, 15, 64), (3, 3, 64, 32), (32,)), {"pad": 1})),
    ],
)
def test_the_bits_do_not_depend_on_the_threads(module, draw):
    with_threads = []
    for n in (1, 2, 3):
        threads.set_count(n)
        with_threads.append([y.tobytes() for y in results(module, draw)])
    assert with_threads[0] == with_threads[1] == with_threads[2]


def chosen(plan: pytest.MonkeyPatch, draw: Drawn, dtype: type = np.float32) -> set[str]:
    """The modules that the public kernels call for these inputs."""
    called = set()

    def spy(name: str) -> Callable:
        return lambda *args, **options: called.add(name)

    for module in (winograd, winograd_weights, direct, direct_image, direct_weights):
        for function in {"forward", "input_grad", "weight_grad"} & set(vars(module)):
            plan.setattr(module, function, spy(module.__name__))
    for function in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad"):
        plan.setattr(columns, function, spy(columns.__name__))
    x, w, b = draw.arrays(dtype)
    axes = windows(x.shape, w.shape[:2], **{k: v for k, v in draw.options.items() if k != "groups"})
    gy = np.zeros((len(x), axes[0].outputs, axes[1].outputs, w.shape[3]), dtype)
    cpu.conv2d(x, w, b, **draw.options)
    cpu.conv2d_input_grad(gy, w, x.shape, **draw.options)
    cpu.conv2d_weight_grad(gy, x, w.shape, **draw.options)
    return {name.rsplit(".", 1)[1] for name in called}


LARGE = Drawn(((2, 28, 28, 64), (3, 3, 64, 64), (64,)), {"stride": 1, "pad": 1})
fast_only = pytest.mark.skipif(VECTOR == "plain", reason="the plain path has no choice")


@fast_only
def test_rule(plan):
    assert chosen(plan, LARGE) == {"winograd", "winograd_weights"}
    assert chosen(plan, Drawn(LARGE.shapes, {"stride": 2, "pad": 1})) == {"direct", "direct_weights"}
    assert chosen(plan, Drawn(((2, 28, 28, 63), (3, 3, 63, 64), (64,)), {"stride": 1})) == {"direct", "direct_weights"}
    assert chosen(plan, STEM) == {"direct", "direct_image", "direct_weights"}
    assert chosen(plan, LARGE, np.float64) == {"columns"}


@fast_only
def test_exact_rules_winograd_out(plan):
    with cpu.exact():
        assert chosen(plan, LARGE) == {"direct", "direct_weights"}
    assert chosen(plan, LARGE) == {"winograd", "winograd_weights"}


@given(draw=convolutions(), layout=st.sampled_from([*LAYOUTS]))
@example(draw=Drawn(((2, 28, 28, 64), (3, 3, 64, 64), (64,)), {"pad": 1}), layout="every other channel")  # Winograd's
def test_any_memory_layout_and_no_change_of_inputs(draw, layout, reference):
    x, w, b = (LAYOUTS[layout](a) for a in draw.arrays(np.float32))
    before = [a.copy() for a in (x, w, b)]
    y = cpu.conv2d(x, w, b, **draw.options)
    close([y], [reference.conv2d(x, w, b, **draw.options)], TOLERANCE[winograd])
    gy = LAYOUTS[layout](upstream(draw, y.shape))
    close(
        [cpu.conv2d_input_grad(gy, w, x.shape, **draw.options), cpu.conv2d_weight_grad(gy, x, w.shape, **draw.options)],
        [results(reference, draw)[2], results(reference, draw)[3]],
        TOLERANCE[winograd],
    )
    assert all(np.array_equal(a, c) for a, c in zip((x, w, b), before, strict=True))


def test_unaligned_and_read_only_arrays(reference):
    def unaligned(a: np.ndarray) -> np.ndarray:
        return np.frombuffer(b"?" + a.tobytes(), np.float32, offset=1).reshape(a.shape)

    x, w, b = Drawn(((1, 5, 6, 9), (3, 3, 9, 11), (11,))).arrays(np.float32)
    close([cpu.conv2d(unaligned(x), unaligned(w), unaligned(b))], [reference.conv2d(x, w, b)], TOLERANCE[direct])


@fast_only
def test_what_does_not_fit_is_refused_before_any_address_is_taken():
    x, w = np.zeros((1, 5, 5, 6), np.float32), np.zeros((3, 3, 4, 8), np.float32)
    with pytest.raises(ValueError, match="w has 4 input channels but x has 6"):
        cpu.conv2d(x, w)
    with pytest.raises(ValueError, match="do not divide"):
        cpu.conv2d(x, w[:, :, :2, :7], groups=3)
    with pytest.raises(ValueError, match="b must have shape"):
        cpu.conv2d(x[..., :4], w, np.zeros(7, np.float32))
    with pytest.raises(ValueError, match="residual must have shape"):
        cpu.conv2d_relu(x[..., :4], w, None, np.zeros((1, 5, 5, 8), np.float32))
    with pytest.raises(ValueError, match="gy must have shape"):
        cpu.conv2d_input_grad(np.zeros((1, 5, 5, 8), np.float32), w, (1, 5, 5, 4))
    with pytest.raises(ValueError, match="gy must have shape"):
        cpu.conv2d_weight_grad(np.zeros((1, 5, 5, 8), np.float32), x[..., :4], w.shape)


def test_nan_and_inf_are_not_hidden():
    x, w = np.ones((1, 4, 4, 16), np.float32), np.ones((3, 3, 16, 16), np.float32)
    x[0, 0, 0, 0], x[0, 3, 3, 1] = np.nan, np.inf
    y = cpu.conv2d_relu(x, w)
    assert np.isnan(y[0, 0, 0]).all() and np.isinf(y[0, 1, 1]).all()


@pytest.mark.parametrize("vector", ["128", "256", "512", "plain"])
def test_other_vector_widths(vector):
    """All tests of this file and of the micro-kernel, in a process with other vectors (LLVM splits those we lack)."""
    if vector == VECTOR or "MINICNN_VECTOR" in os.environ:
        pytest.skip("these vectors are under test already")
    command = [sys.executable, "-m", "pytest", "-q", __file__, __file__.replace("convolution", "microkernel")]
    run = subprocess.run(command, env=os.environ | {"MINICNN_VECTOR": vector}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
