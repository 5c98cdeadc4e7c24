"""Level 3: networks train on CuPy as they do on the CPU: the same losses, the same dropout masks, nobody waiting."""

from __future__ import annotations

import contextlib
from types import ModuleType
from typing import Any

import numpy
import pytest

import kernels.cpu
import kernels.cuda
import minicnn
from minicnn import Tensor, models, optim
from tests import device
from tests.cuda.host import cupy_on_host

NETWORKS = {
    "resnet20": {"image_size": 16},
    "googlenet": {"image_size": 28, "num_classes": 10},
    "vgg-a": {"image_size": 28, "num_classes": 10},
}
BATCH, STEPS = 2, 5

pytestmark = pytest.mark.skipif("config.getoption('device') == 'cpu'", reason="needs --device=host or --device=cuda")
ON_HOST = pytest.mark.skipif("config.getoption('device') != 'host'", reason="needs --device=host, which it controls")


class Run:
    """Some steps of training on one device: losses, and every mask that a dropout layer drew."""

    def __init__(self, name: str, on: str, backend: ModuleType, monkeypatch: pytest.MonkeyPatch):
        minicnn.seed(3)
        self.on, self.masks = on, []
        self.model = models.build(name, **NETWORKS[name]).to(on)
        self.optimiser = optim.SGD(self.model.parameters(), lr=0.002, momentum=0.9, weight_decay=1e-4)
        original = backend.dropout

        def dropout(x: Any, p: float, key: tuple[int, int, int]) -> Any:
            self.masks.append(device.host(original(0 * x + 1, p, key) > 0))
            return original(x, p, key)

        monkeypatch.setattr(backend, "dropout", dropout)

    def step(self, waiting: contextlib.AbstractContextManager | None = None) -> Tensor:
        rng, side = numpy.random.default_rng(0), self.model.image_size
        x = minicnn.device.to(rng.normal(size=(BATCH, side, side, 3)).astype(numpy.float32), self.on)
        labels = minicnn.device.to(rng.integers(0, 10, BATCH), self.on)
        with waiting or contextlib.nullcontext():
            loss = models.loss(self.model(Tensor(x)), labels)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
        return loss


@pytest.mark.parametrize("name", NETWORKS)
def test_five_steps_give_the_cpus_losses_and_masks(name, monkeypatch):
    ours, theirs = Run(name, "cuda", kernels.cuda, monkeypatch), Run(name, "cpu", kernels.cpu, monkeypatch)
    losses, expected = ([run.step().item() for _ in range(STEPS)] for run in (ours, theirs))
    assert losses == pytest.approx(expected, abs=1e-4)
    assert abs(losses[0] - losses[-1]) > 0.01  # the steps do something
    assert all(numpy.array_equal(a, b) for a, b in zip(ours.masks, theirs.masks, strict=True))
    assert bool(ours.masks) == (name != "resnet20")  # which has no dropout


@ON_HOST
@pytest.mark.parametrize("name", NETWORKS)
def test_no_step_makes_the_host_wait(name, monkeypatch):
    run = Run(name, "cuda", kernels.cuda, monkeypatch)
    monkeypatch.undo()  # who looks at masks waits for them
    run.step(cupy_on_host.no_synchronising())


@ON_HOST
@pytest.mark.parametrize("order", ["reverse", "random"])
def test_the_order_of_threads_changes_no_bit(order, monkeypatch):
    losses = []
    for context in (contextlib.nullcontext(), cupy_on_host.order(order)):
        run = Run("resnet20", "cuda", kernels.cuda, monkeypatch)
        with context:
            losses.append([run.step().item() for _ in range(2)])
    assert losses[0] == losses[1]


@ON_HOST
@pytest.mark.parametrize(
    "wait", [float, lambda a: a.get(), lambda a: a.item(), lambda a: bool(a), lambda a: a.device.synchronize()]
)
def test_who_waits_is_seen(wait):
    a = device.np.ones(())
    with cupy_on_host.no_synchronising(), pytest.raises(Exception, match="the host waits for the device"):
        wait(a)
    wait(a)
