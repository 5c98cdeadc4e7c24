"""The summary says what each layer makes and costs, of our models, of anybody's, and of layers that are written."""

from __future__ import annotations

import numpy as np
import pytest

import kernels
from minicnn import Tensor, init, layers, models, ops, summary
from minicnn.summary import Cost, Row, profile, stages, total
from minicnn.summary.__main__ import main


class Mine(layers.Module):
    """Layers, methods of layers, bare ops, a layer used twice, groups, strides, one layer that is never run."""

    def __init__(self):
        self.stem = layers.Sequential(layers.Conv2d(3, 8, 3, stride=2, pad=1), layers.ReLU(), layers.MaxPool(2))
        self.twice = layers.Conv2d(8, 8, 3, pad=1, groups=4, bias=False)
        self.bn = layers.BatchNorm(8)
        self.fc = layers.Linear(8, 5)
        self.unused = layers.Linear(2, 2)

    def forward(self, x):
        x = self.stem(x)
        x = self.bn.relu(self.twice(self.twice(x)), residual=x)
        return self.fc(ops.relu(x).mean(axis=(1, 2))) @ self.fc.weight.transpose(1, 0)


def test_rows_of_a_network_of_ones_own():
    # What is seen: 3 pixels by the stem, a step of 2 more by its pool, then a step of 4 more on either side.
    assert profile(Mine(), image_size=16, in_channels=3) == [
        Row("stem.0", "conv_relu", (8, 8, 8), 27 * 8 + 8, 8 * 8 * 8 * 27, 8 * 8 * 8, 3, 8 * 8 * 27),
        Row("stem.2", "max_pool", (4, 4, 8), 0, 0, 0, 5),
        Row("twice", "conv2d", (4, 4, 8), 9 * 2 * 8, 4 * 4 * 8 * 9 * 2, 4 * 4 * 8, 13, 4 * 4 * 72),
        Row("twice", "conv2d", (4, 4, 8), 0, 4 * 4 * 8 * 9 * 2, 4 * 4 * 8, 21, 4 * 4 * 72),
        Row("bn", "bn_relu", (4, 4, 8), 16, 0, 0, 21),
        Row("", "relu", (4, 4, 8), 0, 0, 0, 21),
        Row("", "mean", (8,), 0, 0),
        Row("fc", "linear", (5,), 45, 40),
        Row("fc", "transpose", (8,), 0, 0),
        Row("", "matmul", (8,), 0, 40),
        Row("unused", "training only", (), 6, 0),
    ]


class Windows(layers.Module):
    """Everything that widens what is seen, and two paths that meet."""

    def __init__(self):
        self.dilated = layers.Conv2d(1, 2, (1, 3), pad=(0, 2), dilation=2)
        self.pool = layers.AvgPool(3, stride=2, pad=1)
        self.after = layers.Conv2d(2, 2, (1, 3), pad=(0, 1))
        self.lcn = layers.LCN(5)

    def forward(self, x):
        x = self.dilated(x)  # sees 5 in a row
        sparse = self.after(ops.subsample(x, 2))  # 5, then 2·2 more
        x = ops.concat(self.pool(x), sparse)  # 5 + 2; the other path sees 9
        return self.lcn(x).mean(axis=(1, 2))  # 9 + 2·8


def test_receptive_fields():
    fields = [(row.op, row.receptive_field) for row in profile(Windows(), image_size=12, in_channels=1)]
    assert fields == [
        ("conv2d", 5), ("subsample", 5), ("conv2d", 9), ("avg_pool", 7), ("concat", 9), ("lcn", 25), ("mean", 0),
    ]  # fmt: skip


