"""Augmentations keep shape and dtype, draw only from their generator, and do what their papers say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.data import augment


def batch(seed: int, n: int = 6, side: int = 12, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, channels), dtype=np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


EXAMPLES = (
    "crop:3",
    "shift:2",
    "flip",
    "resized-crop",
    "scale-jitter:14:20:12",
    "centre-crop:12",
    "colour",
    "cutout:5",
)


def test_every_step_has_an_example():
    assert {text.partition(":")[0] for text in EXAMPLES} == set(augment.STEPS)


@pytest.mark.parametrize("text", EXAMPLES)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 5))
@settings(deadline=None)
def test_shape_dtype_determinism_and_inputs_unharmed(text, seed, n):
    images = batch(seed, n)
    before = images.copy()
    pipeline = augment.parse(text)
    first, second = pipeline(images, rng(seed)), pipeline(images, rng(seed))
    assert first.shape == images.shape and first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(images, before)
    assert not np.shares_memory(first, images)


@pytest.mark.parametrize("text", [text for text in EXAMPLES if text != "colour"])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_any_number_of_channels(text, channels):
    images = batch(1, channels=channels)
    assert augment.parse(text)(images, rng()).shape == images.shape


def test_flip_mirrors_about_half_of_the_images_and_nothing_else():
    images = batch(0, n=400)
    flipped = augment.flip(images, rng())
    same = (flipped == images).all(axis=(1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all() and 150 < mirrored.sum() < 250


def test_crop_moves_an_image_and_uncovers_black():
    images = 1 + batch(0, n=200, side=8) // 2
    cropped = augment.random_crop(images, rng(), pad=2)
    offsets = set()
    for image, before in zip(cropped, images, strict=True):
        padded = np.pad(before, ((2, 2), (2, 2), (0, 0)))
        places = [(y, x) for y in range(5) for x in range(5) if (padded[y : y + 8, x : x + 8] == image).all()]
        assert len(places) == 1
        offsets.add(places[0])
    assert len(offsets) == 25  # every offset occurs


def test_shift_repeats_the_edge():
    image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    padded = np.pad(image[0, :, :, 0], 1, mode="edge")
    possible = {padded[y : y + 4, x : x + 4].tobytes() for y in range(3) for x in range(3)}
    seen = {augment.shift(image, rng(seed))[0, :, :, 0].tobytes() for seed in range(80)}
    assert seen == possible


def ramp(side: int) -> np.ndarray:
    """Images whose first channel says the column and whose second the row, as far as 255 goes."""
    x = np.linspace(0, 255, side)
    return np.stack(np.broadcast_arrays(x[None, :], x[:, None]), axis=-1).round().astype(np.uint8)[None]


def test_resized_crop_has_the_areas_and_aspects_of_the_recipe():
    images = np.repeat(ramp(256), 300, axis=0)
    crops = augment.random_resized_crop(images, rng(), size=64).astype(float)
    assert crops.shape == (300, 64, 64, 2)
    width = (crops[:, 32, -1, 0] - crops[:, 32, 0, 0]) / 255 * 64 / 63
    height = (crops[:, -1, 32, 1] - crops[:, 0, 32, 1]) / 255 * 64 / 63
    area, aspect = width * height, width / height
    assert 0.07 < area.min() < 0.12 and 0.85 < area.max() < 1.03
    assert 0.73 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.37


def test_scale_jitter_has_the_scales_of_the_recipe():
    images = np.repeat(ramp(256), 200, axis=0)
    crops = augment.scale_jitter(images, rng(), low=256, high=512, size=224).astype(float)
    part = (crops[:, 112, -1, 0] - crops[:, 112, 0, 0]) / 255 * 224 / 223  # 224 / S
    scale = 224 / part
    assert crops.shape == (200, 224, 224, 2) and 250 < scale.min() < 270 and 490 < scale.max() < 525
    with pytest.raises(ValueError, match="size <= low <= high"):
        augment.scale_jitter(images, rng(), low=100, high=512, size=224)


def test_centre_crop_is_the_middle():
    images = batch(0, side=10)
    np.testing.assert_array_equal(augment.centre_crop(images, size=4), images[:, 3:7, 3:7])
    with pytest.raises(ValueError, match="size 11 is larger than the images, 10×10"):
        augment.centre_crop(images, size=11)


def test_colour_shifts_each_image_by_one_colour_along_the_components():
    images = np.full((2000, 2, 2, 3), 128, np.uint8)
    shifts = augment.alexnet_colour(images, rng()).astype(float) - 128
    assert (shifts == shifts[:, :1, :1]).all()
    alpha = shifts[:, 0, 0] / 255 @ augment.RGB_EIGENVECTORS / augment.RGB_EIGENVALUES
    np.testing.assert_allclose(alpha[:, 0].std(), 0.1, rtol=0.1)  # the others drown in rounding to whole pixels
    np.testing.assert_allclose(augment.RGB_EIGENVECTORS.T @ augment.RGB_EIGENVECTORS, np.eye(3), atol=1e-3)
    with pytest.raises(ValueError, match="3 channels, these have 1"):
        augment.alexnet_colour(images[..., :1], rng())


def test_colour_saturates():
    assert augment.alexnet_colour(np.full((50, 1, 1, 3), 255, np.uint8), rng()).min() > 128


def test_cutout_hides_one_square():
    images = np.zeros((300, 16, 16, 1), np.uint8)
    images[:, ::2] = 255  # mean 127.5, so that what is filled shows
    blotted = augment.cutout(images, rng(), size=6)
    changed = (blotted != images)[..., 0]
    rows, columns = changed.any(axis=2).sum(axis=1), changed.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(changed.sum(axis=(1, 2)), rows * columns)
    assert rows.max() == columns.max() == 6 and rows.min() == columns.min() == 3
    assert set(np.unique(blotted[changed])) == {128}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalise(dtype):
    images = batch(0)
    mean, std = np.array([0.1, 0.5, 0.9], np.float32), np.array([0.2, 0.3, 0.4], np.float32)
    result = augment.normalise(images, mean, std, dtype)
    assert result.dtype == dtype
    expected = (images / 255 - mean.astype(np.float64)) / std.astype(np.float64)
    np.testing.assert_allclose(result, expected, atol=1e-6 if dtype == np.float32 else 1e-12)


def test_pipelines_print_as_they_are_written():
    for text in ("crop:4,flip,cutout:8", "none", "colour:0.2"):
        assert str(augment.parse(text)) == text
    images = batch(0)
    for text in ("", "none"):
        assert augment.parse(text)(images, rng()) is images
    composed = augment.flip(augment.random_crop(images, generator := rng(), pad=4), generator)
    np.testing.assert_array_equal(augment.parse("crop, flip")(images, rng()), composed)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("crp:4", "unknown step 'crp': did you mean crop"),
        ("color", "did you mean colour"),
        ("xyzzy", "choose from crop, shift"),
        ("crop,,flip", "unknown step ''"),
        ("crop:4:4", "too many values; write crop:PAD"),
        ("flip:1", "too many values; write flip"),
        ("crop:x", "'x' is not a positive whole number"),
        ("crop:0", "'0' is not a positive whole number"),
        ("colour:nan", "'nan' is not a positive number"),
        ("scale-jitter:256:512:224:9", "write scale-jitter:LOW:HIGH:SIZE"),
    ],
)
def test_pipelines_that_cannot_be_parsed(text, reason):
    with pytest.raises(ValueError, match="augment: ") as caught:
        augment.parse(text)
    assert reason in str(caught.value)
