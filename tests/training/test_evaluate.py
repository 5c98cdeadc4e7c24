"""`python -m minicnn.evaluate`: top-1, top-5 and the confusions of a run or a weights file."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from minicnn import checkpoint, evaluate, models
from minicnn.data import load
from minicnn.evaluate import main, report
from tests.training.folders import result


@pytest.fixture
def run(train, tmp_path, capsys):
    assert train("--out", tmp_path / "run") == 0
    capsys.readouterr()
    return tmp_path / "run"


def test_report():
    labels = np.array([0, 0, 0, 1, 1, 2, 3, 4, 5, 5])
    said = np.array([0, 1, 1, 1, 1, 2, 3, 4, 0, 5])
    logits = np.eye(7)[said] - np.arange(7) * 1e-3  # next after the class said comes class 0, then 1 and so on
    assert report(logits, labels, tuple("abcdefg")).splitlines() == [
        "top-1 accuracy 0.7000 (7 of 10)",
        "top-5 accuracy 0.9000 (9 of 10)",
        "",
        "accuracy by class, lowest first:",
        "  a  0.333 of 3",
        "  f  0.500 of 2",
        "  b  1.000 of 2",
        "  c  1.000 of 1",
        "  d  1.000 of 1",
        "  e  1.000 of 1",
        "",
        "confusions, most frequent first:",
        "     2 × a taken for b",
        "     1 × f taken for a",
    ]


def test_of_a_run_it_knows_network_and_data(run, capsys):
    assert main([str(run)]) == 0
    accuracy = result(run)["test_accuracy"]
    assert capsys.readouterr().out.startswith(f"top-1 accuracy {accuracy:.4f} ({round(24 * accuracy)} of 24)\n")


def test_of_other_weights_of_the_run_and_the_other_split(run, capsys, data):
    assert main([str(run / "best.safetensors"), "--split", "train"]) == 0
    accuracy = evaluate.accuracy_and_loss(evaluate.load(run / "best.safetensors"), load(data, "train"))["accuracy"]
    assert capsys.readouterr().out.startswith(f"top-1 accuracy {accuracy:.4f} (")


def test_of_weights_alone(run, capsys, data, tmp_path):
    shutil.copy(run / "last.safetensors", tmp_path / "alone.safetensors")
    assert main([str(tmp_path / "alone.safetensors"), "--data", str(data)]) == 0
    assert f"top-1 accuracy {result(run)['test_accuracy']:.4f}" in capsys.readouterr().out


def test_images_of_another_size_are_cropped_or_enlarged(data):
    larger, smaller = evaluate.batches(load(data, "test"), 6), evaluate.batches(load(data, "test"), 16)
    (images, _), (enlarged, _) = next(iter(larger)), next(iter(smaller))
    (whole, _) = next(iter(evaluate.batches(load(data, "test"), 8)))
    assert np.array_equal(images, whole[:, 1:7, 1:7]) and enlarged.shape == (24, 16, 16, 1)


def test_its_model_goes_back_to_training(data):
    model = models.build("resnet-mini", 3, 1, 8)
    evaluate.accuracy_and_loss(model, load(data, "test"))
    assert all(module.training for module in model.modules())


def arguments(tmp_path, run, data):
    """What cannot be evaluated, and why."""
    (tmp_path / "empty").mkdir()
    truncated, nameless = tmp_path / "truncated.safetensors", tmp_path / "nameless.safetensors"
    truncated.write_bytes((run / "last.safetensors").read_bytes()[:1000])
    checkpoint.write(nameless, {"w": np.ones(2)}, {})
    return {
        (tmp_path / "nowhere",): f"{tmp_path / 'nowhere'}: no such run folder or file",
        (tmp_path / "empty",): f"{tmp_path / 'empty'}: is no run folder",
        (truncated,): f"{truncated}: truncated or not a safetensors file",
        (nameless,): f"{nameless}: does not say which network it is of; say it with --model",
        (run, "--data", "bundled"): f"{run}: tiny was trained for 3 classes, bundled has 10",
        (run, "--data", "bundeled"): "unknown data set 'bundeled': did you mean bundled?",
        (run / "last.safetensors", "--model", "resnet-mini"): f"{run / 'last.safetensors'}: ResNet does not fit",
        (run / "last.safetensors", "--model", "resnet-mimi"): "unknown model 'resnet-mimi': did you mean resnet-mini",
    }


def test_errors(run, tmp_path, data, capsys):
    for given, message in arguments(tmp_path, run, data).items():
        assert main([str(argument) for argument in given]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(message) and captured.err.count("\n") == 1 and captured.out == ""


def test_weights_of_another_number_of_classes(run, capsys):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "data": "bundled"}))
    assert main([str(run)]) == 2
    assert "was trained for 3 classes, bundled has 10" in capsys.readouterr().err
