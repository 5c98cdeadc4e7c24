"""Which registers this machine multiplies in: the shape of the tile that every fast product is made of.

A tile is `ROWS` rows by `VECTORS` vectors of `WIDTH` float32 numbers, all held in registers at once (ir/microkernel.py
draws it). It must leave room for one row of B and one broadcast number of A, so its size follows from the number of
vector registers: 32 with AVX-512, 16 with AVX2 and SSE.

The environment variable MINICNN_VECTOR chooses by hand: 128, 256 or 512 bits, or "plain" for the kernels written with
Numba and BLAS alone.
"""

from __future__ import annotations

import os
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


def vector() -> str:
    """The widest vectors that this processor has: "512", "256" or "128"; "plain" where it has none that we know."""
    chosen = os.environ.get("MINICNN_VECTOR")
    if chosen:
        if chosen not in (*TILES, "plain"):
            raise ValueError(f"MINICNN_VECTOR={chosen}: choose one of {', '.join(TILES)}, plain")
        return chosen
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return "512"
    if features.get("avx2") and features.get("fma"):
        return "256"
    return "128" if features.get("neon") or features.get("sse2") else "plain"


VECTOR = vector()
TILE = TILES.get(VECTOR, TILES["128"])
ROWS, VECTORS, WIDTH = TILE
COLUMNS = TILE.columns
