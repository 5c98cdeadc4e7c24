"""`--init-from` takes the layers that fit, `--freeze` keeps some as they are; both survive a resume."""

from __future__ import annotations

import json
import shutil

import pytest

from minicnn import Tensor, checkpoint, evaluate, init, interop, layers, models, observe
from minicnn.data import load_pair
from minicnn.models.vgg import VGG
from minicnn.train import Trainer, finetune
from minicnn.train.options import configuration, parser
from tests import device
from tests.device import np
from tests.training.folders import result, same_run


def trainer(data, *arguments) -> Trainer:
    options = ["tiny", "--data", data, "--batch-size", 12, "--augment", "none", "--epochs", 2, *arguments]
    return Trainer(configuration(parser().parse_args([str(a) for a in options])), load_pair(data)[0], on=device.name)


def refused(capsys, code: int) -> str:
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1
    return error[:-1]


def marked(model: models.Model) -> models.Model:
    """Every array of the model filled with a number of its own."""
    for i, array in enumerate(model.state_dict().values(), start=1):
        array[...] = i
    return model


def written(model: models.Model, folder, layout: str):
    """The model's weights in a file of ours or of PyTorch's."""
    path = folder / f"{layout}.safetensors"
    if layout == "ours":
        checkpoint.write(path, model.state_dict(), {})
    elif layout == "torch":
        checkpoint.write(path, interop.to_torch(model), {"format": "pt"})
    else:
        torch = pytest.importorskip("torch")
        path = folder / "w.pth"
        state = {f"module.{name}": torch.from_numpy(array) for name, array in interop.to_torch(model).items()}
        torch.save({"model": state, "epoch": 1}, path)
    return path


def build(name: str, *sizes, **options) -> models.Model:
    with init.skipped():
        return models.build(name, *sizes, **options)


# --init-from


@pytest.mark.parametrize("layout", ["ours", "torch", "pth"])
def test_other_classes_leave_the_last_layer_as_drawn(tmp_path, layout):
    source = marked(build("resnet-mini", 10))
    model = models.build("resnet-mini", 7)
    drawn = model.fc.weight.data.copy()
    taken = finetune.initialise(model, written(source, tmp_path, layout))
    assert taken.drawn == ["fc"] and taken.unused == ["fc"] and np.array_equal(model.fc.weight.data, drawn)
    for name, array in model.state_dict().items():
        if not name.startswith("fc."):
            assert np.array_equal(array, source.state_dict()[name]), name


def test_a_shallower_resnet_starts_a_deeper_one(tmp_path):
    source, model = marked(build("resnet20")), build("resnet32")
    taken = finetune.initialise(model, written(source, tmp_path, "ours"))
    assert taken.unused == [] and all(name == there for name, there in taken.taken.items())
    assert {name[:8] for name in taken.drawn} == {f"layer{i}.{j}" for i in (1, 2, 3) for j in (3, 4)}
    assert (model.layer1[2].bn2.running_var == source.layer1[2].bn2.running_var).all()
    assert (model.layer1[3].conv1.weight.data == 0).all()


FROM_A = {
    "vgg-b": {0: 0, 5: 3, 10: 6, 12: 8},
    "vgg-d": {0: 0, 5: 3, 10: 6, 12: 8},
    "vgg-e": {0: 0, 5: 3, 10: 6, 12: 8},
    "vgg-a-lrn": {0: 0, 4: 3, 7: 6, 9: 8},
}


@pytest.mark.parametrize("layout", ["ours", "torch"])
@pytest.mark.parametrize("name", FROM_A)
def test_vgg_starts_from_the_layers_of_a(tmp_path, name, layout):
    """The first four convolutions and the three fully connected layers; 3.1 of the paper."""
    source, model = marked(build("vgg-a", 10, image_size=32)), build(name, 10, image_size=32)
    taken = finetune.initialise(model, written(source, tmp_path, layout))
    convolutions = {f"features.{here}": f"features.{there}" for here, there in FROM_A[name].items()}
    assert taken.taken == convolutions | {f"classifier.{i}": f"classifier.{i}" for i in (0, 3, 6)}
    assert taken.unused == [f"features.{i}" for i in (11, 13, 16, 18)]
    own, theirs = model.state_dict(), source.state_dict()
    for here, there in taken.taken.items():
        for entry in ("weight", "bias"):
            assert np.array_equal(own[f"{here}.{entry}"], theirs[f"{there}.{entry}"])
    assert all((own[f"{layer}.weight"] == 0).all() for layer in taken.drawn)
    line, drawn, unused = str(taken).splitlines()
    total = len(taken.taken) + len(taken.drawn)
    assert line.startswith(f"taken from {tmp_path / f'{layout}.safetensors'}: 7 of {total} layers: features.0, ")
    assert " (there features.3)" in line and unused == "not taken: features.11, features.13, features.16, features.18"
    assert drawn.startswith("left as drawn: features.")


