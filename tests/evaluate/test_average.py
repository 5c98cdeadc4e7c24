"""The mean over all views is that of separate forward passes, one view at a time."""

from __future__ import annotations

import numpy
import pytest
from PIL import Image

import minicnn
from minicnn import Tensor, layers, models, no_grad
from minicnn.data import Dataset, augment
from minicnn.data.folder import ImageFiles
from minicnn.evaluate import average, choose, dense, scores
from minicnn.models.vgg import VGG
from tests import device

MEAN, STD = numpy.array([0.5, 0.4, 0.3], "f"), numpy.array([0.2, 0.25, 0.3], "f")


@pytest.fixture
def pictures(tmp_path):
    """`pictures(height, width)`: a data set of three image files of that size, with nothing lost."""

    def make(height, width):
        rng = numpy.random.default_rng(0)
        files = []
        for i in range(3):
            files.append(str(tmp_path / f"{i}.png"))
            patches = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=numpy.uint8))
            patches.resize((width, height), Image.Resampling.BICUBIC).save(files[-1])
        return Dataset("pictures", ImageFiles(files, 16), numpy.array([2, 0, 1]), tuple("abcdef"), MEAN, STD)

    return make


def small_vgg(table="16 M 32 M", image_size=16, **options):
    """A VGG of two stages, with weights that make decided guesses."""
    minicnn.seed(3)
    model = VGG(table, 6, 3, image_size, **options)
    model.name, model.num_classes, model.image_size = "small-vgg", 6, image_size
    for layer in model.classifier:
        if isinstance(layer, layers.Linear):
            layer.weight.data *= 5  # from N(0, 0.01²)
    return model.to(device.name)


def files_of(dataset):
    return [numpy.asarray(Image.open(file)) for file in dataset.images.files]


def logits(model, image):
    """Of one image (H, W, 3) or its part, in a batch of its own: (classes,)."""
    x = augment.normalise(image[None], MEAN, STD)
    with no_grad():
        return device.host(model(Tensor(device.there(x))).data)[0]


def softmax(z):
    e = numpy.exp(z.astype(float))
    return e / e.sum()


def close(a, b):
    numpy.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert numpy.ptp(numpy.asarray(b), axis=0).max() > 1e-3  # they tell the images apart


def test_ten_crops_of_vgg_are_ten_forward_passes(pictures):
    dataset, model = pictures(24, 30), small_vgg()
    probabilities, labels = scores(model, dataset, choose(10, 16, scales=(24,)), on=device.name)
    model.eval()
    naive = []
    for image in files_of(dataset):
        square = image[:, 3:27]
        parts = [square[:16, :16], square[:16, 8:], square[8:, :16], square[8:, 8:], square[4:20, 4:20]]
        naive.append(numpy.mean([softmax(logits(model, p)) for part in parts for p in (part, part[:, ::-1])], axis=0))
    close(probabilities, naive)
    assert labels.tolist() == [2, 0, 1]


def test_dense_vgg_is_the_mean_over_all_windows(pictures):
    """Exactly so where no convolution pads: then a window of the image makes the same map wherever it is cut out.

    Two pools move it by 4 pixels from one place to the next. 14 pixels become 12, 6, 4 and 2, which is the map that the
    first linear layer takes; 22 become 4 and 26 become 5, so that it fits in 3 x 4 places.
    """
    dataset, model = pictures(22, 26), small_vgg(image_size=8)
    model.image_size = 14
    for layer in model.features:
        if isinstance(layer, layers.Conv2d):
            layer.options["pad"] = 0
    probabilities, _ = scores(model, dataset, choose(None, 14, scales=(22,)), on=device.name)
    model.eval()
    naive = []
    for image in files_of(dataset):
        posteriors = []
        for view in (image, image[:, ::-1]):
            windows = [view[top : top + 14, left : left + 14] for top in (0, 4, 8) for left in (0, 4, 8, 12)]
            posteriors.append(softmax(numpy.mean([logits(model, window) for window in windows], axis=0)))
        naive.append(numpy.mean(posteriors, axis=0))
    close(probabilities, naive)


def test_dense_vgg_sees_beyond_its_windows_where_it_pads(pictures):
    """A window then has its neighbours around it, not zeros: it is one of the map that the whole image makes."""
    dataset, model = pictures(24, 28), small_vgg()
    probabilities, _ = scores(model, dataset, choose(None, 16, scales=(24,)), on=device.name)
    model.eval()
    naive = []
    for image in files_of(dataset):
        posteriors = []
        for view in (image, image[:, ::-1]):
            maps = model.features(Tensor(device.there(augment.normalise(view[None], MEAN, STD)))).data  # (1, 6, 7, 32)
            places = [maps[:, i : i + 4, j : j + 4] for i in range(3) for j in range(4)]
            seen = [device.host(model.classifier(Tensor(place).flatten()).data)[0] for place in places]
            posteriors.append(softmax(numpy.mean(seen, axis=0)))
        naive.append(numpy.mean(posteriors, axis=0))
    close(probabilities, naive)


