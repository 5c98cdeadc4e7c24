"""BN-Inception, Inception-v3 and GoogLeNet's variants: their maps, names and costs, and that they learn."""

from __future__ import annotations

import itertools

import pytest

import kernels
import minicnn
from minicnn import Tensor, init, models, no_grad, ops
from minicnn.layers import Concat, Conv2d
from minicnn.models.googlenet import TABLE, Inception, added
from minicnn.summary import profile
from tests import by_heart, device
from tests.device import np

VARIANTS = [  # of GoogLeNet
    {"norm": "none"},
    {"norm": "lcn"},
    {"norm": "bn"},
    {"reduce": False},
    {"pool_order": "1x1-first"},
    {"join": "add"},
    {"factorised": "3x3"},
    {"factorised": "nx1"},
    {"norm": "bn", "join": "add", "factorised": "nx1", "pool_order": "1x1-first"},
]


def build(name: str, num_classes: int | None = None, channels: int = 3, side: int | None = None, **variant):
    minicnn.seed(0)
    return models.build(name, num_classes, channels, side, **variant).to(device.name)


def blank(name: str, **variant):
    with init.skipped():
        return models.build(name, **variant)


def parameters(module) -> int:
    return sum(tensor.size for tensor in module.parameters())


def images(n: int, side: int, channels: int = 3):
    return np.random.default_rng(0).normal(size=(n, side, side, channels)).astype(np.float32)


# ---- What the papers print -----------------------------------------------------------------------------------------


@pytest.mark.cpu_only("looks at sizes alone")
def test_maps_of_bn_inception():
    rows = [row for row in profile(blank("bn-inception")) if len(row.shape) == 3]
    stem = [row.shape for row in rows if not row.layer.startswith("inception") and row.op != "bn_relu"]
    assert stem == [(112, 112, 64), (56, 56, 64), (56, 56, 64), (56, 56, 192), (28, 28, 192)]
    modules = [(row.shape[0], row.shape[2]) for row in rows if row.op == "concat"]
    assert modules == [
        *((28, 256), (28, 320), (14, 576)),
        *((14, 576), (14, 576), (14, 608), (14, 608), (7, 1056)),
        *((7, 1024), (7, 1024)),
    ]
    pools = [row.op for row in rows if "branch4" in row.layer and "pool" in row.op]
    assert pools == ["avg_pool"] * 2 + ["max_pool"] + ["avg_pool"] * 4 + ["max_pool"] + ["avg_pool", "max_pool"]


@pytest.mark.cpu_only("looks at sizes alone")
def test_maps_of_inception_v3():
    rows = [row for row in profile(blank("inception-v3")) if len(row.shape) == 3]
    stem = [(row.shape[0], row.shape[2]) for row in rows if not row.layer.startswith("Mixed") and row.op != "bn_relu"]
    assert stem == [(149, 32), (147, 32), (147, 64), (73, 64), (73, 80), (71, 192), (35, 192)]
    modules = [(row.shape[0], row.shape[2]) for row in rows if row.op == "concat"]
    assert modules == [(35, 256), (35, 288), (35, 288), *[(17, 768)] * 5, (8, 1280), (8, 2048), (8, 2048)]


@pytest.mark.cpu_only("looks at sizes alone")
def test_inception_v3_has_one_5x5_and_no_7x7_where_it_is_factorised():
    windows = {}
    for name, layer in blank("inception-v3").named_modules():
        if name.startswith("Mixed") and isinstance(layer, Conv2d):
            windows.setdefault(name.split(".")[0], []).append(layer.weight.shape[:2])
    assert sorted(set(windows["Mixed_5b"])) == [(1, 1), (3, 3), (5, 5)]
    assert sorted(set(windows["Mixed_6e"])) == [(1, 1), (1, 7), (7, 1)]
    assert windows["Mixed_6e"].count((1, 7)) == windows["Mixed_6e"].count((7, 1)) == 3
    assert sorted(set(windows["Mixed_7c"])) == [(1, 1), (1, 3), (3, 1), (3, 3)]


BRANCHES = {
    "5b 5c 5d": "1x1 5x5_1 5x5_2 3x3dbl_1 3x3dbl_2 3x3dbl_3 _pool",
    "6a": "3x3 3x3dbl_1 3x3dbl_2 3x3dbl_3",
    "6b 6c 6d 6e": "1x1 7x7_1 7x7_2 7x7_3 7x7dbl_1 7x7dbl_2 7x7dbl_3 7x7dbl_4 7x7dbl_5 _pool",
    "7a": "3x3_1 3x3_2 7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4",
    "7b 7c": "1x1 3x3_1 3x3_2a 3x3_2b 3x3dbl_1 3x3dbl_2 3x3dbl_3a 3x3dbl_3b _pool",
}