def test_vggs_of_the_same_layers_go_by_name(tmp_path):
    source, model = marked(build("vgg-d", 10, image_size=32)), build("vgg-d", 10, in_channels=1, image_size=32)
    taken = finetune.initialise(model, written(source, tmp_path, "ours"))
    assert taken.drawn == ["features.0"] and isinstance(model, VGG)


def test_a_layer_is_taken_whole_or_not_at_all(tmp_path):
    path = tmp_path / "w.safetensors"
    model = layers.Sequential(a=layers.Conv2d(2, 3, 3), b=layers.Conv2d(3, 3, 3, bias=False), c=layers.BatchNorm(3))
    ones = {name: np.ones_like(array) for name, array in model.state_dict().items()}
    missing = {name: array for name, array in ones.items() if name not in ("a.bias", "c.running_var")}
    checkpoint.write(path, {**missing, "b.bias": np.ones(3)}, {})
    before = {name: array.copy() for name, array in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"--init-from .*w\.safetensors: no layer of it fits"):
        finetune.initialise(model, path)
    assert all(np.array_equal(array, before[name]) for name, array in model.state_dict().items())
    checkpoint.write(path, {**missing, "a.bias": ones["a.bias"]}, {})
    assert finetune.initialise(model, path).taken == {"a": "a", "b": "b"}


@pytest.mark.parametrize("options", [(), ("--ema", "0.9")])
def test_a_run_starts_from_another(train, tmp_path, capsys, data, options):
    """From the weights that count: the averaged ones, where there are such."""
    assert train("--out", tmp_path / "first", *options) == 0
    capsys.readouterr()
    assert train("--out", tmp_path / "second", "--init-from", tmp_path / "first", "--seed", 1) == 0
    out = capsys.readouterr().out
    assert f"taken from {tmp_path / 'first'}: 3 of 3 layers: conv1, bn1, fc\n" in out and "left as drawn" not in out
    assert json.loads((tmp_path / "second" / "config.json").read_text())["init_from"] == str(tmp_path / "first")
    started, first = trainer(data, "--init-from", tmp_path / "first").model, evaluate.load(tmp_path / "first")
    for name, array in started.state_dict().items():
        assert np.array_equal(array, first.state_dict()[name])


def test_the_source_is_not_needed_to_resume(train, tmp_path, capsys):
    for name in ("source", "whole"):
        options = () if name == "source" else ("--init-from", tmp_path / "source")
        assert train("--out", tmp_path / name, "--schedule", "constant", "--seed", 1, *options) == 0
    shutil.copytree(tmp_path / "source", tmp_path / "moved")
    same = ("--schedule", "constant", "--seed", 1, "--init-from", tmp_path / "source")
    assert train("--out", tmp_path / "part", "--epochs", 1, *same) == 0
    shutil.rmtree(tmp_path / "source")
    assert train("--out", tmp_path / "part", "--resume", *same) == 0
    assert same_run(tmp_path / "part", tmp_path / "whole")
    capsys.readouterr()
    changed = (*same[:-1], tmp_path / "moved")
    assert "was begun with init_from=" in refused(capsys, train("--out", tmp_path / "part", "--resume", *changed))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "is no run folder, it has no last.safetensors"),
        (lambda path: path.write_bytes(b"cos\nsystem\n(S'ls'\ntR."), "refused, for it asks for os.system"),
    ],
)
def test_what_cannot_be_started_from(train, tmp_path, capsys, make, message):
    make(tmp_path / "w.pth")
    error = refused(capsys, train("--out", tmp_path / "run", "--init-from", tmp_path / "w.pth"))
    assert message in error and not (tmp_path / "run").exists()


