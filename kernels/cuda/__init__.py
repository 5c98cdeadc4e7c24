"""Kernels for CuPy arrays: the reference, which runs on them as it stands."""

from kernels.reference import *
from kernels.reference import __all__ as __all__
