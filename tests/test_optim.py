"""Optimisers against PyTorch's, and what surrounds them: groups, saved states, clipping, averages."""

from __future__ import annotations

import pytest

import kernels
from minicnn import Tensor, layers, optim
from tests import device
from tests.device import np

SHAPES = [(3, 3, 2, 4), (4,), (5, 3)]
SGD, RMSProp, Adam, AdamW = optim.SGD, optim.RMSProp, optim.Adam, optim.AdamW


@pytest.fixture(params=["reference", "cpu"])
def backend(request):
    with kernels.use(request.param):
        yield


def parameters(seed: int = 0, dtype: type = np.float64) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    return [Tensor(rng.normal(size=shape).astype(dtype), requires_grad=True) for shape in SHAPES]


def set_gradients(params: list[Tensor], step: int) -> None:
    rng = np.random.default_rng(100 + step)
    for p in params:
        p.grad = rng.normal(size=p.shape).astype(p.dtype)


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (SGD, "SGD", {}),
        (SGD, "SGD", {"momentum": 0.9, "weight_decay": 0.01}),
        (SGD, "SGD", {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
        (RMSProp, "RMSprop", {"decay": 0.8, "weight_decay": 0.01}),
        (RMSProp, "RMSprop", {"decay": 0.9, "momentum": 0.9, "eps": 1e-3}),
        (Adam, "Adam", {"betas": (0.8, 0.99), "weight_decay": 0.01}),
        (AdamW, "AdamW", {"weight_decay": 0.1, "eps": 1e-4}),
        (AdamW, "AdamW", {}),
    ],
)
def test_equals_torch(ours, theirs, options, backend):
    torch = pytest.importorskip("torch")
    params = parameters()
    twins = [torch.tensor(device.host(p.data), requires_grad=True) for p in params]
    their_options = {{"decay": "alpha"}.get(name, name): value for name, value in options.items()}
    optimiser, twin = ours(params, 0.03, **options), getattr(torch.optim, theirs)(twins, 0.03, **their_options)
    for step in range(8):
        set_gradients(params, step)
        for p, t in zip(params, twins, strict=True):
            t.grad = torch.tensor(device.host(p.grad))
        optimiser.lr = twin.param_groups[0]["lr"] = 0.03 / (1 + step)
        optimiser.step()
        twin.step()
    for p, t in zip(params, twins, strict=True):
        np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_rmsprop_with_eps_inside_the_root(backend):
    params = parameters()[:1]
    w, g = params[0].data.copy(), np.full(SHAPES[0], 0.5)
    params[0].grad = g
    optim.RMSProp(params, 0.1, decay=0.9, eps=1.0, eps_inside=True).step()
    np.testing.assert_allclose(params[0].data, w - 0.1 * g / np.sqrt(0.1 * g**2 + 1.0), rtol=1e-12)


def test_groups_have_a_decay_and_a_rate_of_their_own(backend):
    a, b, c = parameters()
    before = [p.data.copy() for p in (a, b, c)]
    groups = [{"params": [a], "weight_decay": 0.5}, {"params": [b], "lr_scale": 2.0}, {"params": [c]}]
    optimiser = optim.SGD(groups, lr=0.1, weight_decay=0.25)
    for p in (a, b, c):
        p.grad = np.ones(p.shape)
    optimiser.step()
    expected = [
        before[0] - 0.1 * (1 + 0.5 * before[0]),
        before[1] - 0.2 * (1 + 0.25 * before[1]),
        before[2] - 0.1 * (1 + 0.25 * before[2]),
    ]
    for p, w in zip((a, b, c), expected, strict=True):
        np.testing.assert_allclose(p.data, w, rtol=1e-12)


def test_a_parameter_without_gradient_stays():
    params = parameters()
    before = params[1].data.copy()
    optimiser = optim.Adam(params, 0.1)
    set_gradients(params, 0)
    params[1].grad = None
    optimiser.step()
    assert np.array_equal(params[1].data, before)
    optimiser.zero_grad()
    assert all(p.grad is None for p in params)