# --freeze


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        ("conv1", ["conv1.weight"]),
        ("conv1, bn1", ["conv1.weight", "bn1.weight", "bn1.bias"]),
        ("*.bias", ["bn1.bias", "fc.bias"]),
        ("bn?.weight,fc.weight", ["bn1.weight", "fc.weight"]),
    ],
)
def test_what_a_pattern_means(data, patterns, frozen):
    t = trainer(data, "--freeze", patterns)
    trained = [name for name, _ in t.model.named_parameters()]
    assert [
        name for name in ("conv1.weight", "bn1.weight", "bn1.bias", "fc.weight", "fc.bias") if name not in trained
    ] == frozen
    assert t.parameters() + t.frozen() == 8 * 9 + 16 + 27


def test_a_prefix_ends_at_a_dot():
    model = build("resnet110")
    finetune.freeze(model, "layer1.1")
    assert all(name.startswith("layer1.1.") != tensor.requires_grad for name, tensor in every_parameter(model))


def every_parameter(model):
    return [
        (f"{prefix}.{name}" if prefix else name, value)
        for prefix, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor)
    ]


def test_frozen_layers_do_not_change(data):
    t = trainer(data, "--freeze", "conv1,bn1", "--weight-decay", 0.1, "--ema", 0.9)
    before = {name: array.copy() for name, array in t.model.state_dict().items()}
    t.compile()
    list(t.epoch())
    for name, array in t.model.state_dict().items():
        assert np.array_equal(array, before[name]) == (not name.startswith("fc.")), name
    assert t.model.bn1.training is False and t.model.drop1.training


def test_no_gradient_is_computed_for_them(data):
    """Below the first layer that learns nothing is walked; the gradients above are as ever."""
    gradients, walked = [], []
    for patterns in ("", "conv1,bn1.bias,bn1.weight"):
        t = trainer(data, *(("--freeze", patterns) if patterns else ()))
        t.frozen_norms = []  # the same statistics in both
        t._train()
        images, labels = next(iter(t.feed))
        names: list[str] = []
        with observe(lambda event, names=names: names.append(event.name) if event.phase == "backward" else None):
            t.forward(images, labels)[0].backward()
        walked.append(names)
        gradients.append(t.model.fc.weight.grad)
        assert (t.model.conv1.weight.grad is None) == bool(patterns)
    assert "conv2d" in walked[0] and not {"conv2d", "bn_relu", "mean"} & set(walked[1])
    assert np.array_equal(*gradients)


def test_a_frozen_layer_in_the_middle_passes_the_gradient_on(data):
    whole, frozen = trainer(data), trainer(data, "--freeze", "fc")
    images, labels = next(iter(whole.feed))
    for t in (whole, frozen):
        t.forward(images, labels)[0].backward()
    assert frozen.model.fc.weight.grad is None
    assert np.array_equal(frozen.model.conv1.weight.grad, whole.model.conv1.weight.grad)


@pytest.mark.parametrize("recipe", [("--polyak",), ("--optimizer", "adamw", "--lr", "0.01", "--clip", "0.5")])
def test_a_frozen_run_resumes(train, tmp_path, recipe):
    same = ("--schedule", "constant", "--freeze", "conv1,bn1", *recipe)
    assert train("--out", tmp_path / "whole", *same) == 0
    assert train("--out", tmp_path / "part", "--epochs", 1, *same) == 0
    assert train("--out", tmp_path / "part", "--resume", *same) == 0
    assert same_run(tmp_path / "part", tmp_path / "whole")
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["freeze"] == "conv1,bn1"
    assert result(tmp_path / "whole")["parameters"] == 27


def test_it_says_what_is_frozen(train, tmp_path, capsys):
    assert train("--out", tmp_path / "run", "--freeze", "conv1") == 0
    assert "tiny: 43 parameters and 72 frozen ones, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("conv2", "--freeze: no parameter is called 'conv2'; did you mean conv1?"),
        ("conv1,layer9.*", "--freeze: no parameter is called 'layer9.*'; names are such as conv1.weight"),
        ("con", "--freeze: no parameter is called 'con'; did you mean conv1?"),
        ("", "--freeze: no parameter is called ''; names are such as conv1.weight"),
        ("conv1,", "--freeze: no parameter is called ''; names are such as conv1.weight"),
        ("*", "--freeze *: that is every parameter, nothing is left to train"),
        ("drop1", "--freeze: no parameter is called 'drop1'; "),
    ],
)
def test_what_cannot_be_frozen(train, tmp_path, capsys, patterns, message):
    error = refused(capsys, train("--out", tmp_path / "run", "--freeze", patterns))
    assert error.startswith(message) and not (tmp_path / "run").exists()
