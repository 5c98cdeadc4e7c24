"""The reference against PyTorch in float64: values and gradients within 1e-10 of the largest element."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import reference as k
from tests.device import np
from tests.kernels.cases import CASES, targets
from tests.strategies import drawn, maps, spread
from tests.torch_ops import F, avg_pool, batch_norm, batch_norm_eval, conv2d, from_array, max_pool, nchw, nhwc, torch


def lrn(x, size, alpha, beta, k):
    return nhwc(F.local_response_norm(nchw(x), size, size * alpha, beta, k))  # PyTorch's alpha multiplies the mean


def pad_channels(x, before, after):
    return F.pad(x, (before, after))


def subsample(x, stride):
    sh, sw = (stride, stride) if isinstance(stride, int) else stride
    return x[:, ::sh, ::sw]


def cross_entropy(x, probabilities, label_smoothing):
    labels = from_array(targets(x.detach().numpy(), probabilities))
    labels = labels if probabilities else labels.long()
    return F.cross_entropy(x, labels, reduction="none", label_smoothing=label_smoothing)


TORCH = {
    "conv2d": conv2d,
    "conv2d_relu": lambda *arrays, **options: F.relu(conv2d(*arrays, **options)),
    "conv2d_relu, residual": lambda x, w, b, residual, **options: F.relu(conv2d(x, w, b, **options) + residual),
    "linear": lambda x, w, b: F.linear(x, w.T, b),
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "avg_pool, count_pad": lambda x, **options: avg_pool(x, **options, count_pad=True),
    "global_avg_pool": lambda x: F.adaptive_avg_pool2d(nchw(x), 1).flatten(1),
    "batch_norm": batch_norm,
    "batch_norm, evaluation": batch_norm_eval,
    "bn_relu": lambda x, gamma, beta, residual: F.relu(batch_norm(x, gamma, beta) + residual),
    "bn_relu, evaluation, no residual": lambda x, gamma, beta: F.relu(batch_norm_eval(x, gamma, beta)),
    "lrn": lrn,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "concat": lambda *xs: torch.cat(xs, dim=-1),
    "pad_channels": pad_channels,
    "subsample": subsample,
    "softmax": lambda x: F.softmax(x, dim=-1),
    "cross_entropy": cross_entropy,
}


def close(value, expected, tolerance=1e-10):
    expected = expected.detach().numpy()
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * max(abs(expected).max(), 1e-30))


def test_only_what_pytorch_lacks_or_draws_otherwise_is_left_out():
    assert set(CASES) - set(TORCH) == {"lcn", "dropout"}


@pytest.mark.parametrize("name", TORCH)
@given(data=st.data())
def test_value_and_gradients_equal_pytorchs(name, data, reference):
    case, draw = CASES[name], data.draw(CASES[name].inputs)
    arrays = draw.arrays()
    y = case.forward(reference, *arrays, **draw.options)
    gy = spread(np.random.default_rng(draw.seed + 1), y.shape)
    grads = case.backward(reference, gy, y, *arrays, **draw.options)

    tensors = [from_array(a).clone().requires_grad_() for a in arrays]
    expected = TORCH[name](*tensors, **draw.options)
    close(y, expected)
    for value, wanted in zip(grads, torch.autograd.grad(expected, tensors, from_array(gy)), strict=True):
        close(value, wanted)


@given(drawn(st.tuples(maps(least=2)), momentum=st.sampled_from([0.1, 0.5])))
def test_running_statistics_equal_pytorchs(draw):
    (x,) = draw.arrays()
    c = x.shape[-1]
    running_mean, running_var = spread(np.random.default_rng(0), (c,)), np.linspace(1, 2, c)
    expected = from_array(running_mean).clone(), from_array(running_var).clone()
    F.batch_norm(nchw(from_array(x)), *expected, training=True, momentum=draw.options["momentum"])
    mean, var = k.batch_norm_stats(x)
    k.batch_norm_update(running_mean, running_var, mean, var, count=x.size // c, **draw.options)
    close(running_mean, expected[0])
    close(running_var, expected[1])


def sgd(w, state, g, step, lr, momentum, weight_decay, nesterov):
    velocity = state[0] if momentum else None
    k.sgd_update(w, g, velocity, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)


def rmsprop(w, state, g, step, lr, alpha, eps, momentum, weight_decay):
    velocity = state[1] if momentum else None
    k.rmsprop_update(
        w, g, state[0], velocity, lr=lr, decay=alpha, eps=eps, momentum=momentum, weight_decay=weight_decay
    )


def adam(w, state, g, step, lr, betas, eps, weight_decay, decoupled=False):
    m, v = state[:2]
    options = {"beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": weight_decay, "decoupled": decoupled}
    k.adam_update(w, g, m, v, lr=lr, step=step, **options)


def adamw(*arguments, **options):
    adam(*arguments, **options, decoupled=True)


momenta, decays = st.sampled_from([0.0, 0.9]), st.sampled_from([0.0, 0.1])
adam_options = {
    "betas": st.sampled_from([(0.9, 0.999), (0.5, 0.7)]),
    "eps": st.sampled_from([1e-8, 0.1]),
    "weight_decay": decays,
}
OPTIMISERS = {
    "SGD": (sgd, {"momentum": momenta, "weight_decay": decays}, {"nesterov": False}),
    "SGD, Nesterov": (sgd, {"momentum": st.just(0.9), "weight_decay": decays}, {"nesterov": True}),
    "RMSprop": (
        rmsprop,
        {"alpha": st.sampled_from([0.9, 0.5]), "eps": adam_options["eps"], "momentum": momenta, "weight_decay": decays},
        {},
    ),
    "Adam": (adam, adam_options, {}),
    "AdamW": (adamw, adam_options, {}),
}


@pytest.mark.parametrize("name", OPTIMISERS)
@given(data=st.data())
def test_five_steps_of_an_optimiser_equal_pytorchs(name, data):
    update, drawn_options, fixed = OPTIMISERS[name]
    draw = data.draw(drawn(st.just(((3, 4),)), **drawn_options))
    options = {"lr": 0.05, **draw.options, **fixed}
    (w,) = draw.arrays()
    expected = torch.nn.Parameter(from_array(w).clone())
    optimiser = getattr(torch.optim, name.split(",")[0])([expected], **options)
    state = [np.zeros_like(w), np.zeros_like(w)]
    rng = np.random.default_rng(draw.seed)
    for step in range(1, 6):
        g = rng.normal(size=w.shape)
        before = g.copy()
        update(w, state, g, step, **options)
        assert np.array_equal(g, before)
        expected.grad = from_array(g)
        optimiser.step()
        close(w, expected, 1e-12)
