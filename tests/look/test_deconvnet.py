"""A projection is back-propagation with one rule changed: each part of it against a formula written out here."""

from __future__ import annotations

import numpy
import pytest

import kernels
from minicnn import layers
from minicnn.look import projections
from minicnn.look.tracing import trace
from tests import device

rng = numpy.random.default_rng(1)


def normal(*shape):
    return device.there(rng.normal(size=shape).astype(numpy.float32))


def on_device(model):
    return model.to(device=device.name)


def one_hot_of_strongest(maps, unit):
    """The maps (1, H, W, C) with everything zero but the strongest value of one channel."""
    gy = device.host(maps).copy() * 0
    channel = device.host(maps)[0, ..., unit]
    place = numpy.unravel_index(channel.argmax(), channel.shape)
    gy[(0, *place, unit)] = channel[place]
    return device.there(gy)


def test_of_one_layer_it_is_the_transposed_convolution():
    conv = on_device(layers.Sequential(layers.Conv2d(3, 4, 3, stride=2, pad=1), layers.GlobalAvgPool()))
    x, w = normal(1, 9, 9, 3), conv[0].weight.data
    k = kernels.of(x)
    y = k.conv2d(x, w, None, stride=2, pad=1)
    for unit, found in zip([2, 0], projections(conv, x, "0", [2, 0]), strict=True):
        expected = k.conv2d_input_grad(one_hot_of_strongest(y, unit), w, x.shape, stride=2, pad=1)
        numpy.testing.assert_allclose(found, device.host(expected)[0], rtol=1e-5, atol=1e-6)
        assert 0 < numpy.count_nonzero(found) <= 27  # the window of one output


def test_a_pool_puts_values_back_where_they_won():
    identity = layers.Conv2d(1, 1, 1, bias=False)
    identity.weight.data[:] = 1
    model = on_device(layers.Sequential(identity, layers.ReLU(), layers.MaxPool(2), layers.MaxPool(2)))
    x = abs(normal(1, 8, 8, 1))
    (found,) = projections(model, x, "3", [0])
    image = device.host(x)[0]
    expected = numpy.where(image == image.max(), image, 0)
    assert numpy.array_equal(found, expected)


def test_relu_passes_what_is_positive_whether_it_was_open_or_not():
    model = on_device(
        layers.Sequential(
            layers.Conv2d(3, 6, 3, pad=1), layers.ReLU(), layers.Conv2d(6, 4, 3, pad=1), layers.ReLU(),
            layers.GlobalAvgPool(),
        )
    )  # fmt: skip
    x, w1, w2 = normal(1, 8, 8, 3), model[0].weight.data, model[2].weight.data
    k = kernels.of(x)
    y1 = k.relu(k.conv2d(x, w1, None, pad=1))
    y2 = k.relu(k.conv2d(y1, w2, None, pad=1))
    gy = k.conv2d_input_grad(one_hot_of_strongest(y2, 1), w2, y1.shape, pad=1)
    expected = k.conv2d_input_grad(k.relu(gy), w1, x.shape, pad=1)
    gradient = k.conv2d_input_grad(k.relu_grad(gy, y1), w1, x.shape, pad=1)
    (found,) = projections(model, x, "3", [1])
    numpy.testing.assert_allclose(found, device.host(expected)[0], rtol=1e-5, atol=1e-5)
    assert abs(found - device.host(gradient)[0]).max() > 0.01


def test_contrast_normalisation_is_passed_over():
    def network(*between):
        return on_device(layers.Sequential(layers.Conv2d(3, 8, 3), *between, layers.GlobalAvgPool()))

    x, plain, normalised = normal(1, 6, 6, 3), network(), network(layers.LRN(alpha=1.0))
    normalised.load_state_dict(plain.state_dict())
    (found,) = projections(normalised, x, "1", [3])
    maps = trace(normalised, x).find("1").y.data
    gy = one_hot_of_strongest(maps, 3)
    expected = kernels.of(x).conv2d_input_grad(gy, plain[0].weight.data, x.shape)
    numpy.testing.assert_allclose(found, device.host(expected)[0], rtol=1e-5, atol=1e-6)


def test_units_do_not_disturb_each_other():
    model = on_device(
        layers.Sequential(layers.Conv2d(3, 8, 3), layers.ReLU(), layers.MaxPool(3, 2), layers.Conv2d(8, 8, 2))
    )
    x = normal(1, 12, 12, 3)
    together = projections(model, x, "2", [5, 1, 7])
    for unit, found in zip([5, 1, 7], together, strict=True):
        numpy.testing.assert_allclose(projections(model, x, "2", [unit])[0], found, rtol=1e-5, atol=1e-6)


def test_a_class_is_a_unit_of_the_last_layer():
    model = on_device(layers.Sequential(layers.GlobalAvgPool(), layers.Linear(3, 5)))
    x = normal(1, 4, 4, 3)
    (found,) = projections(model, x, "1", [2])
    score = device.host(trace(model, x).logits.data)[0, 2]
    expected = score * device.host(model[1].weight.data)[:, 2] / 16
    numpy.testing.assert_allclose(found, numpy.broadcast_to(expected, (4, 4, 3)), rtol=1e-5)


def test_a_unit_that_does_not_exist():
    model = on_device(layers.Sequential(layers.Conv2d(3, 4, 3), layers.GlobalAvgPool()))
    with pytest.raises(ValueError, match="layer '0' has units 0 to 3, there is no unit 4"):
        projections(model, normal(1, 4, 4, 3), "0", [4])