def test_several_scales_count_alike(pictures):
    dataset, model = pictures(24, 30), small_vgg()
    each = [scores(model, dataset, choose(None, 16, scales=(side,)), on=device.name)[0] for side in (20, 24, 31)]
    together, _ = scores(model, dataset, choose(None, 16, scales=(20, 24, 31)), on=device.name)
    close(together, numpy.mean(each, axis=0))


@pytest.mark.parametrize("crops", [144, None])
def test_no_batch_is_larger_than_allowed(pictures, monkeypatch, crops):
    dataset, model, sizes = pictures(24, 30), small_vgg(), []
    chosen = choose(crops, 16, scales=(20, 24))
    expected, _ = scores(model, dataset, chosen, on=device.name)
    monkeypatch.setattr(average, "together", lambda height, width: 5)
    real = average._logits
    monkeypatch.setattr(average, "_logits", lambda n, m, x, on: sizes.append(len(x)) or real(n, m, x, on))
    probabilities, _ = scores(model, dataset, chosen, on=device.name)
    assert max(sizes) == 5 and sum(sizes) == (2 * 36 if crops else 4) * 3
    close(probabilities, expected)


def test_views_of_many_sizes_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(average, "IMAGES", 6)
    cut = []

    def seen():
        for i in range(20):
            cut.append(i)
            yield i, [numpy.zeros((2, 4, 4 + i, 3), numpy.uint8)]

    batches = average._batches(seen())
    owners, images = next(batches)
    assert owners.tolist() == [0, 0] and images.shape == (2, 4, 4, 3)
    assert cut == [0, 1, 2, 3]  # then 8 views are waiting, none for another of its size
    assert [owners.tolist() for owners, _ in batches] == [[i, i] for i in range(1, 20)]


def test_the_models_mode_is_put_back(pictures):
    model = small_vgg()
    model.features.eval()
    modes = [module.training for module in model.modules()]
    scores(model, pictures(16, 16), choose(None, 16, scales=(16,)), on=device.name)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("name", ["resnet-mini", "resnet20", "googlenet", "nin", "alexnet", "zfnet"])
def test_networks_that_can_look_at_larger_images(pictures, name):
    minicnn.seed(0)
    model = models.build(name, num_classes=6, image_size=32).to(device.name)
    probabilities, _ = scores(model, pictures(40, 46), choose(None, 32, scales=(40,)), on=device.name)
    assert probabilities.shape == (3, 6)
    numpy.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_a_global_average_is_an_average_over_places(pictures):
    """A linear layer on the mean of a map gives the mean of what it gives at all its places."""
    minicnn.seed(0)
    dataset, model = pictures(40, 46), models.build("resnet-mini", num_classes=6, in_channels=3).to(device.name)
    probabilities, _ = scores(model, dataset, choose(None, 28, scales=(40,)), on=device.name)
    model.eval()
    naive = []
    for image in files_of(dataset):
        x = augment.normalise(numpy.stack([image, image[:, ::-1]]), MEAN, STD)
        with no_grad():
            inputs = {}
            with minicnn.observe(lambda event, inputs=inputs: inputs.update({event.name: event.inputs[0]})):
                model(Tensor(device.there(x)))
            places = device.host(inputs["global_avg_pool"])  # (2, 10, 12, 128)
        weight, bias = (device.host(t.data) for t in (model.fc.weight, model.fc.bias))
        naive.append(numpy.mean([softmax((view @ weight + bias).mean(axis=(0, 1))) for view in places], axis=0))
    close(probabilities, naive)


class Fixed(models.Model):
    """A network that ends in a linear layer on a whole map, or in one score for each place of it."""

    name, num_classes, image_size = "fixed", 6, 16

    def __init__(self, flatten):
        self.conv, self.flatten = layers.Conv2d(3, 6, 3, stride=16, pad=1), flatten
        self.fc = layers.Linear(6, 6, from_map=(1, 1, 6))

    def forward(self, x):
        x = self.conv(x).flatten()
        return self.fc(x) if self.flatten else x


@pytest.mark.parametrize("flatten", [True, False])
def test_a_network_that_cannot_look_at_larger_images(pictures, flatten):
    model = Fixed(flatten).to(device.name)
    assert dense(model) is model
    with pytest.raises(ValueError, match=r"fixed cannot look at images of 32×37 pixels, made for 16×16: .*--crops"):
        scores(model, pictures(32, 37), choose(None, 16, scales=(32,)), on=device.name)
    scores(model, pictures(32, 37), choose(10, 16, scales=(32,)), on=device.name)


def test_corrupt_files_are_left_out(pictures):
    dataset = pictures(24, 30)
    with open(dataset.images.files[1], "wb") as file:
        file.write(b"no image")
    with pytest.raises(ValueError, match=r"1\.png: damaged"):
        scores(small_vgg(), dataset, choose(1, 16), on=device.name)
    dataset.images.skip_corrupt = True
    probabilities, labels = scores(small_vgg(), dataset, choose(1, 16), on=device.name)
    assert labels.tolist() == [2, 1] and len(probabilities) == 2 and dataset.corrupt == [dataset.images.files[1]]
