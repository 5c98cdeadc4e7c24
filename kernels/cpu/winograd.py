"""Winograd's convolution F(4×4, 3×3): 36 multiplications for 16 outputs of a 3×3 filter instead of 144.

For one channel, a tile of 4×4 outputs y comes from a tile of 6×6 inputs x and the filter w by

    y  =  Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ x B) ] A              ⊙: element by element, 36 products

(Lavin & Gray, Fast Algorithms for Convolutional Neural Networks, 2016, section 4, the matrices in 4.3). Rows and
columns are polynomials, evaluated at the points 0, ±1, ±2 and ∞, multiplied there, and interpolated back. With many
channels the sum over C stands inside the brackets, where it is 36 matrix products:

    V[k] (tiles, C)  =  Bᵀ x B         U[k] (C, O)  =  G w Gᵀ         M[k] = V[k] @ U[k] (tiles, O)         y = Aᵀ M A

Gradients follow by transposing. The input's is the same convolution over gy, with the filters turned by 180° and C and
O exchanged. The weights' is

    gM[k] (tiles, O)  =  A gy Aᵀ       gU[k] = V[k]ᵀ @ gM[k]       gw = Gᵀ gU G         (winograd_weights.py)

The matrices amplify rounding errors: they reach about 1e-5 of the largest value, ten times those of direct.py.
"""

from __future__ import annotations

import numpy as np

from kernels.cpu.compile import compiled
from kernels.cpu.ir.microkernel import OVERWRITE
from kernels.cpu.ir.transform import transform
from kernels.cpu.machine import COLUMNS, ROWS, WIDTH
from kernels.cpu.memory import empty, scratch
from kernels.cpu.panels import pack, pack_transposed
from kernels.cpu.threads import count, parallel
from kernels.cpu.tile import multiply_tile
from kernels.geometry import Axis

BT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
G = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
AT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
A, GT = tuple(zip(*AT, strict=True)), tuple(zip(*G, strict=True))

TILE, SIDE = 4, 6  # outputs and inputs of a tile, a side
POINTS = SIDE * SIDE
GAP = 16  # floats between rows: a power of two apart, they would share a few sets of the cache

FEWEST_CHANNELS = 2 * WIDTH
FEWEST_TILES = 32  # below, transforming the filters is not paid back
LARGEST_SHARE = 0.6  # of direct convolution's multiplications: tiles that hang over the edge may waste what is saved
SHARES = 2  # a thread
BLOCK_BYTES = 320 << 10  # of V and M that a thread works on at a time: in its second-level cache, beside U and x
CACHED_BYTES = 16 << 20  # of U; what is larger comes from memory for each block anew, and a block has then …
LARGE_BLOCK = 64  # … about so many tiles


def suits(x_shape: tuple[int, ...], w_shape: tuple[int, ...], axes: tuple[Axis, Axis], groups: int) -> bool:
    """Whether Winograd's way applies and pays: a rule on the shapes."""
    KH, KW, C, O = w_shape
    OH, OW = axes[0].outputs, axes[1].outputs
    tiles = tiles_across(OH) * tiles_across(OW)
    return (
        KH == KW == 3
        and all(axis.stride == axis.dilation == 1 for axis in axes)
        and groups == 1
        and C % WIDTH == O % WIDTH == 0
        and min(C, O) >= FEWEST_CHANNELS
        and x_shape[0] * tiles >= FEWEST_TILES
        and POINTS * tiles <= LARGEST_SHARE * 9 * OH * OW
    )


def tiles_across(outputs: int) -> int:
    """Tiles along an axis; the last may hang over its end."""
    return -(-outputs // TILE)


def forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, axes: tuple[Axis, Axis], relu: bool = False
) -> np.ndarray:
    """y (N, OH, OW, O) = x (N, H, W, C) * w (3, 3, C, O) + b (O,), through ReLU if asked."""
    rows, columns = axes
    y = empty((len(x), rows.outputs, columns.outputs, w.shape[3]))
    U = _transform_filters(pack(w.reshape(9, *w.shape[2:])))
    _convolve(x, U, b, relu, y, rows.before, columns.before)
    return y