@pytest.mark.cpu_only("looks at names alone")
def test_inception_v3_has_the_names_of_torchvision():
    units = [f"Conv2d_{layer}" for layer in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")]
    for modules, branches in BRANCHES.items():
        units += [f"Mixed_{m}.branch{b}" for m, b in itertools.product(modules.split(), branches.split())]
    units += ["AuxLogits.conv0", "AuxLogits.conv1"]
    parts = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    expected = [f"{unit}.{part}" for unit, part in itertools.product(units, parts)]
    expected += [f"{layer}.{part}" for layer in ("AuxLogits.fc", "fc") for part in ("weight", "bias")]
    assert sorted(blank("inception-v3").state_dict()) == sorted(expected)


def test_how_inception_v3_starts():
    model = build("inception-v3", 10, side=32)
    layers = dict(model.named_modules())
    width = {"Mixed_7b.branch3x3_1.conv": 0.1, "AuxLogits.conv1.conv": 0.01, "fc": 0.1, "AuxLogits.fc": 0.001}
    for name, std in width.items():
        weight = layers[name].weight.data
        assert 1.9 * std < float(abs(weight).max()) <= 2 * std, name
        assert float(weight.std()) == pytest.approx(0.88 * std, rel=0.02), name  # of the normal distribution cut at 2


# ---- Image sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *(("bn-inception", side) for side in (2, 28, 64, 65, 100, 240)),
        *(("inception-v3", side) for side in (15, 28, 74, 75, 139)),
    ],
)
def test_other_image_sizes_fit(name, side):
    model = blank(name, num_classes=4, image_size=side).to(device.name)
    with no_grad():
        outputs = model(Tensor(images(2, side)))
    for logits in outputs if isinstance(outputs, tuple) else (outputs,):
        assert logits.shape == (2, 4)


@pytest.mark.cpu_only("looks at sizes alone")
def test_small_images_keep_their_size_for_longer():
    for name, expected in (("bn-inception", [32, 16, 8]), ("inception-v3", [15, 7, 3])):
        rows = profile(blank(name, image_size=64 if name == "bn-inception" else 32))
        sides = dict.fromkeys(row.shape[0] for row in rows if row.op == "concat")
        assert list(sides) == expected, name


def test_inception_v3_returns_auxiliary_logits_in_training_only():
    model, x = build("inception-v3", 5, side=15), Tensor(images(2, 15))
    with no_grad():
        assert [logits.shape for logits in model(x)] == [(2, 5)] * 2
        assert model.eval()(x).shape == (2, 5)
        without = build("inception-v3", 5, side=15, aux_logits=False)
        assert without(x).shape == (2, 5)
    assert not any(name.startswith("Aux") for name in without.state_dict())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("inception-v3", {"image_size": 14}), "inception-v3: image_size 14 is too small: .* after Mixed_7a.pool"),
        (("bn-inception", {"image_size": 1}), "bn-inception: image_size 1 is too small: .* after maxpool2"),
        (("googlenet", {"norm": "batch"}), "googlenet: norm must be one of lrn, lcn, bn, none, got 'batch'"),
        (("googlenet", {"norm": "lrn", "bn": True}), "googlenet: bn=True means norm='bn', but norm is 'lrn'"),
        (("googlenet", {"join": "sum"}), "googlenet: join must be 'concat' or 'add', got 'sum'"),
        (
            ("googlenet", {"pool_order": "none"}),
            "googlenet: pool_order must be 'pool-first' or '1x1-first', got 'none'",
        ),
        (("googlenet", {"factorised": True}), "googlenet: factorised must be one of False, 3x3, nx1, got True"),
        (
            ("googlenet", {"factorised": "3x3", "variant": "torchvision"}),
            "googlenet: factorised='3x3' needs 5x5 filters, which variant='torchvision' does not have",
        ),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    name, variant = call
    with init.skipped(), pytest.raises(ValueError, match=message) as error:
        models.build(name, **variant)
    assert "\n" not in str(error.value)


# ---- GoogLeNet's variants ------------------------------------------------------------------------------------------


def windows(model, module: str = "inception4a") -> dict[str, list[tuple[int, ...]]]:
    """The weights' shapes of a module, by branch."""
    found: dict[str, list[tuple[int, ...]]] = {}
    for name, layer in getattr(model, module).named_modules():
        if isinstance(layer, Conv2d):
            found.setdefault(name.split(".")[0], []).append(layer.weight.shape)
    return found


@pytest.mark.cpu_only("looks at sizes alone")
def test_without_reductions_large_filters_see_all_channels():
    shapes = windows(blank("googlenet", reduce=False))
    assert shapes == {
        "branch1": [(1, 1, 480, 192)],
        "branch2": [(3, 3, 480, 208)],
        "branch3": [(5, 5, 480, 48)],
        "branch4": [(1, 1, 480, 64)],
    }


