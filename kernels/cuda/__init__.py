"""Kernels for CuPy arrays in CUDA and cuBLAS: the reference, with all that a training step waits for redefined.

Each topic is a .cu file, to be read on its own, beside a Python file of the same name that calls it through the typed
`launcher`. Maps are float32, or float16 with all arithmetic and every statistic in float32: a .cu file says T for the
type of their elements and is compiled for each. What the kernels do not take, float64 above all, which is there for
checking gradients, goes to the reference.

No result depends on the order in which blocks or threads run: sums are taken in a fixed order, without atomics.
"""

# isort: off
from kernels.reference import *
from kernels.reference import __all__ as __all__

# isort: on
from kernels.cuda.columns import col2im, im2col
from kernels.cuda.convolution import conv2d, conv2d_input_grad, conv2d_relu, conv2d_weight_grad
from kernels.cuda.elementwise import relu, relu_grad, sigmoid, sigmoid_grad, tanh, tanh_grad
