"""The loader's batches depend on seed, epoch and position alone, and its threads end with the loop."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from kernels import reference
from minicnn.data import DataError, Loader, augment, load


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("minicnn-loader")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert loader_threads() == []


def identities(dataset, images: np.ndarray) -> list[int]:
    """The indices that a data set's images carry in their first pixel."""
    return np.rint((images[:, 0, 0, 0] * dataset.std[0] + dataset.mean[0]) * 255).astype(int).tolist()


def in_order(dataset, batches) -> list[int]:
    """The indices of all images of all batches."""
    return [index for images, _ in batches for index in identities(dataset, images)]


def same(a, b) -> None:
    assert len(a) == len(b)
    for (x, y), (u, v) in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


PIPELINE = augment.parse("crop:2,flip,colour,cutout:3")


def test_an_epoch_holds_every_image_once(dataset):
    loader = Loader(dataset, 10)
    seen = []
    for images, labels in loader:
        assert images.dtype == np.float32 and labels.dtype == np.int64 and images.shape[1:] == (8, 8, 3)
        numbers = identities(dataset, images)
        np.testing.assert_array_equal(labels, dataset.labels[numbers])
        seen += numbers
    assert sorted(seen) == list(range(103)) and seen != list(range(103))
    assert len(loader) == 11


def test_without_shuffling_the_order_is_the_data_sets(dataset):
    batches = list(Loader(dataset, 50, shuffle=False, dtype=np.float64))
    assert [len(labels) for _, labels in batches] == [50, 50, 3]
    assert in_order(dataset, batches) == list(range(103))
    expected = augment.normalise(dataset.images[:50], dataset.mean, dataset.std, np.float64)
    np.testing.assert_array_equal(batches[0][0], expected)


def test_drop_last(dataset):
    loader = Loader(dataset, 50, drop_last=True)
    assert [len(labels) for _, labels in loader] == [50, 50] and len(loader) == 2
    assert len(Loader(dataset, 103, drop_last=True)) == len(Loader(dataset, 103)) == 1


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("prefetch", [1, 4])
def test_threads_change_nothing(dataset, threads, prefetch):
    expected = Loader(dataset, 10, augment=PIPELINE, seed=3)
    loader = Loader(dataset, 10, augment=PIPELINE, seed=3, threads=threads, prefetch=prefetch)
    for _ in range(2):
        same(list(loader), list(expected))


def test_slow_threads_do_not_overtake(dataset):
    def uneven(images, generator):
        time.sleep(0.01 * generator.random())
        return images

    loader = Loader(dataset, 5, augment=uneven, threads=4, shuffle=False)
    assert in_order(dataset, loader) == list(range(103))


def test_epochs_and_seeds_differ(dataset):
    loader = Loader(dataset, 103, seed=1)
    orders = [identities(dataset, images) for _ in range(3) for images, _ in loader]
    orders += [identities(dataset, images) for images, _ in Loader(dataset, 103, seed=2)]
    assert len({tuple(order) for order in orders}) == 4


def test_augmentation_differs_between_epochs_and_batches(dataset):
    drawn = []
    loader = Loader(dataset, 52, augment=lambda images, g: (drawn.append(float(g.random())), images)[1])
    for _ in range(2):
        list(loader)
    assert len(set(drawn)) == 4


@pytest.mark.parametrize("stop", [0, 1, 4, 11])
def test_resume_from_any_position(dataset, stop):
    whole = Loader(dataset, 10, augment=PIPELINE, seed=9)
    expected = [*whole, *whole]
    first = Loader(dataset, 10, augment=PIPELINE, seed=9, threads=2)
    batches = []
    for batch in first:
        if len(batches) == stop:
            break
        batches.append(batch)
        state = first.state()
        assert state == {"epoch": 0, "batch": len(batches)}
    resumed = Loader(dataset, 10, augment=PIPELINE, seed=9, threads=3)
    resumed.set_state({"epoch": 0, "batch": stop})
    batches += [*resumed, *resumed]
    same(batches, expected)
    assert resumed.state() == {"epoch": 2, "batch": 0}


def test_an_abandoned_epoch_is_continued(dataset):
    loader = Loader(dataset, 10, shuffle=False)
    for images, _ in loader:
        assert identities(dataset, images)[0] == 0
        break
    assert [identities(dataset, images)[0] for images, _ in loader] == list(range(10, 103, 10))
    assert loader.state() == {"epoch": 1, "batch": 0}


