"""What is alive when: backward frees activations as it goes, and nothing of a step outlives it."""

from __future__ import annotations

import gc
import weakref

import pytest

from minicnn import Tensor, autograd, models, no_grad, optim
from tests import device
from tests.device import np


def record_forward(step):
    """Run `step`; weak references to the outputs of all its forward ops."""
    alive: list[weakref.ref] = []

    def remember(event: autograd.Event) -> None:
        if event.phase == "forward":
            alive.append(weakref.ref(event.outputs[0]))

    with autograd.observe(remember):
        result = step()
    return result, alive


def living(references: list[weakref.ref]) -> int:
    return sum(reference() is not None for reference in references)


@pytest.fixture
def without_collector():
    """Reference counting alone must do: activations in a cycle would live until the collector happens to run."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("name", ["resnet20", "googlenet", "vgg-a"])
def test_no_activation_outlives_a_step(name, without_collector):
    model = models.build(name, num_classes=10, image_size=32).to(device.name)
    optimiser = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images, labels = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32), np.array([1, 2])

    def step():
        loss = models.loss(model(Tensor(images)), labels)
        loss.backward()
        optimiser.step()
        return loss

    loss, outputs = record_forward(step)
    assert len(outputs) > 20
    assert living(outputs) == 1 and loss.data.size == 1  # the loss itself


def most_alive_in_evaluation(name: str) -> int:
    model = models.build(name).to(device.name).eval()
    most = 0
    outputs: list[weakref.ref] = []

    def count(event: autograd.Event) -> None:
        nonlocal most
        outputs.append(weakref.ref(event.outputs[0]))
        most = max(most, living(outputs))

    with no_grad(), autograd.observe(count):
        model(Tensor(np.zeros((1, 32, 32, 3), np.float32)))
    return most


def test_without_a_graph_depth_costs_no_memory(without_collector):
    assert most_alive_in_evaluation("resnet20") == most_alive_in_evaluation("resnet56") <= 6


def test_backward_frees_as_it_goes(without_collector):
    model = models.build("plain20").to(device.name)
    images = np.zeros((1, 32, 32, 3), np.float32)
    loss, outputs = record_forward(lambda: models.loss(model(Tensor(images)), np.array([0])))
    left: list[int] = []
    with autograd.observe(lambda event: left.append(living(outputs))):
        loss.backward()
    quarter = len(left) // 4
    assert left[quarter] > left[2 * quarter] > left[3 * quarter] > left[-1]
