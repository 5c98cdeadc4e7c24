"""Which registers this machine multiplies in: the shape of the tile that every fast product is made of.

A tile is `ROWS` rows by `VECTORS` vectors of `WIDTH` float32 numbers, all held in registers at once (ir/microkernel.py
draws it). It must leave room for one row of B and one broadcast number of A, so its size follows from the number of
vector registers: 32 with AVX-512, 16 with AVX2 and SSE.

The environment variable MINICNN_VECTOR chooses by hand: 128, 256 or 512 bits, or "plain" for the kernels written with
Numba and BLAS alone.
"""

from __future__ import annotations

import os
import platform
from typing import NamedTuple

import llvmlite.binding as llvm


class Tile(NamedTuple):
    """The register tile: rows of C, vectors a row, float32 numbers a vector."""

    rows: int
    vectors: int
    width: int

    @property
    def columns(self) -> int:
        """Columns of C that one tile covers."""
        return self.vectors * self.width


TILES = {"512": Tile(14, 2, 16), "256": Tile(6, 2, 8), "128": Tile(6, 2, 4)}


def choose() -> tuple[str, str]:
    """The widest vectors that this processor has, "512", "256" or "128" ("plain" where it has none); and why."""
    chosen = os.environ.get("MINICNN_VECTOR")
    if chosen:
        if chosen not in (*TILES, "plain"):
            raise ValueError(f"MINICNN_VECTOR={chosen}: choose one of {', '.join(TILES)}, plain")
        return chosen, f"MINICNN_VECTOR={chosen}"
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return "512", "the processor has AVX-512"
    if features.get("avx2") and features.get("fma"):
        return "256", "the processor has AVX2 and FMA, and no AVX-512"
    if features.get("neon") or features.get("sse2"):
        return "128", f"the processor has {'NEON' if features.get('neon') else 'SSE2, and no AVX2 with FMA'}"
    return "plain", f"no vectors of {platform.machine()} that minicnn knows"


def path() -> str:
    """In words: which code the kernels of convolutions and products run, and why."""
    code = "Numba and BLAS alone" if VECTOR == "plain" else f"generated code for {VECTOR}-bit vectors"
    return f"{code} ({WHY})"


VECTOR, WHY = choose()
TILE = TILES.get(VECTOR, TILES["128"])
ROWS, VECTORS, WIDTH = TILE
COLUMNS = TILE.columns
