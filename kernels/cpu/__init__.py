"""Kernels for NumPy arrays in Numba and BLAS: the reference, with all that a training step waits for redefined.

In reading order: columns (convolution the plain way) and convolution (which way is taken); ir/microkernel, the loop
that does all the work, with machine, tile and panels; on it direct, direct_weights, direct_image, winograd,
winograd_weights, and gemm with fully_connected. What a step spends elsewhere: batch_normalisation, elementwise, pooling
and the others, one topic each. Under all of them: compile, threads, and memory with its arena.
"""

# isort: off
from kernels.reference import *
from kernels.reference import __all__ as __all__

# isort: on
from kernels.cpu.batch_normalisation import (
    batch_norm,
    batch_norm_eval_grad,
    batch_norm_grad,
    batch_norm_stats,
    bias_grad,
    bn_relu,
    bn_relu_eval_grad,
    bn_relu_grad,
)
from kernels.cpu.contrast_normalisation import lcn, lcn_grad
from kernels.cpu.convolution import conv2d, conv2d_input_grad, conv2d_relu, conv2d_weight_grad, exact
from kernels.cpu.elementwise import relu, relu_grad, sigmoid, sigmoid_grad, tanh, tanh_grad
from kernels.cpu.fully_connected import linear, linear_input_grad, linear_weight_grad
from kernels.cpu.joining import concat, concat_grad
from kernels.cpu.local_normalisation import lrn, lrn_grad
from kernels.cpu.loss import cross_entropy, cross_entropy_grad, softmax, softmax_grad
from kernels.cpu.optimisers import adam_update, ema_update, rmsprop_update, sgd_update, sum_update
from kernels.cpu.philox import dropout
from kernels.cpu.pooling import (
    avg_pool,
    avg_pool_grad,
    global_avg_pool,
    global_avg_pool_grad,
    max_pool,
    max_pool_grad,
)
from kernels.cpu.shortcut import pad_channels, subsample, subsample_grad