def test_decay_groups_spare_norm_and_bias():
    model = layers.Sequential(layers.Conv2d(2, 3, 3), layers.BatchNorm(3), layers.Linear(3, 4))
    decayed, spared = optim.decay_groups(model, 0.1)
    assert [p.shape for p in decayed["params"]] == [(3, 3, 2, 3), (3, 4)]
    assert [p.shape for p in spared["params"]] == [(3,), (3,), (3,), (4,)]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    everything, nothing = optim.decay_groups(model, 0.1, norm_and_bias=True)
    assert len(everything["params"]) == 6 and not nothing["params"]


STATEFUL = [
    lambda p: optim.SGD(p, 0.1),
    lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    lambda p: optim.RMSProp(p, 0.1, momentum=0.9),
    lambda p: optim.Adam(p, 0.1),
    lambda p: optim.AdamW(p, 0.1),
]


@pytest.mark.parametrize("make", STATEFUL)
def test_goes_on_from_a_saved_state_as_if_never_stopped(make):
    whole, first = parameters(dtype=np.float32), parameters(dtype=np.float32)
    one, two = make(whole), make(first)
    for step in range(3):
        for params, optimiser in ((whole, one), (first, two)):
            set_gradients(params, step)
            optimiser.step()
    saved = {name: array.copy() for name, array in two.state_dict().items()}
    second = [Tensor(p.data.copy(), requires_grad=True) for p in first]
    three = make(second)
    three.load_state_dict(saved)
    for params, optimiser in ((whole, one), (second, three)):
        set_gradients(params, 3)
        optimiser.step()
    assert three.steps == one.steps == 4
    assert all(np.array_equal(a.data, b.data) for a, b in zip(whole, second, strict=True))


def test_refuses_the_state_of_another_optimiser_or_network():
    adam = optim.Adam(parameters(), 0.1)
    with pytest.raises(ValueError, match="SGD: the saved state is of another optimiser or network"):
        optim.SGD(parameters(), 0.1, momentum=0.9).load_state_dict(adam.state_dict())
    with pytest.raises(ValueError, match=r"0\.m differs"):
        optim.Adam(parameters()[1:], 0.1).load_state_dict(optim.Adam(parameters()[:2], 0.1).state_dict())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.SGD([], 0.1), "SGD: there are no parameters"),
        (lambda p: optim.SGD(p, -0.1), "SGD: lr must be a number of at least 0, got -0.1"),
        (lambda p: optim.SGD(p, float("nan")), "SGD: lr must be a number of at least 0, got nan"),
        (lambda p: optim.SGD(p, 0.1, nesterov=True), "SGD: nesterov needs a momentum"),
        (lambda p: optim.Adam([{"params": p, "weight_decoy": 1}], 0.1), "not weight_decoy"),
        (lambda p: optim.Adam([*p, p[0]], 0.1), "a parameter is given twice"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make(parameters())


@pytest.mark.parametrize("max_norm", [1.0, 1e6])
def test_clip_grad_norm_equals_torch(max_norm):
    torch = pytest.importorskip("torch")
    params = parameters()
    set_gradients(params, 0)
    twins = [torch.zeros(p.shape, dtype=torch.float64, requires_grad=True) for p in params]
    for p, t in zip(params, twins, strict=True):
        t.grad = torch.tensor(device.host(p.grad))
    norm = optim.clip_grad_norm(params, max_norm)
    assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(twins, max_norm).item(), rel=1e-12)
    for p, t in zip(params, twins, strict=True):
        np.testing.assert_allclose(p.grad, t.grad.numpy(), rtol=1e-5)  # PyTorch adds 1e-6 to the norm


