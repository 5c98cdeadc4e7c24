"""The summary says what each layer makes and costs, of our models and of anybody's."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn import init, layers, models, ops, summary
from minicnn.summary import Row, profile


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
    assert profile(Mine(), image_size=16, in_channels=3) == [
        Row("stem.0", "conv_relu", (8, 8, 8), 27 * 8 + 8, 8 * 8 * 8 * 27),
        Row("stem.2", "max_pool", (4, 4, 8), 0, 0),
        Row("twice", "conv2d", (4, 4, 8), 9 * 2 * 8, 4 * 4 * 8 * 9 * 2),
        Row("twice", "conv2d", (4, 4, 8), 0, 4 * 4 * 8 * 9 * 2),
        Row("bn", "bn_relu", (4, 4, 8), 16, 0),
        Row("", "relu", (4, 4, 8), 0, 0),
        Row("", "mean", (8,), 0, 0),
        Row("fc", "linear", (5,), 45, 40),
        Row("fc", "transpose", (8,), 0, 0),
        Row("", "matmul", (8,), 0, 40),
        Row("unused", "training only", (), 6, 0),
    ]


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
    assert sum(row.parameters for row in profile(model)) == sum(tensor.size for tensor in model.parameters())


def test_inception_modules_and_auxiliary_heads_have_rows():
    with init.skipped():
        rows = profile(models.build("googlenet"))
    assert Row("inception3a", "concat", (28, 28, 256), 0, 0) in rows
    assert Row("maxpool3", "max_pool", (14, 14, 480), 0, 0) in rows
    assert Row("aux2.fc1", "training only", (), 2048 * 1024 + 1024, 0) in rows


def test_command(capsys):
    assert summary.main(["resnet50"]) == 0
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
    assert summary.main(arguments) == 0
    output = capsys.readouterr().out
    assert "32x32x64" in output and "pad_channels" in output
    assert output.splitlines()[-3].split() == ["fc", "linear", "10", "5,130", "5,120"]


def test_command_lists_names(capsys):
    assert summary.main([]) == 0
    assert capsys.readouterr().out.split() == models.names()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet-20"], "unknown model 'resnet-20': did you mean resnet20"),
        (["vgg-a", "--image-size", "8"], "vgg-a: image_size 8 is too small"),
        (["vgg-a", "--variant", '{"depth": 3}'], "vgg-a: unknown keyword depth; it takes bn=False, init='he'"),
    ],
)
def test_errors_are_one_line(capsys, arguments, message):
    assert summary.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(message) and captured.err.count("\n") == 1
    assert captured.out == ""
