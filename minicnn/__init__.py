"""minicnn: convolutional networks on NumPy or CuPy arrays, with a hand-written autograd core and no framework."""

import kernels

if getattr(kernels, "OWNER", None) != "minicnn":
    raise ImportError(
        f"minicnn needs its own package 'kernels', but found another at {kernels.__file__}: "
        "run `pip uninstall kernels`, then install minicnn again"
    )

from minicnn import autograd, device, folding, init, interop, layers, models, ops, optim, schedules
from minicnn.autograd import Tensor, detect_anomaly, no_grad, observe
from minicnn.checking import GradientError, gradcheck
from minicnn.random import Generator, seed

__version__ = "0.1.0"

__all__ = [
    "Generator",
    "GradientError",
    "Tensor",
    "autograd",
    "detect_anomaly",
    "device",
    "folding",
    "gradcheck",
    "init",
    "interop",
    "layers",
    "models",
    "no_grad",
    "observe",
    "ops",
    "optim",
    "schedules",
    "seed",
]
