"""What `load` makes of names, paths and options; the bundled images; validation splits."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from minicnn import data
from minicnn.data import catalogue, choose_bundled, registry
from minicnn.data.dataset import channel_statistics


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "cache_folder", lambda: tmp_path / "cache")


def test_bundled_is_the_default_and_balanced():
    train, test = data.load(), data.load("bundled", "test")
    assert train.images.shape == (5000, 28, 28, 1) and test.images.shape == (1000, 28, 28, 1)
    assert (np.bincount(train.labels) == 500).all() and (np.bincount(test.labels) == 100).all()
    assert train.classes == catalogue.FASHION_CLASSES and train.name == "bundled"
    assert (train.mean == test.mean).all() and (train.std == test.std).all()


def test_bundled_images_are_the_chosen_ones():
    """A guard against a file that was made by another choice; the script needs the full data set."""
    train, test = data.load_pair()
    digest = hashlib.sha256(
        train.images.tobytes() + train.labels.tobytes() + test.images.tobytes() + test.labels.tobytes()
    )
    assert digest.hexdigest() == "22ceac0c219b0ba3e833296acb744b8086f2ccda1a344ff41a1f86e9676c97eb"


def test_the_choice_is_balanced_and_seeded():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 60))
    chosen = choose_bundled.balanced(labels, 50, np.random.default_rng(1))
    assert (np.bincount(labels[chosen]) == 50).all() and (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, choose_bundled.balanced(labels, 50, np.random.default_rng(1)))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("fashon-mnist", "did you mean fashion-mnist"),
        ("CIFAR-10", "did you mean cifar10"),
        ("qqqq", "choose from bundled, mnist"),
        ("cifar10", "python -m minicnn.data get cifar10"),
        ("mnist:/no/such/place", "/no/such/place: no such file"),
        ("./nowhere", "no such file"),
        ("nowhere.npz", "no such file"),
    ],
)
def test_names_that_lead_nowhere(spec, reason):
    with pytest.raises(data.DataError) as caught:
        data.load(spec)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_a_misspelt_name_before_a_real_path(tmp_path):
    with pytest.raises(data.DataError, match="unknown data set 'fashion': did you mean fashion-mnist"):
        data.load(f"fashion:{tmp_path}")


def test_no_data_set_says_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for looked_for in ("train-images-idx3-ubyte", "data_batch_1.bin", "train/CLASS"):
        with pytest.raises(data.DataError, match=looked_for):
            data.load(tmp_path)
    with pytest.raises(data.DataError, match=r"notes.txt: not a data set; a file must be an .npz"):
        data.load(tmp_path / "notes.txt")


def test_the_cache_is_searched(tmp_path, cifar10_folder, colour):
    (tmp_path / "cache").mkdir()
    cifar10_folder.rename(tmp_path / "cache" / "cifar10")
    np.testing.assert_array_equal(data.load("cifar10").images, colour["x_train"])


def test_bad_options():
    with pytest.raises(ValueError, match="split must be"):
        data.load(split="validation")
    with pytest.raises(ValueError, match="image_size must be at least 1"):
        data.load(image_size=0)


def test_a_constant_channel_can_be_divided_by():
    mean, std = channel_statistics(np.full((3, 4, 4, 2), 51, np.uint8))
    np.testing.assert_allclose(mean, 0.2)
    np.testing.assert_array_equal(std, 1)


def test_split_validation_is_stratified_seeded_and_complete():
    train = data.load()
    rest, held_out = data.split_validation(train, 0.1, seed=4)
    assert (np.bincount(rest.labels) == 450).all() and (np.bincount(held_out.labels) == 50).all()
    assert held_out.mean is train.mean and held_out.classes == train.classes
    together = np.concatenate([rest.images, held_out.images]).reshape(5000, -1)
    assert sorted(map(bytes, together)) == sorted(map(bytes, train.images.reshape(5000, -1)))
    again = data.split_validation(train, 0.1, seed=4)[1]
    other = data.split_validation(train, 0.1, seed=5)[1]
    assert (again.images == held_out.images).all() and (other.images != held_out.images).any()


def test_split_validation_of_small_classes(dataset):
    few = dataset.subset(np.array([0, 5, 1, 2, 7, 12]))  # two, one and three images of the classes a, b, c
    rest, held_out = data.split_validation(few, 0.01)
    assert np.bincount(held_out.labels, minlength=3).tolist() == [1, 0, 1]
    assert np.bincount(rest.labels, minlength=3).tolist() == [1, 1, 2]
    with pytest.raises(ValueError, match="between 0 and 1"):
        data.split_validation(few, 1.0)
