"""What is exported to ONNX computes in onnxruntime what it computes here: every op, every network, any batch."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest

from minicnn import Generator, Tensor, checkpoint, data, export, folding, init, layers, models, no_grad, ops
from minicnn.export import __main__ as command
from minicnn.export.table import TABLE
from minicnn.models import googlenet, residual

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

pytestmark = pytest.mark.cpu_only("compares with onnxruntime, which computes on the CPU")


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def as_trained(model: layers.Module) -> layers.Module:
    """With biases, gammas, betas and statistics of its own."""
    rng = np.random.default_rng(5)
    for name, array in model.state_dict().items():
        low, high = (0.5, 2) if name.endswith("running_var") else (-0.3, 0.3)
        array[...] += rng.uniform(low, high, array.shape) if array.ndim == 1 else 0
    return model


def drawn(name: str, classes: int, side: int, **variant) -> models.Model:
    """A network as if it had been trained, with weights that keep the signal's size; drawn a million for all of it."""
    with init.skipped():
        model = models.build(name, classes, image_size=side, **variant)
    numbers = random(2**20 - 3)
    for i, array in enumerate(model.state_dict().values()):
        if array.ndim > 1:
            array[...] = np.resize(np.roll(numbers, 9973 * i), array.shape) * np.float32(
                (2 / array[..., 0].size) ** 0.5
            )
    return as_trained(model)


def session(exported) -> onnxruntime.InferenceSession:
    """onnxruntime with a graph that passes ONNX's own checks."""
    onnx.checker.check_model(exported, full_check=True)
    return onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])


