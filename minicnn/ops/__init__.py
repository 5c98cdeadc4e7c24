"""The ops: what a network is computed with. One op, one function: forward on top, backward inside, derivation above.

basic        arithmetic, reductions, shapes: what `Tensor`'s operators call
conv         convolution, fully connected layer
pool         max, average, global average
norm         batch normalisation, local response and contrast normalisation
activation   ReLU, sigmoid, tanh
regularise   dropout
loss         softmax, cross-entropy
shape        concatenation, ResNet's shortcut A
fused        two or three of these in one pass
"""

from minicnn.ops import fused
from minicnn.ops.activation import relu, sigmoid, tanh
from minicnn.ops.basic import (
    add,
    cast,
    div,
    exp,
    flatten,
    getitem,
    log,
    matmul,
    max,
    maximum,
    mean,
    mul,
    neg,
    pad,
    pow,
    reshape,
    sqrt,
    sub,
    sum,
    transpose,
)
from minicnn.ops.conv import conv2d, linear
from minicnn.ops.fused import bn_relu, conv_relu
from minicnn.ops.loss import cross_entropy, softmax
from minicnn.ops.norm import batch_norm, lcn, lrn
from minicnn.ops.pool import avg_pool, global_avg_pool, max_pool
from minicnn.ops.regularise import dropout
from minicnn.ops.shape import concat, pad_channels, subsample

__all__ = [
    "add",
    "avg_pool",
    "batch_norm",
    "bn_relu",
    "cast",
    "concat",
    "conv2d",
    "conv_relu",
    "cross_entropy",
    "div",
    "dropout",
    "exp",
    "flatten",
    "fused",
    "getitem",
    "global_avg_pool",
    "lcn",
    "linear",
    "log",
    "lrn",
    "matmul",
    "max",
    "max_pool",
    "maximum",
    "mean",
    "mul",
    "neg",
    "pad",
    "pad_channels",
    "pow",
    "relu",
    "reshape",
    "sigmoid",
    "softmax",
    "sqrt",
    "sub",
    "subsample",
    "sum",
    "tanh",
    "transpose",
]
