"""Every format gives back the arrays that were written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn import data
from minicnn.data.pixels import whole


def check(spec: str | Path, arrays: dict[str, np.ndarray]) -> data.Dataset:
    for split in ("train", "test"):
        loaded = data.load(spec, split)
        assert loaded.images.dtype == np.uint8 and loaded.labels.dtype == np.int64
        np.testing.assert_array_equal(loaded.images, arrays[f"x_{split}"])
        np.testing.assert_array_equal(loaded.labels, arrays[f"y_{split}"])
        pixels = arrays["x_train"] / 255
        assert loaded.mean.dtype == loaded.std.dtype == np.float32
        np.testing.assert_allclose(loaded.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-6)
        np.testing.assert_allclose(loaded.std, pixels.std(axis=(0, 1, 2)), rtol=1e-6)
    return loaded


def test_idx(idx_folder, grey):
    loaded = check(idx_folder, grey)
    assert (loaded.name, loaded.classes) == ("idx", tuple("0123456789"))
    assert (loaded.image_size, loaded.channels, loaded.num_classes) == (12, 1, 10)


def test_idx_under_a_known_name_has_its_classes(idx_folder, grey):
    loaded = check(f"fashion-mnist:{idx_folder}", grey)
    assert loaded.name == "fashion-mnist" and loaded.classes[9] == "Ankle boot"


def test_idx_with_a_dot_in_the_names(idx_folder, grey):
    for path in list(idx_folder.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    check(idx_folder, grey)


def test_cifar10(cifar10_folder, colour):
    assert check(cifar10_folder, colour).classes == tuple("0123456789")
    assert check(f"cifar10:{cifar10_folder}", colour).classes[3] == "cat"


def test_cifar100_takes_the_fine_labels(cifar100_folder, colour):
    loaded = check(cifar100_folder, {**colour, "y_train": colour["y_train"] * 9, "y_test": colour["y_test"] * 9})
    assert loaded.num_classes == 100 and loaded.classes[42] == "class_42"


def test_npz(npz_file, colour):
    loaded = check(npz_file, colour)
    assert loaded.name == "own"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_variants(tmp_path, colour, save):
    arrays = {
        "x_train": np.asfortranarray(colour["x_train"][..., 0]),  # no channel axis, the other memory order
        "y_train": colour["y_train"].astype(">i4"),
        "x_test": colour["x_test"][..., 0],
        "y_test": colour["y_test"].astype(np.int64)[:, None],  # as Keras stores labels
        "classes": np.array([f"c{i}" for i in range(10)]),
    }
    save(tmp_path / "v.npz", **arrays)
    grey = {**colour, "x_train": colour["x_train"][..., :1], "x_test": colour["x_test"][..., :1]}
    assert check(tmp_path / "v.npz", grey).classes[2] == "c2"


def test_image_size_resamples_arrays(npz_file):
    assert data.load(npz_file, image_size=20).images.shape == (40, 20, 20, 3)


def test_image_size_takes_the_centred_square_of_oblong_images(tmp_path):
    images = np.zeros((2, 8, 12, 1), np.uint8)
    images[:, :, 2:10] = 200  # the square is uniform, the margins are black
    arrays = {"x_train": images, "y_train": [0, 1], "x_test": images, "y_test": [0, 1]}
    np.savez(tmp_path / "oblong.npz", **arrays)
    assert (data.load(tmp_path / "oblong.npz", image_size=8).images == 200).all()
    with pytest.raises(data.DataError, match="not square; give image_size"):
        data.load(tmp_path / "oblong.npz")


def test_image_folder(image_folder):
    train, test = data.load_pair(image_folder, image_size=32)
    assert train.classes == ("cat", "dog") and train.name == "pictures"
    np.testing.assert_array_equal(train.labels, [0, 0, 1, 1])
    np.testing.assert_array_equal(test.labels, [0, 1])
    assert train.images.shape == (4, 32, 32, 3) and (train.image_size, train.channels) == (32, 3)
    images, labels = train.take(np.array([2, 0]))
    np.testing.assert_array_equal(images, train.images[np.array([2, 0])])
    np.testing.assert_array_equal(images[1], train.images[0])
    np.testing.assert_array_equal(labels, [1, 0])
    np.testing.assert_allclose(train.mean, (train.images[:] / 255).mean(axis=(0, 1, 2)), rtol=1e-6)
    assert train.subset(np.array([3])).images.files == train.images.files[3:]
    assert data.load(image_folder).image_size == 224


def test_whole_images_of_a_folder(image_folder):
    """Both sides in proportion, where a batch has the centred square."""
    train, _ = data.load_pair(image_folder, image_size=50)
    upright = image_folder / "train" / "dog" / "0.jpg"
    Image.open(upright).transpose(Image.Transpose.ROTATE_90).save(upright)  # 70×50 before
    assert [image.shape for image in train.whole(0, (25, 40))] == [(25, 35, 3), (40, 56, 3)]
    assert [image.shape for image in train.whole(2, (50,))] == [(70, 50, 3)]
    assert np.array_equal(train.whole(1, (50,))[0][:, 15:65], train.images[1])


def test_whole_images_of_an_array(npz_file):
    train, _ = data.load_pair(npz_file)
    same, larger = train.whole(3, (32, 40))
    assert np.array_equal(same, train.images[3]) and larger.shape == (40, 40, 3)


@pytest.mark.parametrize(("shape", "side", "expected"), [((20, 100, 1), 10, (10, 40, 1)), ((90, 9, 3), 9, (36, 9, 3))])
def test_of_a_very_long_image_the_middle(shape, side, expected):
    image = np.zeros(shape, np.uint8)
    middle = tuple(slice(n // 2 - 2, n // 2 + 2) for n in shape[:2])
    image[middle] = 200
    shown = whole(image, side)
    assert shown.shape == expected
    rows, cols = shown[..., 0].nonzero()
    h, w = expected[:2]
    assert abs(rows.mean() - (h - 1) / 2) <= 0.5 and abs(cols.mean() - (w - 1) / 2) <= 0.5


def test_image_folder_with_test_instead_of_val_and_a_class_held_out_nowhere(image_folder):
    (image_folder / "val").rename(image_folder / "test")
    shutil.rmtree(image_folder / "test" / "cat")
    np.testing.assert_array_equal(data.load(image_folder, "test").labels, [1])


def test_image_folder_converts_every_kind_of_picture_to_rgb(image_folder):
    cat = image_folder / "train" / "cat"
    for i, mode in enumerate(("L", "RGBA", "P", "1")):
        Image.new("RGB", (40, 40), (255, 255, 255)).convert(mode).save(cat / f"extra{i}.png")
    images = data.load(image_folder, image_size=16).images[:6]
    assert images.shape == (6, 16, 16, 3) and (images[2:] == 255).all()


def test_large_jpegs_are_decoded_small_but_alike(tmp_path):
    """Draft mode gives nearly what decoding at full size and resampling gives."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (tmp_path / split / "x").mkdir(parents=True)
        picture = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((600, 600))
        picture.save(tmp_path / split / "x" / "a.jpg", quality=95)
    small = data.load(tmp_path, image_size=64).images[0].astype(float)
    full = np.asarray(Image.open(tmp_path / "train" / "x" / "a.jpg").resize((64, 64), Image.Resampling.BILINEAR))
    assert np.abs(small - full).mean() < 2