def test_threads_end_when_the_loop_is_abandoned(dataset):
    batches = iter(Loader(dataset, 5, threads=3, prefetch=4))
    next(batches)
    assert 1 <= len(loader_threads()) <= 3
    del batches
    assert loader_threads() == []


def test_no_more_is_made_than_prefetch_allows(dataset):
    made = []
    loader = Loader(dataset, 5, augment=lambda images, _: (made.append(1), images)[1], threads=2, prefetch=3)
    batches = iter(loader)
    next(batches)
    time.sleep(0.1)
    assert len(made) <= 1 + 2 + 3
    batches.close()


def test_an_exception_in_a_thread_arrives_in_its_place(dataset):
    def fail(images, generator):
        if 42 in images[:, 0, 0, 0]:
            raise RuntimeError("no such luck")
        return images

    loader = Loader(dataset, 10, augment=fail, shuffle=False, threads=2)
    batches = iter(loader)
    for _ in range(4):
        next(batches)
    with pytest.raises(RuntimeError, match="no such luck"):
        next(batches)
    assert loader.state() == {"epoch": 0, "batch": 4} and loader_threads() == []


@pytest.mark.parametrize("size", [0, -1, 104])
def test_impossible_batch_sizes(dataset, size):
    with pytest.raises(ValueError, match=f"batch size {size} is not possible; numbered has 103 images"):
        Loader(dataset, size)


@pytest.mark.parametrize("state", [{"epoch": 0, "batch": 12}, {"epoch": 0, "batch": -1}, {"epoch": -1, "batch": 0}])
def test_impossible_positions(dataset, state):
    with pytest.raises(ValueError, match="an epoch has 11 of 10"):
        Loader(dataset, 10).set_state(state)


def test_impossible_threads(dataset):
    with pytest.raises(ValueError, match="at least 1, got 0 and 2"):
        Loader(dataset, 10, threads=0)


def test_corrupt_images_are_named_or_skipped(image_folder):
    path = image_folder / "train" / "dog" / "0.jpg"
    intact = path.read_bytes()
    named = load(image_folder, image_size=16)
    path.write_bytes(intact[:100])
    with pytest.raises(DataError, match=r"0\.jpg"):
        list(Loader(named, 2, threads=2))
    skipping = load(image_folder, image_size=16, skip_corrupt=True)
    labels = np.concatenate([labels for _, labels in Loader(skipping, 1, shuffle=False, augment=PIPELINE)])
    np.testing.assert_array_equal(labels, [0, 0, 1])
    assert skipping.corrupt == [str(path)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("text", "left"),
    [
        *(("none", "none"), ("crop:2", "none"), ("flip", "none"), ("crop:3,flip", "none"), ("flip,crop", "none")),
        *(("colour,cutout:3,crop:2,flip", "colour,cutout:3"), ("flip,crop:2,cutout:3", "flip,crop:2,cutout:3")),
        *(("crop:1,crop:2", "crop:1"), ("flip,crop,flip", "flip")),
    ],
)
def test_unfinished_batches_are_the_same_once_they_are_finished(dataset, text, left, dtype):
    options = {"augment": augment.parse(text), "seed": 5, "dtype": dtype}
    unfinished = Loader(dataset, 20, unfinished=True, **options)
    assert str(unfinished.augment) == left
    batches = []
    for images, corners, mirrored, labels in unfinished:
        assert images.dtype == np.uint8 and corners.dtype == np.int32 and mirrored.dtype == bool
        finished = reference.crop_flip_normalise(
            images, corners, mirrored, dataset.mean, dataset.std, size=images.shape[1], dtype=dtype
        )
        assert finished.dtype == dtype
        batches.append((finished, labels))
    same(batches, list(Loader(dataset, 20, **options)))
    assert unfinished.state() == {"epoch": 1, "batch": 0}


def test_any_function_augments_unfinished_batches(dataset):
    loader = Loader(dataset, 20, augment=lambda images, generator: images[:, ::-1], unfinished=True, shuffle=False)
    images, corners, mirrored, _ = next(iter(loader))
    np.testing.assert_array_equal(images, dataset.images[:20, ::-1])
    assert not corners.any() and not mirrored.any()