def run(exported: onnxruntime.InferenceSession, x: np.ndarray) -> np.ndarray:
    """What it makes of images (N, H, W, C)."""
    (y,) = exported.run(["logits"], {"images": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
    return y


def check(model: layers.Module, side: int, channels: int) -> None:
    """The logits of one image and of three are those of the model."""
    exported = session(export.model(model, side, channels))
    for n in (1, 3):
        x = random(n, side, side, channels, seed=n)
        with no_grad():
            expected = model.eval()(Tensor(x)).data
        assert np.isfinite(expected).all()
        y = run(exported, x)
        y = y.transpose(0, 2, 3, 1) if y.ndim == 4 else y
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def kinds(model: layers.Module, *sizes: int) -> set[str]:
    return {node.op_type for node in export.model(model, *sizes).graph.node}


# ---- Every op ------------------------------------------------------------------------------------------------------


class Net(layers.Module):
    """A function of the images (N, 7, 7, 6)."""

    def __init__(self, forward):
        self.forward = forward


C = 6
POOLS = [
    {"size": 2},
    {"size": 3, "stride": 2},
    {"size": 3, "stride": 2, "ceil": True},
    {"size": 2, "stride": 2, "ceil": True},
    {"size": 3, "stride": 2, "pad": 1, "ceil": True},
    {"size": 2, "stride": 3, "pad": 1, "ceil": True},  # a last window that starts in the padding is dropped
    {"size": (3, 2), "stride": (3, 1), "pad": ((2, 0), (0, 1)), "ceil": True},
    {"size": (2, 3), "stride": 4},  # rows and columns that no window sees
]
UNARY = ("neg", "exp", "relu", "sigmoid", "tanh", "softmax")
BINARY = ("add", "sub", "mul", "maximum")
REDUCTIONS = ("sum", "mean", "max")

CASES = {
    "conv2d": lambda x: ops.conv2d(x, random(3, 2, C, 4), random(4), stride=(2, 1), pad=((1, 0), (2, 3))),
    "conv2d, dilated": lambda x: ops.conv2d(x, random(3, 2, C, 4), dilation=(2, 3)),
    "conv2d, groups": lambda x: ops.conv2d(x, random(3, 3, 2, 9), pad=1, groups=3),
    "conv_relu": lambda x: ops.conv_relu(x, random(1, 1, C, C), random(C), x),
    "linear": lambda x: ops.linear(ops.global_avg_pool(x), random(C, 5), random(5)),
    "linear, of a map": lambda x: ops.linear(ops.flatten(ops.relu(x)), random(49 * C, 5)),
    "linear, of a map through relu": lambda x: ops.linear(ops.relu(ops.flatten(x)), random(49 * C, 5)),
    "batch_norm": lambda x: ops.batch_norm(
        x, random(C), random(C), running=(random(C), random(C) ** 2), training=False, eps=1e-2
    ),
    "batch_norm of rows": lambda x: ops.batch_norm(
        x.mean(axis=(1, 2)), random(C), random(C), running=(random(C), random(C) ** 2), training=False
    ),
    "bn_relu": lambda x: ops.bn_relu(x, random(C), random(C), x, running=(random(C), random(C) ** 2), training=False),
    "lrn": lambda x: ops.lrn(x, size=3, alpha=0.7, beta=0.6, k=1.5),
    "lcn": lambda x: ops.lcn(x, size=5),
    "lcn, with a floor": lambda x: ops.lcn(x, size=3, eps=2.0),
    "dropout": lambda x: ops.dropout(x, 0.5, rng=Generator(0), training=False) + 1.0,
    "cast": lambda x: ops.cast(x * 2.0, dtype=np.float64),
    "concat": lambda x: ops.concat(x, x * 2.0, ops.relu(x)),
    "concat of rows of the map": lambda x: ops.concat(x, x * 2.0, axis=1),
    "pad_channels": lambda x: ops.pad_channels(x, 2, 1),
    "subsample": lambda x: ops.subsample(x, (2, 3)),
    "pad": lambda x: ops.pad(x, widths=((0, 0), (1, 2), (0, 3), (4, 0))),
    "log and sqrt": lambda x: ops.log(ops.sqrt(x * x + 0.5)),
    "pow": lambda x: (x * x + 0.1).pow(-0.75),
    "div": lambda x: x / (x * x + 1.0),
    "number minus map": lambda x: 1 - ops.sigmoid(x),
    "channels alone": lambda x: x * random(C) + random(7, 1),
    "a row for each image": lambda x: x.mean(axis=(1, 2)) * random(C),
    "images beside maps": lambda x: x * x.mean(axis=(1, 2)).reshape(x.shape[0], 1, 1, C),
    "columns alone": lambda x: x - x.max(axis=(0, 1)),
    "matmul": lambda x: x.reshape(x.shape[0], 49, C).transpose(0, 2, 1) @ x.reshape(x.shape[0], 49, C),
    "matmul of maps": lambda x: x @ random(C, 5),
    "transpose": lambda x: x.transpose(0, 2, 1, 3),
    "transpose of a row": lambda x: x.mean(axis=1).transpose(0, 2, 1),
    "flatten": lambda x: ops.softmax(ops.flatten(x)),
    "reshape to a map": lambda x: x.reshape(x.shape[0], 7, 14, 3),
    "slices": lambda x: x[:, 1:6:2, ..., ::-1],
    "slices backwards": lambda x: x[:, ::-2, 5:1:-1],
    "numbers and new axes": lambda x: x[:, None, -1, ..., 2:],
    "a number": lambda x: x[..., 3],
    "everything": lambda x: x[...],
    "a constant of ops": lambda x: x * (Tensor(random(C)) * 2.0).exp(),
    **{op: lambda x, op=op: getattr(ops, op)(x) for op in UNARY},
    **{op: lambda x, op=op: getattr(ops, op)(x, ops.tanh(x)) for op in BINARY},
    **{f"max_pool {options}": lambda x, o=options: ops.max_pool(x - 5.0, **o) for options in POOLS},
    **{f"avg_pool {options}": lambda x, o=options: ops.avg_pool(x, **o) for options in POOLS},
    **{
        f"avg_pool, {options}, counting": lambda x, o=options: ops.avg_pool(x, **o, count_pad=True) for options in POOLS
    },
    **{
        f"{op}, {axis}, {keepdims}": lambda x, op=op, a=axis, k=keepdims: getattr(ops, op)(x, axis=a, keepdims=k)
        for op in REDUCTIONS
        for axis in (1, (1, 2), -1, (3, 1))
        for keepdims in (False, True)
    },
}


@pytest.mark.parametrize("name", CASES)
def test_ops(name):
    check(Net(CASES[name]), 7, C)


def test_every_op_is_exported_or_of_training():
    watched_in_parts = {"fused", "conv_relu", "bn_relu", "flatten"}
    assert set(ops.__all__) - set(TABLE) == watched_in_parts | {"cross_entropy"}
    assert set(TABLE) <= set(ops.__all__)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: ops.dropout(x, 0.5, rng=Generator(0)), "dropout: training=True"),
        (lambda x: ops.batch_norm(x, random(C), random(C)), "batch_norm: training=True"),
        (lambda x: ops.lrn(x[:, 0]), "lrn: x of 3 axes"),
        (lambda x: ops.cast(x, dtype=np.float16), "cast: dtype=float16"),
        (lambda x: ops.conv2d(x, x[0].reshape(7, 7, C, 1)), "getitem: an index into the batch"),
        (
            lambda x: ops.matmul(x, ops.linear(x.flatten(), x.flatten().transpose())),
            "linear: a weight that is computed",
        ),
        (lambda x: x[:, np.array([2, 1])], "getitem: an index that is an array"),
        (
            lambda x: x.reshape(7, -1),
            r"reshape: a change of shape from \(2, 7, 7, 6\) to \(7, 84\), which moves the batch",
        ),
        (lambda x: ops.cross_entropy(x.flatten(), np.zeros(len(x), int)), "cross_entropy: this op"),
        (lambda x: (x, x), "Net returns 2 results"),
        (lambda x: Tensor(x.data * 2), "Net: what it returns is computed from the images by other means than ops"),
    ],
)
def test_what_cannot_be_exported(forward, message):
    with pytest.raises(ValueError, match=message) as error:
        export.model(Net(forward), 7, C)
    assert "\n" not in str(error.value)


