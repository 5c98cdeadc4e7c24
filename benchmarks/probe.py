"""The physical limits: how fast this machine multiplies, adds and moves memory, and how much of it a step needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.harness import Record


def peak(threads: int) -> Record:
    """`gflops`: the most single-precision operations a second, in 10⁹, that two probes find; a multiply-add is two.

    One is a product of large matrices by NumPy's BLAS, the other a loop of multiply-adds on registers alone. Either
    may be the faster: BLAS moves data too, and the compiler may not use the widest vectors there are.
    """
    probes = {"matrix_product": matrix_product(), "register_loop": register_loop(threads)}
    return {"gflops": max(probes.values()), **probes}


def matrix_product(size: int = 2048, repeats: int = 8) -> float:
    a, b = (np.random.default_rng(i).random((size, size), np.float32) for i in range(2))
    out = np.empty_like(a)
    return 2 * size**3 / fastest(lambda: np.matmul(a, b, out=out), repeats) / 1e9


def register_loop(threads: int, turns: int = 2_000_000, repeats: int = 8) -> float:
    from numba import njit

    lanes = 96  # independent sums: they fill the registers, and cover the latency of a multiply-add

    @njit(nogil=True, fastmath={"contract"})
    def multiply_add(turns, sums, a, b):  # type: ignore[no-untyped-def]
        for _ in range(turns):
            for i in range(lanes):  # unrolled; the sums stay in registers
                sums[i] = sums[i] * a + b

    def one_thread(_: int) -> None:
        multiply_add(turns, np.zeros(lanes, np.float32), np.float32(0.5), np.float32(1.0))

    one_thread(0)  # compiles
    with ThreadPoolExecutor(threads) as pool:
        seconds = fastest(lambda: list(pool.map(one_thread, range(threads))), repeats)
    return 2 * lanes * turns * threads / seconds / 1e9


def limits(threads: int) -> Record:
    """`gflops` of `peak` and `gb_s` of `bandwidth`."""
    return {**peak(threads), **bandwidth(threads)}


def bandwidth(threads: int, megabytes: int = 256, repeats: int = 8) -> Record:
    """`gb_s`: the most bytes a second, in 10⁹, that four loops over arrays larger than all caches read and write.

    The loops only read; copy, by the C library; compute a = b + s·c (the "triad" of STREAM); and a = a + s·b, in place.
    What the processor moves beside, as it does when it reads a line of `a` before writing to it, is not counted.
    """
    from numba import njit

    @njit(nogil=True, fastmath=True)
    def total(a):  # type: ignore[no-untyped-def]
        s = np.float32(0)
        for i in range(len(a)):
            s += a[i]
        return s

    @njit(nogil=True, fastmath={"contract"})
    def triad(a, b, c):  # type: ignore[no-untyped-def]
        for i in range(len(a)):
            a[i] = b[i] + np.float32(1e-3) * c[i]

    parts = [tuple(np.ones(megabytes * 10**6 // 12 // threads, np.float32) for _ in range(3)) for _ in range(threads)]
    loops = {
        "read": (1, lambda part: total(part[0])),
        "copy": (2, lambda part: np.copyto(*part[:2])),
        "triad": (3, lambda part: triad(*part)),
        "in_place": (3, lambda part: triad(part[0], part[0], part[1])),
    }
    rates = {}
    with ThreadPoolExecutor(threads) as pool:
        for name, (arrays, loop) in loops.items():
            loop(parts[0])  # compiles
            seconds = fastest(lambda loop=loop: list(pool.map(loop, parts)), repeats)  # type: ignore[misc]
            rates[name] = arrays * threads * parts[0][0].nbytes / seconds / 1e9
    return {"gb_s": max(rates.values()), **rates}


def fastest(f: Callable[[], object], repeats: int) -> float:
    """The shortest of so many calls, in seconds, after one that does not count."""
    f()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def multiply_adds(step: Callable[[], object]) -> int:
    """How many multiply-adds of convolutions and fully connected layers one training step of minicnn's asks for.

    Forward, gradient of the weights, and gradient of the input where something asks for it (not of the images), each
    counted as the plain formula does it. `step` is called once.
    """
    from minicnn import autograd

    total = 0

    def count(event: autograd.Event) -> None:
        nonlocal total
        if event.phase == "forward" and event.name in ("conv2d", "conv_relu", "linear"):
            weight, node = event.inputs[1], event.node  # (..., O): each output is a sum over the other axes
            wanted = sum(parent is not None for parent in node.parents[:2]) if node else 0
            total += (1 + wanted) * event.outputs[0].size * (weight.size // weight.shape[-1])

    with autograd.observe(count):
        step()
    return total