@pytest.mark.cpu_only("looks at sizes alone")
@pytest.mark.parametrize(
    ("factorised", "branch2", "branch3"),
    [
        ("3x3", [(3, 3, 96, 208)], [(3, 3, 16, 24), (3, 3, 24, 48)]),
        ("nx1", [(1, 3, 96, 144), (3, 1, 144, 208)], [(1, 5, 16, 24), (5, 1, 24, 48)]),
    ],
)
def test_factorised_filters(factorised, branch2, branch3):
    model, published = blank("googlenet", factorised=factorised), blank("googlenet")
    shapes = windows(model)
    assert shapes["branch2"] == [(1, 1, 480, 96), *branch2]
    assert shapes["branch3"] == [(1, 1, 480, 16), *branch3]
    for name in TABLE:
        assert parameters(getattr(model, f"inception{name}")) < parameters(getattr(published, f"inception{name}")), name


@pytest.mark.cpu_only("looks at sizes alone")
def test_the_order_of_pool_and_projection():
    model = blank("googlenet", pool_order="1x1-first")
    assert parameters(model) == parameters(blank("googlenet"))
    ops_of = [row.op for row in profile(model) if row.layer.startswith("inception4a.branch4")]
    assert ops_of == ["conv_relu", "max_pool"]


@pytest.mark.cpu_only("looks at names alone")
def test_normalisations():
    def norms(**variant) -> list[str]:
        return [row.op for row in profile(blank("googlenet", **variant)) if row.op in ("lrn", "lcn", "bn_relu")]

    assert norms() == ["lrn"] * 2
    assert norms(norm="lcn") == ["lcn"] * 2
    assert norms(norm="none") == []
    assert norms(norm="bn") == norms(bn=True) == norms(variant="torchvision") == ["bn_relu"] * (3 + 9 * 6)
    assert norms(variant="torchvision", norm="lrn") == ["lrn"] * 2


@pytest.mark.cpu_only("looks at sizes alone")
@pytest.mark.parametrize("variant", [{}, {"bn": True}, {"reduce": False}, {"factorised": "nx1"}])
def test_added_branches_have_as_many_parameters(variant):
    concatenated, added_up = blank("googlenet", **variant), blank("googlenet", join="add", **variant)
    for name in TABLE:
        module, twin = getattr(concatenated, f"inception{name}"), getattr(added_up, f"inception{name}")
        assert 0.98 * parameters(module) < parameters(twin) <= parameters(module), name


def test_added_branches_are_the_sum_of_their_projections():
    minicnn.seed(3)
    module = added(24, (16, 12, 24, 4, 8, 8)).to(device.name)
    x = Tensor(images(2, 7, 24))
    with no_grad():
        y, parts = module(x), [branch(x) for branch in module.branches.children()]
        w, first, total = module.projection.conv.weight, 0, module.projection.conv.bias
        for part in parts:
            total = total + ops.conv2d(part, w[:, :, first : first + part.shape[3]])
            first += part.shape[3]
    assert len(parts) == 4 and first == w.shape[2] and y.shape == (2, 7, 7, 56)
    np.testing.assert_allclose(y.data, ops.relu(total).data, rtol=1e-5, atol=1e-5)
    assert parameters(module) <= parameters(Inception(24, (16, 12, 24, 4, 8, 8)))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_config_rebuilds_a_variant(variant):
    model = blank("googlenet", image_size=32, **variant)
    again = models.build(**model.config)
    assert {name: array.shape for name, array in model.state_dict().items()} == {
        name: array.shape for name, array in again.state_dict().items()
    }


@pytest.mark.cpu_only("looks at names alone")
def test_branches_can_be_told_apart():
    for name in ("googlenet", "bn-inception"):
        modules = [module for module in blank(name).modules() if isinstance(module, Concat)]
        assert [len(list(module.children())) for module in modules] == [
            3 if name == "bn-inception" and i in (2, 7) else 4 for i in range(len(modules))
        ]


# ---- They learn ----------------------------------------------------------------------------------------------------


@pytest.mark.not_on_host("trains whole networks")
@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(
    ("name", "variant"),
    [("bn-inception", {}), ("inception-v3", {}), *(("googlenet", variant) for variant in VARIANTS)],
    ids=str,
)
def test_a_training_step_stays_finite_and_reaches_every_parameter(name, variant, backend):
    model = build(name, 10, 1, 28, **variant)
    with kernels.use(backend):
        loss = models.loss(model(Tensor(images(2, 28, 1))), np.array([1, 7]), label_smoothing=0.1)
        loss.backward()
    assert np.isfinite(loss.item())
    for key, tensor in model.named_parameters():
        assert tensor.grad is not None and np.isfinite(tensor.grad).all(), key


@pytest.mark.not_on_host("takes dozens of steps")
@pytest.mark.parametrize(
    ("name", "variant"),
    [("bn-inception", {}), ("inception-v3", {}), ("googlenet", {"norm": "bn", "join": "add"})],
    ids=str,
)
def test_learns_32_images_by_heart(name, variant):
    x, labels = by_heart.some_images(32)
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # (32, 16, 16, 1)
    by_heart.learn(build(name, 10, 1, 16, **variant), x, labels, lr=1e-3, steps=60)
