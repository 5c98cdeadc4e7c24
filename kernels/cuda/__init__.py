"""Kernels for CuPy arrays in CUDA and cuBLAS: the reference, with all that a training step waits for redefined.

Each topic is a .cu file, to be read on its own, beside a Python file of the same name that calls it. In reading order:
elementwise; columns and gemm, which make a convolution, and convolution, which has one without them; pooling and
batch_normalisation, with the sums over many rows; loss, with a warp for each; response_normalisation, with shared
memory; then contrast_normalisation, philox, shortcut, optimisers. Under all of them: launcher, arrays, common.cuh.

Maps are float32, or float16 with all arithmetic and every statistic in float32: a .cu file says T for the type of their
elements, and is compiled for each. What the kernels do not take, float64 above all, which is there for checking
gradients, goes to the reference. Nothing depends on the order in which threads or blocks run: there are no atomics, and
sums are taken in a fixed order. (That of a convolution's weight gradient depends on the size of the card's cache.)
"""

# isort: off
from kernels.reference import *
from kernels.reference import __all__ as __all__

# isort: on
from kernels.cuda.batch_normalisation import (
    batch_norm,
    batch_norm_eval_grad,
    batch_norm_grad,
    batch_norm_stats,
    batch_norm_update,
    bias_grad,
    bn_relu,
    bn_relu_eval_grad,
    bn_relu_grad,
)
from kernels.cuda.columns import col2im, im2col
from kernels.cuda.contrast_normalisation import lcn, lcn_grad
from kernels.cuda.convolution import conv2d, conv2d_input_grad, conv2d_relu, conv2d_weight_grad
from kernels.cuda.elementwise import relu, relu_grad, sigmoid, sigmoid_grad, tanh, tanh_grad
from kernels.cuda.fully_connected import linear, linear_input_grad, linear_weight_grad
from kernels.cuda.loss import cross_entropy, cross_entropy_grad, softmax, softmax_grad
from kernels.cuda.optimisers import (
    adam_update,
    cast_update,
    ema_update,
    rmsprop_update,
    sgd_update,
    square_sum,
    sum_update,
    together,
)
from kernels.cuda.philox import dropout
from kernels.cuda.pictures import crop_flip_normalise
from kernels.cuda.pooling import (
    avg_pool,
    avg_pool_grad,
    global_avg_pool,
    global_avg_pool_grad,
    max_pool,
    max_pool_grad,
)
from kernels.cuda.response_normalisation import lrn, lrn_grad
from kernels.cuda.shortcut import pad_channels, subsample, subsample_grad