# ---- Every network -------------------------------------------------------------------------------------------------


# Sides at which pools do not come out even, small enough to be quick; 32 and 8 for the networks of small images.
SIDES = {
    r"vgg-.*": 32,
    r"(resnet|plain)(18|34|50|101|152|200)": 75,
    r"(resnet|plain)(20|32|44|56|110|164|1001|1202|-mini)": 8,
    r"alexnet|zfnet|nin|googlenet|bn-inception": 99,
    r"inception-v3": 107,
}
VARIANTS = [
    ("vgg-a", 32, {"bn": True}),
    ("googlenet", 99, {"variant": "torchvision"}),
    *[("googlenet", 32, {key: value}) for key in ("norm", "join", "factorised") for value in googlenet.CHOICES[key]],
    ("googlenet", 32, {"reduce": False, "pool_order": "1x1-first"}),
    ("alexnet", 99, {"variant": "torchvision"}),
    ("alexnet", 32, {"groups": 1}),
    ("zfnet", 99, {"norm": "lcn"}),
    ("nin", 32, {}),
    ("resnet20", 8, {"shortcut": "B"}),
    ("resnet50", 32, {"stride_in": "1x1", "shortcut": "C"}),
    *[("resnet20", 8, {"unit": unit}) for unit in residual.UNITS],
    *[("resnet20", 8, {"skip": skip}) for skip in residual.SKIPS],
]


def side_of(name: str) -> int:
    (side,) = [side for pattern, side in SIDES.items() if re.fullmatch(pattern, name)]
    return side


@pytest.mark.parametrize(
    ("name", "side", "variant"),
    [(name, None, {}) for name in models.names() if name not in models._ALIASES] + VARIANTS,
)
def test_networks(name, side, variant):
    side = side or side_of(name)
    check(drawn(name, 10, side, **variant), side, 3)


def test_folded_networks_have_no_batch_norm():
    model = as_trained(models.build("resnet20", image_size=8))
    assert "BatchNormalization" in kinds(model)
    folded = folding.fold(model)
    assert kinds(folded) == {"Conv", "Relu", "Add", "Slice", "Pad", "GlobalAveragePool", "Flatten", "Gemm"}
    check(folded, 8, 3)


def test_maps_are_never_transposed():
    assert kinds(models.build("vgg-a-lrn", 10, image_size=32)) == {
        "Conv", "Relu", "LRN", "MaxPool", "Flatten", "Gemm",
    }  # fmt: skip


def test_a_dense_vgg_of_larger_images():
    check(as_trained(models.build("vgg-a", 10, image_size=32)).dense(), 64, 3)


def test_weights_keep_names_and_have_the_usual_layout():
    model = as_trained(models.build("resnet-mini", 10, 1))
    exported = export.model(model)
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in exported.graph.initializer}
    state = model.state_dict()
    assert state.keys() == {name for name in arrays if "constant" not in name}
    assert np.array_equal(arrays["layer2.0.conv1.weight"], state["layer2.0.conv1.weight"].transpose(3, 2, 0, 1))
    assert np.array_equal(arrays["fc.weight"], state["fc.weight"].T)
    assert np.array_equal(arrays["bn1.running_var"], state["bn1.running_var"])
    assert [node.name for node in exported.graph.node][:4] == ["conv1", "bn1", "relu", "max_pool"]


def test_names_in_the_graph_are_not_used_twice():
    shared = layers.Conv2d(3, 3, 1)
    model = layers.Sequential(shared, logits=shared, images=layers.Sequential(shared, layers.ReLU(), layers.ReLU()))
    exported = export.model(model, 4, 3)
    names = [output for node in exported.graph.node for output in node.output]
    names += [tensor.name for tensor in exported.graph.initializer] + ["images"]
    assert len(set(names)) == len(names)
    check(model, 4, 3)


