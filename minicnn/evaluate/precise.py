"""Batch normalisation with exact statistics, in place of the moving averages that training leaves behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from minicnn import Tensor, device, no_grad
from minicnn.data.loader import Batch
from minicnn.evaluate.progress import Watch
from minicnn.layers import BatchNorm, Module, evaluation


def precise_bn(
    model: Module,
    batches: Iterable[Batch],
    count: int,
    *,
    on: str = "cpu",
    watch: Watch = iter,
) -> None:
    """Replace each BatchNorm's running statistics by means over `count` training batches, seen with the final weights.

    A moving average holds the statistics of weights that training has left behind, with the most weight on the last
    few batches. Here the weights stand still and all batches count alike: the mean is that of the batches' means, the
    variance that of their variances with M/(M − 1). Everything else is in evaluation mode: nothing is dropped out.

    `batches` are (images, labels), cycled through if there are fewer than `count`; a smaller one counts less. In place;
    an error or an interruption leaves the statistics as they were. ValueError for a model without BatchNorm.
    Source: Ioffe and Szegedy 2015 (arXiv 1502.03167, algorithm 2); so were the published ResNets made ready for use.
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    if not norms:
        raise ValueError(f"precise_bn: {getattr(model, 'name', type(model).__name__)} has no BatchNorm")
    before = [(n.momentum, n.running_mean.copy(), n.running_var.copy()) for n in norms]
    sums = [np.zeros((2, n.running_mean.size)) for n in norms]
    images, done = 0, False
    try:
        with no_grad(), evaluation(model):
            for norm in norms:
                norm.training, norm.momentum = True, 1.0  # what is left behind are the statistics of the last batch
            for _, (x, _labels) in zip(watch(range(count)), _endless(batches), strict=False):
                model(Tensor(device.to(x, on)))
                images += len(x)
                for total, norm in zip(sums, norms, strict=True):
                    total += len(x) * np.stack([device.to(a, "cpu") for a in (norm.running_mean, norm.running_var)])
        done = images > 0
    finally:
        for norm, total, (momentum, mean, var) in zip(norms, sums, before, strict=True):
            norm.momentum = momentum
            norm.running_mean[...] = device.to((total[0] / images).astype(mean.dtype), on) if done else mean
            norm.running_var[...] = device.to((total[1] / images).astype(var.dtype), on) if done else var


def _endless(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches again and again, until there are none; a loader goes on to its next epoch."""
    more = True
    while more:
        more = False
        for batch in batches:
            more = True
            yield batch
