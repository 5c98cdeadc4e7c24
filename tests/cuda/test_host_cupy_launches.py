"""Level 3: a step on CuPy launches what the benchmarks' model of it, which runs without CuPy, says that it launches."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import minicnn
from benchmarks import cuda_model, networks
from kernels.cuda import launcher
from minicnn import Tensor, models, optim
from tests.cuda.host import cupy_on_host

NETWORKS = {
    "resnet20": networks.Network("resnet20", 2, 16),
    "googlenet": networks.Network("googlenet", 2, 28),
    "vgg-a": networks.Network("vgg-a", 2, 28),
}

pytestmark = pytest.mark.skipif("config.getoption('device') != 'host'", reason="counts launches, for --device=host")


class Listening(launcher.CupyLauncher):
    """CuPy's launcher, which keeps what it launches."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: list[tuple[Any, ...]] = []

    def launch(self, source: Any, kernel: str, grid: Any, block: Any, arguments: list[Any], shared: int) -> None:
        numbers = tuple(a for a in arguments if isinstance(a, numpy.generic))
        self.launches.append((kernel, grid, block, numbers))
        super().launch(source, kernel, grid, block, arguments, shared)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_model_counts_what_cupy_launches(name):
    import cupy

    network = NETWORKS[name]
    minicnn.seed(0)
    model = models.build(network.model, network.classes, image_size=network.side).to("cuda")
    optimiser = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images = cupy.zeros((network.batch, network.side, network.side, 3), numpy.float32)
    labels = cupy.zeros(network.batch, numpy.int64)
    listening, before = Listening(), cupy_on_host.launches()
    with launcher.using(listening):
        loss = models.loss(model(Tensor(images)), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    launched = cupy_on_host.launches() - before

    cache = cupy.cuda.Device(0).attributes["L2CacheSize"]
    modelled = [launch for op in cuda_model.step(network, cache) for launch in op.launches]
    ours = [launch for launch in modelled if launch.grid]
    assert [(a.kernel, a.grid, a.block, a.numbers) for a in ours] == listening.launches
    assert launched == sum(launch.kernel != "cuBLAS" for launch in modelled)