def input_grad(gy: np.ndarray, w: np.ndarray, x_shape: tuple[int, ...], axes: tuple[Axis, Axis]) -> np.ndarray:
    """gx (N, H, W, C): gy convolved with the filters turned by 180°, the last tap first."""
    rows, columns = axes
    gx = empty(x_shape)
    U = _transform_filters(pack_transposed(w.reshape(9, *w.shape[2:]), list(range(8, -1, -1))))
    _convolve(gy, U, None, False, gx, 2 - rows.before, 2 - columns.before)
    return gx


def _transform_filters(panels: np.ndarray) -> np.ndarray:
    """U[k] = G w Gᵀ for filters in panels (P, 9, C, COLUMNS) -> (36, P·C·COLUMNS + GAP)."""
    P, _, C, _ = panels.shape
    U = scratch("winograd U", (POINTS, P * C * COLUMNS + GAP))
    parallel(_transform_panel_rows, P * C, panels, U, cost=POINTS * COLUMNS)
    return U


@compiled
def _transform_panel_rows(begin, end, panels, U):
    C = panels.shape[2]
    for row in range(begin, end):
        transform_filter(
            panels[row // C, 0, row % C].ctypes.data, 4 * C * COLUMNS,
            U[0, row * COLUMNS :].ctypes.data, 4 * U.shape[1], COLUMNS,
        )  # fmt: skip


def _convolve(
    x: np.ndarray, U: np.ndarray, b: np.ndarray | None, relu: bool, y: np.ndarray, top: int, left: int
) -> None:
    """y = Aᵀ [U ⊙ Bᵀ x B] A + b for all tiles of y; `top` and `left` are x's padding."""
    C, O = x.shape[3], y.shape[3]
    tiles = len(y) * tiles_across(y.shape[1]) * tiles_across(y.shape[2])
    if U.nbytes <= CACHED_BYTES:
        block = max(1, BLOCK_BYTES // (4 * POINTS * (C + O + 2 * GAP) * ROWS)) * ROWS
    else:
        block = -(-min(LARGE_BLOCK, -(-tiles // count())) // ROWS) * ROWS
    shares = min(SHARES * count(), -(-tiles // block))
    parallel(
        _convolve_shares, shares, shares, x, U, np.empty(0, np.float32) if b is None else b, relu, y, top, left, block,
        scratch("winograd V", (shares, POINTS, block * (C + GAP) + GAP)),
        scratch("winograd M", (shares, POINTS, block * (O + GAP) + GAP)),
        scratch("winograd rows", (shares, 2, block), np.int64), scratch("winograd pixels", (shares, POINTS), np.int64),
        np.zeros(C, np.float32), scratch("winograd spare", (O,)),
        cost=tiles * POINTS * C * O // (64 * shares),
    )  # fmt: skip


@compiled
def _convolve_shares(begin, end, shares, x, U, b, relu, y, top, left, block, V, M, rows, pixels, zeros, spare):
    """Shares [begin, end) of the tiles, in blocks that go through transform, products and transform in the cache.

    Of each share's own, V[share] (36, block·(C + GAP) + GAP) and M[share] hold a block, rows[share] (2, block) the
    addresses of its rows in V[0] and M[0], and pixels[share] (36,) those of one tile's pixels.
    """
    C, O = x.shape[3], y.shape[3]
    across = (y.shape[2] + TILE - 1) // TILE
    tiles = len(y) * ((y.shape[1] + TILE - 1) // TILE) * across
    blocks = (tiles + block - 1) // block
    v_plane, m_plane, u_plane = 4 * V.shape[2], 4 * M.shape[2], 4 * U.shape[1]
    bias = b.ctypes.data if b.size else 0

    for share in range(begin, end):
        v, m, pixel = V[share].ctypes.data, M[share].ctypes.data, pixels[share].ctypes.data
        for t in range(block):
            rows[share, 0, t], rows[share, 1, t] = v + 4 * t * (C + GAP), m + 4 * t * (O + GAP)
        for index in range(blocks * share // shares, blocks * (share + 1) // shares):
            first = index * block
            present = min(block, tiles - first)
            for t in range(present):
                tile_pixels(x, first + t, y.shape, top, left, SIDE, pixels[share], zeros.ctypes.data)
                transform_input(pixel, rows[share, 0, t], v_plane, C)
            for k in range(POINTS):
                for column in range(0, O, COLUMNS):
                    for t in range(0, present, ROWS):  # past `present`: an earlier block's rows, read by nobody
                        multiply_tile(
                            rows[share, 0, t:].ctypes.data, 1, C, 4, k * v_plane,
                            U.ctypes.data + k * u_plane + 4 * column * C, 4 * COLUMNS, 0,
                            rows[share, 1, t:].ctypes.data, k * m_plane + 4 * column,
                            0, OVERWRITE, min(COLUMNS, O - column),
                        )  # fmt: skip
            for t in range(present):
                tile_pixels(y, first + t, y.shape, 0, 0, TILE, pixels[share], spare.ctypes.data)
                transform_output(rows[share, 1, t], m_plane, pixel, O, bias, relu)


@compiled
def tile_pixels(image, tile, y_shape, top, left, side, pixels, outside):
    """pixels[i·side + j] = address in `image` of pixel (i, j) of a tile, or `outside` where the image has none."""
    _, H, W, C = image.shape
    down, across = (y_shape[1] + TILE - 1) // TILE, (y_shape[2] + TILE - 1) // TILE
    n, h0, w0 = tile // (down * across), tile // across % down * TILE - top, tile % across * TILE - left
    corner, line = image.ctypes.data + 4 * C * ((n * H + h0) * W + w0), 4 * C * W
    if h0 >= 0 and h0 + side <= H and w0 >= 0 and w0 + side <= W:  # most tiles: no pixel has to be asked for
        for i in range(side):
            for j in range(side):
                pixels[i * side + j] = corner + i * line + j * 4 * C
        return
    for i in range(side):
        for j in range(side):
            inside = h0 + i >= 0 and h0 + i < H and w0 + j >= 0 and w0 + j < W
            pixels[i * side + j] = corner + i * line + j * 4 * C if inside else outside


# The five transforms, each compiled once.

_input = transform(BT, WIDTH, from_table=True)
_output = transform(AT, WIDTH, to_table=True)
_output_grad = transform(A, WIDTH, from_table=True)
_filter = transform(G, WIDTH)
_filter_grad = transform(GT, WIDTH)


@compiled
def transform_input(pixels, target, stride, channels):
    """V = Bᵀ x B of one tile, from the 36 addresses in `pixels`."""
    _input(pixels, 0, target, stride, channels, 0, 0)


@compiled
def transform_output(source, stride, pixels, channels, bias, rectify):
    """y = Aᵀ M A of one tile, to the 16 addresses in `pixels`."""
    _output(source, stride, pixels, 0, channels, bias, rectify)


@compiled
def transform_output_grad(pixels, target, stride, channels):
    """gM = A gy Aᵀ of one tile, from the 16 addresses in `pixels`."""
    _output_grad(pixels, 0, target, stride, channels, 0, 0)


@compiled
def transform_filter(source, source_stride, target, target_stride, channels):
    """U = G w Gᵀ."""
    _filter(source, source_stride, target, target_stride, channels, 0, 0)


@compiled
def transform_filter_grad(source, source_stride, target, target_stride, channels):
    """gw = Gᵀ gU G."""
    _filter_grad(source, source_stride, target, target_stride, channels, 0, 0)
