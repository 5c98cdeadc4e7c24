"""Exact statistics for batch normalisation: those that one computes batch by batch by hand."""

from __future__ import annotations

import numpy
import pytest

import minicnn
from minicnn import Tensor, layers, models
from minicnn.evaluate import precise_bn
from tests import device


class Two(layers.Module):
    """Two convolutions with a BatchNorm each, and dropout between them."""

    def __init__(self):
        self.conv1, self.bn1 = layers.Conv2d(3, 4, 3, pad=1), layers.BatchNorm(4, eps=0.1, momentum=0.3)
        self.drop = layers.Dropout(0.5)
        self.conv2, self.bn2 = layers.Conv2d(4, 5, 3), layers.BatchNorm(5)

    def forward(self, x):
        return self.bn2(self.conv2(self.drop(self.bn1.relu(self.conv1(x)))))


def batches(*sizes):
    rng = numpy.random.default_rng(0)
    return [(rng.normal(i, 1 + i, (n, 6, 6, 3)).astype("f"), numpy.zeros(n, int)) for i, n in enumerate(sizes)]


@pytest.fixture
def model():
    minicnn.seed(1)
    return Two().to(device.name)


def statistics(model):
    return [device.host(a).copy() for a in dict(model.named_buffers()).values()]


def by_hand(model, given):
    """The mean over batches, by their images, of each norm's batch mean and unbiased variance."""
    sums, count = [0, 0, 0, 0], 0
    for x, _ in given:
        y1 = device.host(model.conv1(Tensor(device.there(x))).data).astype(float)
        mean, var = y1.mean(axis=(0, 1, 2)), y1.var(axis=(0, 1, 2))
        normal = numpy.maximum((y1 - mean) / numpy.sqrt(var + 0.1), 0).astype("f")  # γ = 1, β = 0
        y2 = device.host(model.conv2(Tensor(device.there(normal))).data).astype(float)
        of_batch = [f(y) for y in (y1, y2) for f in (lambda y: y.mean(axis=(0, 1, 2)), unbiased)]
        sums = [s + len(x) * a for s, a in zip(sums, of_batch, strict=True)]
        count += len(x)
    return [s / count for s in sums]


def unbiased(y):
    return y.var(axis=(0, 1, 2), ddof=1)


def close(a, b):
    for one, other in zip(a, b, strict=True):
        numpy.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_means_of_batch_statistics_that_count_by_their_images(model):
    given = batches(8, 8, 3)
    precise_bn(model, given, 3, on=device.name)
    close(statistics(model), by_hand(model, given))


def test_the_first_batches_again_where_there_are_too_few(model):
    given = batches(4, 4)
    precise_bn(model, given, 6, on=device.name)
    close(statistics(model), by_hand(model, given))


def test_fewer_batches_than_there_are(model):
    given = batches(4, 4, 4)
    precise_bn(model, given, 2, on=device.name)
    close(statistics(model), by_hand(model, given[:2]))


def test_all_else_stays_as_it_was(model):
    model.bn1.eval()
    weights = {name: device.host(t.data).copy() for name, t in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    step = model.drop.rng.step
    precise_bn(model, batches(4), 1, on=device.name)
    assert [module.training for module in model.modules()] == modes
    assert (model.bn1.momentum, model.bn2.momentum, model.drop.rng.step) == (0.3, 0.1, step)
    assert all(numpy.array_equal(device.host(t.data), weights[name]) for name, t in model.named_parameters())


def test_an_interruption_leaves_the_statistics_as_they_were(model):
    before = statistics(model)

    def interrupted():
        yield from batches(4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        precise_bn(model, interrupted(), 2, on=device.name)
    assert all(map(numpy.array_equal, statistics(model), before)) and model.bn1.momentum == 0.3


def test_norms_that_are_not_run_keep_their_statistics():
    minicnn.seed(0)
    model = models.build("googlenet", num_classes=3, image_size=32, bn=True).to(device.name)
    before = {name: device.host(a).copy() for name, a in model.named_buffers()}
    rng = numpy.random.default_rng(0)
    precise_bn(model, [(rng.normal(size=(2, 32, 32, 3)).astype("f"), None)], 1, on=device.name)
    changed = {name for name, a in model.named_buffers() if not numpy.array_equal(device.host(a), before[name])}
    assert changed == {name for name in before if not name.startswith("aux")}


def test_a_network_without_batch_normalisation():
    with pytest.raises(ValueError, match="precise_bn: vgg-a has no BatchNorm"):
        precise_bn(models.build("vgg-a", image_size=32), batches(2), 1)
