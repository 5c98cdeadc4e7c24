"""Which parts of an image the papers' protocols show: where crops lie, how many there are, what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from minicnn.data import Dataset
from minicnn.data.folder import ImageFiles
from minicnn.evaluate import choose, views


def positions(height, width):
    """An image whose pixels say where they are: (row, column, 0)."""
    rows, cols = np.mgrid[:height, :width]
    return np.stack([rows, cols, 0 * rows], axis=-1).astype(np.uint8)


def corners(crops):
    """(row, column) in the image of each crop's first pixel."""
    return [tuple(crop[0, 0, :2].tolist()) for crop in crops]


def squares(images, size=28):
    n = len(images)
    ones = np.ones(3, np.float32)
    return Dataset("squares", images, np.zeros(n, np.int64), ("a", "b"), ones / 2, ones)


def mirrored(crops):
    """The second half of the crops, if it is the first one mirrored, which is returned."""
    straight, other = np.split(crops, 2)
    assert np.array_equal(other, straight[:, :, ::-1])
    return straight


def test_the_centre():
    assert corners(views.centre(positions(32, 41), 24)) == [(4, 8)]


def test_ten_crops_of_the_middle_square():
    crops = views.ten(positions(32, 40), 24)
    assert crops.shape == (10, 24, 24, 3)
    assert corners(mirrored(crops)) == [(0, 4), (0, 12), (8, 4), (8, 12), (4, 8)]


def test_a_grid_over_the_whole_image():
    crops = views.grid(positions(32, 41), 24)
    assert crops.shape == (50, 24, 24, 3)
    assert corners(mirrored(crops)) == [(top, left) for top in (0, 2, 4, 6, 8) for left in (0, 4, 8, 13, 17)]


@pytest.mark.parametrize("upright", [False, True])
def test_thirty_six_crops_of_three_squares(upright):
    image = positions(48, 32) if upright else positions(32, 48)
    crops = views.inception(image, 28)
    assert crops.shape == (36, 28, 28, 3)
    for at, of_square in zip((0, 8, 16), mirrored(crops).reshape(3, 6, 28, 28, 3), strict=True):
        top, left = (at, 0) if upright else (0, at)
        places = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
        assert corners(of_square[:5]) == [(top + down, left + right) for down, right in places]
        whole = of_square[5].astype(int)  # 32 pixels on 28: from the square's first row and column to its last
        assert np.abs(whole[[0, -1], 0, 0] - [top, top + 31]).max() <= 1
        assert np.abs(whole[0, [0, -1], 1] - [left, left + 31]).max() <= 1


@pytest.mark.parametrize(("crops", "count"), [(1, 1), (10, 10), (50, 50), (144, 144), (None, 2)])
def test_views_of_an_image_at_the_scales_of_the_papers(crops, count):
    chosen = choose(crops, 224)
    assert chosen.scales == ((256, 288, 320, 352) if crops == 144 else (256,))
    of_scales = choose(crops, 28).of(squares(np.zeros((1, 28, 28, 3), np.uint8)), 0)
    assert sum(map(len, of_scales)) == count
    assert {crop.shape for crop in of_scales} == {
        None: {(2, 32, 32, 3)}, 144: {(36, 28, 28, 3)},
    }.get(crops, {(count, 28, 28, 3)})  # fmt: skip


def test_several_scales_and_padding():
    image = np.full((1, 8, 8, 3), 200, np.uint8)
    small, large = choose(10, 8, scales=(8, 12), pad=2).of(squares(image), 0)
    assert small.shape == large.shape == (10, 8, 8, 3)
    assert not small[0, :2].any() and not small[0, :, :2].any() and (small[0, 2:, 2:] == 200).all()
    assert (small[4] == 200).all() and (large[4] == 200).all()


def test_a_view_says_what_it_is():
    assert str(choose(144, 224)) == "144 crops of 224×224 pixels, shorter side 256, 288, 320, 352"
    assert str(choose(1, 32, scales=(32,), pad=4)) == ("1 crop of 32×32 pixels, shorter side 32, padded by 4")
    assert str(choose(None, 224, scales=(256, 384))) == "the whole image and its mirror image, shorter side 256, 384"


@pytest.mark.parametrize(
    ("crops", "options", "message"),
    [
        (12, {}, "crops must be one of 1, 10, 50, 144 or None, got 12"),
        (1, {"scales": (20,)}, "crops of 28 pixels do not fit into images of 20 pixels; scale more"),
        (10, {"scales": (32, 20), "pad": 3}, "do not fit into images of 20 pixels and 3 around them; scale more"),
        (10, {"scales": (28,)}, "of images of 28 pixels all crops of 28 are the same; a larger scale or padding"),
    ],
)
def test_views_that_are_refused(crops, options, message):
    with pytest.raises(ValueError, match=message) as error:
        choose(crops, 28, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("crops", "side", "scales", "pad"),
    [
        (10, 32, (32,), 2),  # padded, for the network is as large
        (50, 28, (37,), 0),  # enlarged, for the network is larger
        (10, 40, (40,), 0),  # there is room
        (1, 32, (32,), 0),
        (None, 32, (32,), 0),
        (144, 32, (37, 41, 46, 50), 0),
    ],
)
def test_images_of_one_size_are_not_enlarged_where_that_can_be_helped(crops, side, scales, pad):
    dataset = squares(np.zeros((1, side, side, 3), np.uint8))
    assert choose(crops, 32, dataset=dataset)[2:] == (scales, pad)
    assert choose(1, 32, scales=(33,), pad=5, dataset=dataset)[2:] == ((33,), 5)
    files = ImageFiles(["a.jpg"], side)
    assert choose(10, 32, dataset=replace(dataset, images=files))[2:] == ((37,), 0)
