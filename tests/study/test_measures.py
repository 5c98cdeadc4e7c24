"""What is measured on a network is what its name says."""

from __future__ import annotations

import numpy as np
import pytest

import minicnn
from minicnn import data, layers, models
from minicnn.study import claims, networks
from minicnn.study.branches import branch_usefulness
from minicnn.study.claim import SERIES, TABLES, Scale
from minicnn.study.claims.costs import reductions, stacked_costs
from minicnn.study.engine import Bench
from minicnn.study.looking import _flat, _middle
from minicnn.study.probes import pre_activations, responses, start_gradients


@pytest.fixture
def shown():
    """Forty test images."""
    test = data.load("bundled", "test")
    return test.subset(np.arange(40))


@pytest.fixture
def chain():
    """`chain(depth, **variant)`: the study's network for small grey images, of seed 0."""

    def build(depth: int = 8, **variant: object) -> networks.Chain:
        minicnn.seed(0)
        return models.build("chain", 10, 1, 28, depth=depth, **variant)

    return build


@pytest.mark.parametrize(("depth", "size", "same"), [(20, 32, "plain20"), (56, 32, "plain56"), (18, 224, "plain18")])
def test_a_chain_with_batch_norm_is_the_plain_network(depth, size, same):
    ours, theirs = models.build("chain", 10, 3, size, depth=depth), models.build(same, 10, 3, size)
    assert sum(p.size for p in ours.parameters()) == sum(p.size for p in theirs.parameters())


@pytest.mark.parametrize("norm", networks.NORMS)
@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
@pytest.mark.parametrize("shortcut", [False, True])
def test_a_chain_learns_with_whatever_it_is_made_of(chain, norm, activation, shortcut):
    model = chain(norm=norm, activation=activation, shortcut=shortcut, dropout=0.1)
    x = minicnn.Tensor(np.random.default_rng(0).standard_normal((2, 28, 28, 1)).astype(np.float32))
    models.loss(model(x), np.array([0, 1])).backward()
    assert all(p.grad is not None and np.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("variant", "says"),
    [({"depth": 9}, "multiple of 6"), ({"activation": "elu"}, "relu"), ({"norm": "gn"}, "lrn-2012")],
)
def test_a_chain_that_does_not_exist(variant, says):
    with pytest.raises(ValueError, match=says):
        models.build("chain", **variant)


def test_responses_are_as_wide_as_gamma(chain, shown):
    """BatchNorm gives a channel the deviation γ, on images with the statistics that it has averaged."""
    model = chain(norm="bn")
    for module in model.modules():
        if isinstance(module, layers.BatchNorm):
            module.momentum = 1.0
    batch = next(iter(minicnn.evaluate.batches(shown, 28)))[0]
    for _ in range(9):  # a layer's statistics settle once those before it have
        model.train()(minicnn.Tensor(batch))
    found = responses(model, shown)
    assert len(found[SERIES]["response std by layer"]) == 7
    assert found["response_std"] == pytest.approx(1.0, abs=0.02)


def test_what_activations_are_given(chain, shown):
    model = chain(norm="none")
    first = model.stem[0]
    first.weight.data[...] *= 1000
    first.bias.data[:4] = -1e6  # four of sixteen channels never pass anything
    found = pre_activations(model, shown)
    stds = found[SERIES]["pre-activation std by layer"]
    assert len(stds) == 7
    assert found["spread_decades"] == pytest.approx(np.log10(max(stds) / min(stds)))
    low, high = (found[SERIES][f"pre-activation {q} % quantile by layer"] for q in (5, 95))
    assert all(a < b for a, b in zip(low, high, strict=True))
    assert found["dead_share"] >= 100 * 4 / 16 / 7


def test_the_gradient_at_the_start(tmp_path):
    bench = Bench(Scale(claims.find("18")[0].scales["tiny"].data, 0), "cpu", tmp_path, {})
    decades = {
        activation: start_gradients(
            bench, 0, model="chain", variant={"depth": 14, "norm": "none", "activation": activation}, images=8, draws=1
        )["decades"]
        for activation in ("sigmoid", "relu")
    }
    assert decades["sigmoid"] > 3 > 1 > abs(decades["relu"])


def test_a_branch_that_says_nothing_is_not_useful(shown):
    minicnn.seed(0)
    model = models.build("googlenet", 10, 1, 28, init="he")
    silent = model.inception3a.branch2
    for parameter in silent.parameters():
        parameter.data[...] = 0
    found = branch_usefulness(model, shown.subset(np.arange(6)))
    rows = {row[0]: row for row in found[TABLES][0]["rows"]}
    assert len(rows) == 36
    assert float(rows["inception3a branch2"][-1]) == 0 and float(rows["inception3a branch2"][4]) == 0
    assert any(float(row[-1]) != 0 for row in rows.values())
    for column in range(1, 6):
        assert sum(float(row[column]) for name, row in rows.items() if "4c" in name) == pytest.approx(1, abs=3e-3)


def test_filters_are_flat_or_of_middle_frequencies():
    w = np.zeros((7, 7, 1, 3))
    w[..., 0, 0] = np.cos(2 * np.pi * np.arange(7) / 7)[:, None]  # a period of seven pixels
    w[..., 0, 1] = (-1.0) ** np.arange(7)[:, None]  # of two
    assert _flat(w) == pytest.approx(1 / 3)
    assert _middle(w[..., :1]) > 0.6 > 0.3 > _middle(w[..., 1:2])


def test_costs_are_those_of_the_papers(tmp_path):
    bench = Bench(Scale(None, 0), "cpu", tmp_path, {})
    stacks = stacked_costs(bench, 0)
    assert stacks["weights, 5×5, 256 channels"] == 18 / 25 and stacks["weights, 7×7, 256 channels"] == 27 / 49
    assert stacks["multiply_adds, 5×5, 128 to 256"] == 27 / 25
    assert stacks["multiply_adds, stem 7×7/2, 3 to 64"] == pytest.approx(946.5 / 118.0, rel=1e-3)
    table = reductions(bench, 0)[TABLES][0]["rows"]
    assert [row[1] for row in table[:2]] == ["163,328 / 128.0", "388,096 / 304.3"]