def test_clip_grad_norm_keeps_the_direction():
    params = parameters(dtype=np.float32)[:2]
    params[0].grad, params[1].grad = np.full(SHAPES[0], 3, np.float32), None
    before = optim.clip_grad_norm(params, 1.0)
    assert before == pytest.approx(3 * params[0].size ** 0.5)
    assert float(np.linalg.norm(params[0].grad)) == pytest.approx(1.0) and params[0].grad.dtype == np.float32
    assert params[0].grad.min() == params[0].grad.max() and params[1].grad is None


def test_clip_grad_norm_leaves_an_infinite_gradient_to_be_seen():
    p = Tensor(np.zeros(2, np.float32), requires_grad=True)
    p.grad = np.array([np.inf, 1], np.float32)
    assert optim.clip_grad_norm([p], 1.0) == np.inf
    assert p.grad.tolist() == [np.inf, 1]


def test_clip_grad_value():
    params = parameters()
    set_gradients(params, 0)
    before = [p.grad.copy() for p in params]
    optim.clip_grad_value(params, 0.5)
    assert all(np.array_equal(p.grad, g.clip(-0.5, 0.5)) for p, g in zip(params, before, strict=True))


class Net(layers.Module):
    def __init__(self):
        self.fc, self.bn = layers.Linear(2, 3), layers.BatchNorm(3)
        self.to(device.name)

    def change(self, step: int) -> None:
        for i, array in enumerate(self.state_dict().values()):
            array[...] = np.random.default_rng((step, i)).normal(size=array.shape)


def trajectory(net: Net, average: optim.EMA, steps: int) -> list[dict[str, np.ndarray]]:
    seen = []
    for step in range(steps):
        net.change(step)
        average.update()
        seen.append({name: array.copy() for name, array in net.state_dict().items()})
    return seen


def test_ema_is_the_exponential_mean(backend):
    net = Net()
    start = {name: array.copy() for name, array in net.state_dict().items()}
    average = optim.EMA(net, 0.5)
    seen = trajectory(net, average, 12)
    for name, expected in start.items():
        for t, weights in enumerate(seen):
            d = min(0.5, (1 + t) / (10 + t))
            expected = d * expected + (1 - d) * weights[name]
        np.testing.assert_allclose(average.averages[name], expected, rtol=1e-5)


def test_polyak_is_the_mean(backend):
    net = Net()
    average = optim.Polyak(net)
    seen = trajectory(net, average, 7)
    for name, array in average.averages.items():
        np.testing.assert_allclose(array, np.stack([w[name] for w in seen]).mean(axis=0), rtol=1e-4, atol=1e-6)


def test_the_average_is_applied_and_taken_back_even_after_an_error():
    net = Net()
    average = optim.EMA(net, 0.9)
    (*_, own) = trajectory(net, average, 3)
    with pytest.raises(KeyError), average.applied():
        assert all(np.array_equal(a, average.averages[name]) for name, a in net.state_dict().items())
        raise KeyError
    assert all(np.array_equal(array, own[name]) for name, array in net.state_dict().items())


@pytest.mark.parametrize("make", [lambda net: optim.EMA(net, 0.9), optim.Polyak])
def test_an_average_goes_on_from_a_saved_state(make):
    net, other = Net(), Net()
    whole = make(net)
    trajectory(net, whole, 3)
    restored = make(other)
    restored.load_state_dict(whole.state_dict())
    for one, average in ((net, whole), (other, restored)):
        one.change(9)
        average.update()
    assert restored.updates == whole.updates == 4
    assert all(np.array_equal(a, whole.averages[name]) for name, a in restored.averages.items())


def test_average_errors():
    with pytest.raises(ValueError, match="decay must be at least 0 and below 1, got 1"):
        optim.EMA(Net(), 1)
    with pytest.raises(ValueError, match="EMA: the saved average is of another network"):
        optim.EMA(Net()).load_state_dict(optim.EMA(layers.Linear(2, 3)).state_dict())
    with pytest.raises(ValueError, match="EMA: the saved average is of another network"):
        optim.EMA(layers.Linear(2, 3)).load_state_dict(optim.EMA(layers.Linear(1, 1)).state_dict())
