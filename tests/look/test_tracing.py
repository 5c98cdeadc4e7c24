"""A trace names every op as the layers are named, and leaves the model as it was."""

from __future__ import annotations

import numpy
import pytest

from minicnn import Tensor, init, layers, models, no_grad
from minicnn.look import trace
from tests import device
from tests.device import np


def network(name, size=32, classes=5):
    return models.build(name, classes, image_size=size).to(device=device.name)


def images(n=1, size=32, channels=3):
    return device.there(numpy.random.default_rng(0).normal(size=(n, size, size, channels)).astype(numpy.float32))


def test_ops_go_by_the_names_of_their_modules():
    names = [step.name for step in trace(network("resnet-mini"), images()).steps]
    assert names[:11] == [
        "conv1", "bn1", "relu", "maxpool",
        "layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu", "layer1.0.conv2", "layer1.0.bn2", "layer1.0.add",
        "layer1.0.relu_1",
    ]  # fmt: skip
    assert names[-2:] == ["avgpool", "fc"]
    assert len(set(names)) == len(names)


def test_a_relu_that_its_neighbour_computes_keeps_its_name():
    with init.skipped():
        steps = trace(network("vgg-a-lrn"), images()).steps
    assert [(step.name, step.op) for step in steps[:6]] == [
        ("features.0", "conv2d"),
        ("features.1", "relu"),
        ("features.2", "lrn"),
        ("features.3", "max_pool"),
        ("features.4", "conv2d"),
        ("features.5", "relu"),
    ]


def test_fused_ops_are_one_step():
    steps = trace(network("resnet-mini"), images(), fused=True).steps
    assert [(step.name, step.op) for step in steps[:3]] == [
        ("conv1", "conv2d"),
        ("bn1", "bn_relu"),
        ("maxpool", "max_pool"),
    ]


def test_a_module_is_found_by_what_it_computes_last():
    seen = trace(network("resnet-mini"), images())
    assert seen.find("layer1").name == seen.find("layer1.0").name == "layer1.0.relu_1"
    assert seen.find("layer1.0.bn1").op == "batch_norm"
    assert seen.find("layer1.0.relu").y.data is seen.find("layer1.0.conv2").inputs[0]
    assert seen.find("layer2.0.downsample").name == "layer2.0.downsample.1"


def test_the_last_map_is_the_one_that_the_classifier_averages():
    seen = trace(network("resnet-mini"), images())
    assert seen.find_map().name == "layer3.0.relu_1"
    with init.skipped():
        assert trace(network("vgg-a"), images()).find_map().name == "features.19"  # not the pool behind it


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer1.0.conv3", "unknown layer 'layer1.0.conv3': did you mean layer1.0.conv"),
        ("stem", "unknown layer 'stem': choose from conv1, bn1, maxpool, layer1, layer2, layer3, avgpool, fc and"),
        ("fc", "layer 'fc' makes no map but (5,) numbers"),
    ],
)
def test_what_is_no_map_is_said(layer, message):
    with pytest.raises(ValueError) as error:
        trace(network("resnet-mini"), images()).find_map(layer)
    assert str(error.value).startswith(message)


def test_scores_are_those_of_evaluation():
    model = network("resnet-mini")
    x = images(2)
    seen = trace(model, x)
    model.eval()
    with no_grad():
        np.testing.assert_allclose(seen.logits.data, model(Tensor(x)).data, rtol=1e-5, atol=1e-5)


def test_auxiliary_heads_do_not_run():
    with init.skipped():
        names = [step.name for step in trace(network("googlenet"), images()).steps]
    assert "inception3a.concat" in names and "inception5b.branch4.1.relu" in names
    assert not any(name.startswith("aux") for name in names)


def test_the_model_is_left_as_it_was():
    model = network("resnet-mini")
    model.layer2.eval()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    trainable = [tensor for tensor in model.parameters()]
    seen = trace(model, images())
    seen.score(1)
    assert seen.x.grad is not None and bool(abs(seen.x.grad).max() > 0)
    assert [module.training for module in model.modules()] == modes
    assert list(model.parameters()) == trainable
    assert all(tensor.grad is None for tensor in trainable)
    assert all(np.array_equal(array, before[name]) for name, array in model.state_dict().items())


def test_a_layer_used_twice_has_two_names():
    class Twice(layers.Module):
        def __init__(self):
            self.conv = layers.Conv2d(3, 3, 3, pad=1)

        def forward(self, x):
            return self.conv(self.conv(x)).mean(axis=(1, 2))

    steps = trace(Twice().to(device=device.name), images(size=4)).steps
    assert [step.name for step in steps] == ["conv", "conv_1", "mean"]