def test_input_and_output_are_described():
    exported = export.model(models.build("resnet20", 7, image_size=24))
    (images,), (logits,) = exported.graph.input, exported.graph.output
    sizes = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in (images, logits)]
    assert [images.name, logits.name] == ["images", "logits"]
    assert sizes == [["batch", 3, 24, 24], ["batch", 7]]
    assert images.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_exporting_leaves_the_model_as_it_was():
    model = models.build("vgg-a", 10, image_size=32, bn=True)
    model.classifier.eval()
    modes = [module.training for module in model.modules()]
    before = {name: array.copy() for name, array in model.state_dict().items()}
    export.model(model)
    assert [module.training for module in model.modules()] == modes
    assert all(np.array_equal(array, before[name]) for name, array in model.state_dict().items())


def test_a_model_in_float64_is_exported_in_float32():
    model = as_trained(models.build("resnet20", image_size=8)).to(dtype=np.float64)
    x = random(2, 8, 8, 3)
    y = run(session(export.model(model)), x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, model.eval()(Tensor(x.astype(np.float64))).data, rtol=0, atol=1e-4 * np.abs(y).max())


# ---- The command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path):
    """A file of weights in a folder as a run leaves it."""
    model = as_trained(models.build("resnet-mini", in_channels=1))
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "last.safetensors"
    checkpoint.write(path, model.state_dict(), {"model": json.dumps(model.config)})
    (folder / "config.json").write_text(json.dumps({"data": "bundled", "image_size": None}))
    return path


def metadata(path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


@pytest.mark.parametrize("fold", [False, True])
def test_command(weights, tmp_path, capsys, fold):
    path = tmp_path / "net.onnx"
    assert command.main([str(weights.parent), "--onnx", str(path), *(["--fold"] if fold else [])]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{path}: resnet-mini, ") and "onnxruntime's logits are within" in said
    known, dataset = metadata(path), data.load("bundled")
    assert json.loads(known["model"]) == models.build("resnet-mini", in_channels=1).config
    assert json.loads(known["classes"]) == list(dataset.classes)
    assert json.loads(known["mean"]) == pytest.approx(dataset.mean.tolist(), abs=1e-6)
    assert json.loads(known["std"]) == pytest.approx(dataset.std.tolist(), abs=1e-6)
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(path).graph.node} or not fold
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.onnx", "run"]


def test_command_without_the_data_set(weights, tmp_path, capsys):
    (weights.parent / "config.json").write_text(json.dumps({"data": str(tmp_path / "gone.npz")}))
    assert command.main([str(weights), "--onnx", str(tmp_path / "net.onnx")]) == 0
    assert capsys.readouterr().err.startswith("no classes, mean and deviation in the file: ")
    assert list(metadata(tmp_path / "net.onnx")) == ["model"]


def test_a_file_of_weights_that_says_what_it_is_for(weights, tmp_path):
    arrays, known = checkpoint.read(weights)
    said = {"classes": json.dumps(list("abcdefghij")), "mean": "[0.5]", "std": "[0.25]", "source": "a friend"}
    checkpoint.write(weights, arrays, {"model": known["model"], **said})
    assert command.main([str(weights), "--onnx", str(tmp_path / "net.onnx")]) == 0
    noted = metadata(tmp_path / "net.onnx")
    assert said.items() <= noted.items() and "minus mean" in noted["preprocessing"]


def test_a_file_that_computes_something_else_is_not_written(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(TABLE, "relu", lambda graph, y, x: graph.node("Identity", graph.name(x)))
    assert command.main([str(weights), "--onnx", str(tmp_path / "net.onnx")]) == 2
    assert "nothing written: onnxruntime's logits differ by " in capsys.readouterr().err
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize(
    ("package", "code", "message"),
    [
        ("onnx", 2, "exporting needs the package onnx: pip install 'minicnn[onnx]'"),
        ("onnxruntime", 0, "not checked, for onnxruntime is missing: pip install 'minicnn[onnx]'"),
    ],
)
def test_missing_packages(weights, tmp_path, capsys, monkeypatch, package, code, message):
    monkeypatch.setitem(sys.modules, package, None)
    assert command.main([str(weights), "--onnx", str(tmp_path / "net.onnx")]) == code
    captured = capsys.readouterr()
    assert message in (captured.out + captured.err) and (captured.out + captured.err).count("\n") == 1
    assert (tmp_path / "net.onnx").exists() == (code == 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--onnx", "{}/net.onnx"], "nowhere: no such run folder or file"),
        (["{}/run", "--onnx", "{}/no/net.onnx"], "no/net.onnx: there is no folder"),
        (["{}/run", "--onnx", "{}/net.onnx", "--data", "nothing"], "nothing"),
    ],
)
def test_bad_arguments(weights, tmp_path, capsys, arguments, message):
    assert command.main([argument.format(tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.glob("*.onnx"))
