"""The closed forms against the textbook: the formula spelt out in Tensor arithmetic and differentiated by the tape."""

from __future__ import annotations

import pytest

import kernels
from minicnn import Tensor, ops
from tests.device import np
from tests.strategies import spread


def batch_norm(x, gamma, beta, eps=1e-5):
    axes = tuple(range(x.ndim - 1))
    centred = x - x.mean(axis=axes)
    return centred / ((centred * centred).mean(axis=axes) + eps).sqrt() * gamma + beta


def lrn(x, size=5, alpha=1e-4, beta=0.75, k=2.0):
    c, half = x.shape[-1], size // 2
    wide = (x * x).pad(((0, 0),) * (x.ndim - 1) + ((half, half),))
    total = wide[..., 0:c]
    for i in range(1, size):
        total = total + wide[..., i : i + c]
    return x * (total * alpha + k) ** -beta


def softmax(x):
    e = (x - x.max(axis=-1, keepdims=True)).exp()
    return e / e.sum(axis=-1, keepdims=True)


LABELS = np.array([3, 0, 2, 3, 1, 0])
PROBABILITIES = np.random.default_rng(5).dirichlet(np.ones(4), 6)


def cross_entropy(x, targets, label_smoothing=0.0, reduction="mean"):
    classes = x.shape[1]
    q = np.eye(classes)[targets] if targets.ndim == 1 else targets
    q = (1 - label_smoothing) * q + label_smoothing / classes
    losses = -(softmax(x).log() * q).sum(axis=1)
    return {"mean": losses.mean, "sum": losses.sum, "none": lambda: losses}[reduction]()


MAPS, SCORES = (2, 3, 4, 9), (6, 4)
ORACLES = {
    "batch_norm": (ops.batch_norm, batch_norm, [MAPS, (9,), (9,)], {}),
    "batch_norm, eps": (ops.batch_norm, batch_norm, [MAPS, (9,), (9,)], {"eps": 0.3}),
    "batch_norm of vectors": (ops.batch_norm, batch_norm, [SCORES, (4,), (4,)], {}),
    "lrn": (ops.lrn, lrn, [MAPS], {"alpha": 0.9}),
    "lrn, window of 3": (ops.lrn, lrn, [MAPS], {"size": 3, "alpha": 1.1, "beta": 0.5, "k": 1.0}),
    "lrn, wider than the channels": (ops.lrn, lrn, [(2, 1, 2, 3)], {"size": 9, "alpha": 0.9}),
    "softmax": (ops.softmax, softmax, [SCORES], {}),
    "softmax of maps": (ops.softmax, softmax, [MAPS], {}),
}
for reduction in ("mean", "sum", "none"):
    for targets in (LABELS, PROBABILITIES):
        for smoothing in (0.0, 0.2):
            options = {"targets": targets, "label_smoothing": smoothing, "reduction": reduction}
            name = f"cross_entropy, {targets.dtype}, {smoothing}, {reduction}"
            ORACLES[name] = (
                lambda x, targets, **options: ops.cross_entropy(x, targets, **options),
                cross_entropy,
                [SCORES],
                options,
            )


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", ORACLES)
def test_the_closed_form_equals_the_formula(name, backend):
    closed, spelt_out, shapes, options = ORACLES[name]
    rng = np.random.default_rng(1)
    arrays = [spread(rng, shape) for shape in shapes]
    gy = None
    outcomes = []
    for f in (closed, spelt_out):
        tensors = [Tensor(a, requires_grad=True) for a in arrays]
        with kernels.use(backend):
            y = f(*tensors, **options)
            gy = rng.standard_normal(y.shape) if gy is None else gy
            y.backward(np.asarray(gy))
        outcomes.append([y.data, *(x.grad for x in tensors)])
    for value, expected in zip(*outcomes, strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12 * max(np.abs(expected).max(), 1))
