"""Dropout's masks bit by bit: the published Philox vectors, and which word decides about which element."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kernels
from kernels.reference import _philox
from tests.device import np
from tests.kernels.cases import keys

backends = pytest.mark.parametrize("backend", ["reference", "cpu"])
WORD = 2**32 - 1


# Random123 (https://github.com/DEShawResearch/random123), tests/kat_vectors: philox4x32 with 10 rounds
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((WORD,) * 4, (WORD,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_published_words(counter, key, words):
    assert _philox(counter, key) == words
    arrays = tuple(np.full(3, word, np.uint64) for word in counter)
    assert [w.tolist() for w in _philox(arrays, key)] == [[word] * 3 for word in words]


def dropped(backend, x, p, key):
    with kernels.use(backend):
        return kernels.of(x).dropout(x, p, key)


@backends
@given(shape=st.tuples(*[st.integers(1, 9)] * 3), p=st.sampled_from([0.1, 0.25, 0.5, 0.9]), key=keys)
def test_each_element_is_decided_by_its_own_word(backend, shape, p, key):
    seed, layer, step = key
    n = math.prod(shape)
    words = [_philox((i // 4, 0, layer, step), (seed & WORD, seed >> 32))[i % 4] for i in range(n)]
    kept = np.array([(word >> 8) * 2.0**-24 >= p for word in words]).reshape(shape)
    for dtype in (np.float32, np.float64):
        x = np.arange(1, n + 1, dtype=dtype).reshape(shape)
        for same in (x, np.repeat(x, 2, axis=-1)[..., ::2], np.asfortranarray(x)):
            y = dropped(backend, same, p, key)
            assert y.dtype == dtype
            np.testing.assert_allclose(y, np.where(kept, x / (1 - p), 0), rtol=1e-6)


@backends
def test_an_element_whose_fraction_equals_p_is_kept(backend):
    word = _philox((0, 0, 7, 8), (6, 0))[2]
    x, p = np.ones(4), (word >> 8) * 2.0**-24
    assert dropped(backend, x, p, (6, 7, 8))[2] > 0
    assert dropped(backend, x, p + 2.0**-24, (6, 7, 8))[2] == 0


@backends
def test_a_mask_keeps_the_wanted_share_and_depends_on_seed_layer_and_step(backend):
    x, n = np.ones(100_000, np.float32), 100_000
    masks = [
        dropped(backend, x, 0.3, key) != 0 for key in [(5, 1, 1), (6, 1, 1), (5 + 2**32, 1, 1), (5, 2, 1), (5, 1, 2)]
    ]
    for i, mask in enumerate(masks):
        assert abs(mask.mean() - 0.7) < 5 * math.sqrt(0.3 * 0.7 / n)
        for other in masks[:i]:  # independent masks agree in 0.7² + 0.3² of the places
            assert abs((mask == other).mean() - 0.58) < 0.02


@backends
def test_no_dropout_is_an_identical_copy(backend):
    x = np.arange(10, dtype=np.float32)
    y = dropped(backend, x, 0.0, (1, 2, 3))
    assert np.array_equal(x, y) and not np.shares_memory(x, y)