def seen(model, side):
    """The side in pixels of what the middle of the last map depends on, by its gradient."""
    image = np.random.default_rng(0).normal(size=(1, side, side, 3)).astype(np.float32)
    x = Tensor(image, requires_grad=True)
    with kernels.use("reference"):  # Winograd leaves rounding errors beside the window
        maps = model.features(x)
        middle = np.zeros(maps.shape, np.float32)
        middle[0, maps.shape[1] // 2, maps.shape[2] // 2] = 1
        maps.backward(middle)
    rows = np.flatnonzero(x.grad.any(axis=(0, 2, 3)))
    return int(rows.max() - rows.min() + 1)


def test_the_receptive_field_is_what_a_gradient_reaches():
    model = models.build("vgg-a", num_classes=3, image_size=64)
    rows = profile(model)
    before_the_last_pool = [row.receptive_field for row in rows if row.op == "conv_relu"][-1]
    assert before_the_last_pool == total(rows).receptive_field == 134
    assert [row.receptive_field for row in rows if row.op == "max_pool"][-1] == 150
    model.features = layers.Sequential(*list(model.features)[:8])  # to the second convolution of the third stage
    reached = [row.receptive_field for row in rows if row.op == "conv_relu"][2]
    assert seen(model, 64) == reached == 18


def test_profiling_leaves_the_model_as_it_was():
    model = models.build("resnet-mini", in_channels=1)
    model.layer2.eval()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    profile(model)
    assert [module.training for module in model.modules()] == modes
    assert not any("forward" in vars(module) for module in model.modules())
    assert all(np.array_equal(array, before[name]) for name, array in model.state_dict().items())
    assert all(tensor.grad is None for tensor in model.parameters())


@pytest.mark.parametrize("name", ["vgg-a-lrn", "googlenet", "resnet20"])
def test_parameters_add_up(name):
    with init.skipped():
        model = models.build(name, image_size=32)
    rows = profile(model)
    assert sum(row.parameters for row in rows) == sum(tensor.size for tensor in model.parameters())
    by_size = list(stages(rows).values())
    for figure in ("weights", "multiply_adds", "activations"):
        assert sum(getattr(cost, figure) for cost in by_size) == getattr(total(rows), figure)


def test_inception_modules_and_auxiliary_heads_have_rows():
    with init.skipped():
        rows = profile(models.build("googlenet"))
    assert [row[:5] for row in rows if row.layer == "inception3a"] == [("inception3a", "concat", (28, 28, 256), 0, 0)]
    assert ("maxpool3", "max_pool", (14, 14, 480), 0, 0) in [row[:5] for row in rows]
    assert Row("aux2.fc1", "training only", (), 2048 * 1024 + 1024, 0) in rows


@pytest.mark.parametrize(
    ("name", "activations"), [("vgg-a", 7.43), ("vgg-b", 12.24), ("vgg-c", 13.55), ("vgg-d", 13.55), ("vgg-e", 14.85)]
)
def test_activations_of_vgg(name, activations):
    with init.skipped():
        cost = total(profile(models.build(name)))
    assert round(cost.activations / 1e6, 2) == activations


# Weights, million multiply-adds, million activations, receptive field, million numbers in the largest im2col buffer.
# Three 3x3 see what one 7x7 sees, two what one 5x5 sees; at the stem, where channels grow, they are dearer.
CASES = {
    ("conv 7x7 256->256", 56): (3_211_264, 10_070, 0.80, 7, 39.3),
    ("conv 3x3 256->256 x3", 56): (1_769_472, 5_549, 2.41, 7, 7.2),
    ("conv 5x5 256->256", 56): (1_638_400, 5_138, 0.80, 5, 20.1),
    ("conv 3x3 256->256 x2", 56): (1_179_648, 3_699, 1.61, 5, 7.2),
    ("conv 7x7/2 3->64", 224): (9_408, 118.0, 0.80, 7, 1.8),
    ("conv 3x3/2 3->64, conv 3x3 64->64 x2", 224): (75_456, 946.5, 2.41, 11, 7.2),
    ("conv 5x5/2 3->64", 224): (4_800, 60.2, 0.80, 5, 0.9),
    ("conv 3x3/2 3->64 x2", 224): (38_592, 484.1, 1.61, 7, 7.2),
    ("conv 3x3/2 3->32, conv 3x3 32->32, conv 3x3 32->64", 224): (28_512, 357.7, 1.61, 11, 3.6),
}


@pytest.mark.parametrize(("layers_", "size"), CASES)
def test_large_windows_against_stacks_of_3x3(layers_, size):
    weights, million_multiply_adds, activations, field, columns = CASES[layers_, size]
    cost = summary.cost(layers_, size)
    digits = 0 if million_multiply_adds > 1000 else 1
    assert cost.weights == weights and cost.receptive_field == field
    assert abs(cost.multiply_adds / 1e6 - million_multiply_adds) < 10**-digits
    assert (round(cost.activations / 1e6, 2), round(cost.columns / 1e6, 1)) == (activations, columns)


def test_cost_of_an_inception_module():
    """3a of GoogLeNet, whose weights without biases and multiply-adds its table has, and which the network runs."""
    module = (
        "conv 1x1 192->64 | conv 1x1 192->96, conv 3x3 96->128 | conv 1x1 192->16, conv 5x5 16->32 "
        "| pool 3x3, conv 1x1 192->32"
    )
    cost = summary.cost(module, 28)
    assert cost == Cost(163_328, 128_049_152, 28**2 * (256 + 96 + 16), 5, 28**2 * 9 * 96)
    with init.skipped():
        rows = [row for row in profile(models.build("googlenet")) if row.layer.startswith("inception3a")]
    assert total(rows)[1:3] == cost[1:3] and total(rows).columns == cost.columns


def test_strides_pools_and_windows_that_are_not_square():
    cost = summary.cost("conv 1x7 8->4, pool 3x3/2, conv 3x1 4->6", 9)
    assert cost == Cost(224 + 72, 81 * 224 + 25 * 72, 81 * 4 + 25 * 6, 9, 81 * 7 * 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conv 3x3 64", "cost: 'conv 3x3 64' is not a layer; write layers as 'conv KxK C->O'"),
        ("conv 3x3 64->64,", "cost: '' is not a layer"),
        ("conv 3x3/0 64->64", "cost: 'conv 3x3/0 64->64' is not a layer"),
        ("conv 3x3 64->32, conv 3x3 64->64", "cost: 'conv 3x3 64->64' takes 64 channels, but the layer before it"),
    ],
)
def test_layers_that_cannot_be_read(capsys, text, message):
    assert main(["--cost", text]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(message) and captured.err.count("\n") == 1 and captured.out == ""


def test_command(capsys):
    assert main(["resnet50"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("kernels on this machine: ") and captured.err.count("\n") == 1
    lines = captured.out.splitlines()
    assert lines[0].split() == ["layer", "op", "output", "parameters", "multiply-adds"]
    assert lines[2].split() == ["conv1", "conv2d", "112x112x64", "9,408", "118,013,952"]
    assert lines[-1].split() == ["total", "25,557,032", "4,089,184,256"]
    assert len({len(line) for line in lines}) == 1


def test_command_takes_sizes_and_variants(capsys):
    arguments = [
        "resnet18",
        "--image-size",
        "32",
        "--classes",
        "10",
        "--channels",
        "1",
        "--variant",
        '{"shortcut": "A"}',
    ]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "32x32x64" in output and "pad_channels" in output
    assert output.splitlines()[-3].split() == ["fc", "linear", "10", "5,130", "5,120"]


def test_command_compares_networks(capsys):
    assert main(["resnet34", "plain34", 'resnet34{"shortcut": "C"}', "--classes", "10"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["resnet34", "plain34", 'resnet34{"shortcut":', '"C"}']
    assert lines[1] == ["parameters", "21,289,802", "21,115,978", "22,208,970"]
    assert ["receptive", "field", "899", "899", "899"] in lines
    multiply_adds = lines.index(["multiply-adds", "by", "map"])
    assert [line[0] for line in lines[multiply_adds + 1 :][:6]] == ["112x112", "56x56", "28x28", "14x14", "7x7", "no"]
    assert lines[multiply_adds + 6] == ["no", "map", "5,120", "5,120", "5,120"]


def test_command_compares_layers(capsys):
    assert main(["--cost", "conv 7x7 64->64", "conv 3x3 64->64 x3", "--size", "14"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "on a map of 14x14",
        "",
        "conv 7x7 64->64 conv 3x3 64->64 x3",
        "weights 200,704 110,592 (0.55×)",
        "multiply-adds 39,337,984 21,676,032 (0.55×)",
        "activations 12,544 37,632 (3.00×)",
        "receptive field 7 7",
        "largest im2col 614,656 112,896 (0.18×)",
    ]


def test_command_lists_names(capsys):
    assert main([]) == 0
    assert capsys.readouterr().out.split() == models.names()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet-20"], "unknown model 'resnet-20': did you mean resnet20"),
        (["resnet20", "resnet-20"], "unknown model 'resnet-20': did you mean resnet20"),
        (["vgg-a", "--image-size", "8"], "vgg-a: image_size 8 is too small"),
        (["vgg-a", "--variant", '{"depth": 3}'], "vgg-a: unknown keyword depth; it takes bn=False"),
    ],
)
def test_errors_are_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(message) and captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (['vgg-a{"bn": true'], "must be a JSON object such as"),
        (["vgg-a", "--cost", "pool 2x2/2"], "leave the networks'"),
    ],
)
def test_arguments_that_do_not_go_together(capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and message in error
