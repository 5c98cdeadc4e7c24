"""`python -m minicnn.evaluate`: top-1, top-5 and the confusions of a run or a weights file."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from minicnn import checkpoint, evaluate, models
from minicnn.data import Loader, augment, load, split_validation
from minicnn.evaluate import progress, report, top, wilson
from minicnn.evaluate.__main__ import main, seen
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
        "top-1 accuracy 0.7000 (7 of 10), 95% interval 0.3968 to 0.8922",
        "top-5 accuracy 0.9000 (9 of 10), 95% interval 0.5958 to 0.9821",
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


def test_top():
    scores = np.array([[3, 2, 1], [1, 3, 2], [2, 2, 1]])
    assert [top(scores, np.array([1, 0, 1]), k) for k in (1, 2, 3)] == [0, 2, 3]


@pytest.mark.parametrize(("right", "count"), [(7, 10), (0, 10), (10, 10), (1, 1), (4321, 10000)])
def test_the_interval_holds_the_accuracies_that_are_not_far_off(right, count):
    """At either end the measured accuracy is 1.96 of that end's own standard deviations away."""
    low, high = wilson(right, count)
    assert 0 <= low <= right / count <= high <= 1
    for p in {low, high} - {0.0, 1.0}:
        assert abs(p - right / count) == pytest.approx(1.959964 * (p * (1 - p) / count) ** 0.5)
    assert (low == 0) == (right == 0) and (high == 1) == (right == count)


def test_an_interval_of_nothing():
    with pytest.raises(ValueError, match="wilson: needs"):
        wilson(0, 0)


def test_of_a_run_it_knows_network_and_data(run, capsys):
    assert main([str(run)]) == 0
    accuracy = result(run)["test_accuracy"]
    assert capsys.readouterr().out.startswith(f"top-1 accuracy {accuracy:.4f} ({round(24 * accuracy)} of 24), 95% ")


def test_of_other_weights_of_the_run_and_the_other_split(run, capsys, data):
    assert main([str(run / "best.safetensors"), "--split", "train"]) == 0
    accuracy = evaluate.accuracy_and_loss(evaluate.load(run / "best.safetensors"), load(data, "train"))["accuracy"]
    assert capsys.readouterr().out.startswith(f"top-1 accuracy {accuracy:.4f} (")


def test_of_weights_alone(run, capsys, data, tmp_path):
    shutil.copy(run / "last.safetensors", tmp_path / "alone.safetensors")
    assert main([str(tmp_path / "alone.safetensors"), "--data", str(data)]) == 0
    assert f"top-1 accuracy {result(run)['test_accuracy']:.4f}" in capsys.readouterr().out


def first_lines(capsys, *arguments):
    """What the command prints before the accuracy by class."""
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out.split("\n\n")[0].splitlines()


def test_views_as_the_papers_have_them(run, capsys):
    ten, accuracy = first_lines(capsys, run, "--crops", 10)
    assert ten == "10 crops of 8×8 pixels, shorter side 8, padded by 1" and accuracy.startswith("top-1 accuracy ")
    dense, grid, _ = first_lines(capsys, run, "--dense", "--crops", 50, "--scales", "8,12", "--pad", 1)
    assert dense == "the whole image and its mirror image, shorter side 8, 12, padded by 1"
    assert grid == "100 crops of 8×8 pixels, shorter side 8, 12, padded by 1"
    assert first_lines(capsys, run, "--scales", 9)[0] == "1 crop of 8×8 pixels, shorter side 9"


def test_one_crop_at_the_networks_own_size_is_the_image(run, capsys):
    assert first_lines(capsys, run, "--crops", 1, "--scales", 8)[1:] == first_lines(capsys, run)


def test_two_ways_to_look_count_alike(run, data):
    network, dataset = evaluate.load(run), load(data, "test")
    dense, ten = evaluate.choose(None, 8), evaluate.choose(10, 8)
    each = [evaluate.scores(network, dataset, views)[0] for views in (dense, ten)]
    both, labels = seen(network, dataset, [dense, ten], "cpu")
    np.testing.assert_allclose(both, np.mean(each, axis=0))
    assert np.array_equal(labels, dataset.labels)


def test_exact_statistics_are_those_of_the_runs_own_batches(run, capsys, data, tmp_path):
    saved = tmp_path / "precise.safetensors"
    assert first_lines(capsys, run, "--precise-bn", 4, "--save", saved, "--crops", 10)[0].startswith("10 crops")
    network, config = evaluate.load(run), json.loads((run / "config.json").read_text())
    training, _ = split_validation(load(data, "train"), config["validation"], config["seed"])
    batches = Loader(training, 12, augment=augment.parse("shift:1,flip"))
    before = network.bn1.running_mean.copy()
    evaluate.precise_bn(network, batches, 4)
    weights, _ = checkpoint.read(saved)
    for name, array in network.state_dict().items():
        np.testing.assert_allclose(weights[name], array, rtol=1e-5, atol=1e-6)
    assert not np.allclose(network.bn1.running_mean, before)
    assert first_lines(capsys, saved, "--data", data, "--crops", 10) == first_lines(
        capsys, run, "--precise-bn", 4, "--crops", 10
    )


def test_weights_that_say_how_images_are_normalised(run, data, tmp_path):
    dataset = load(data, "test")
    assert np.array_equal(evaluate.normalised_for(run, dataset).mean, dataset.mean)
    weights, metadata = checkpoint.read(run / "last.safetensors")
    own = evaluate.normalised_for(run / "last.safetensors", dataset)
    assert np.array_equal(own.mean, dataset.mean) and np.array_equal(own.std, dataset.std)
    published = tmp_path / "published.safetensors"
    checkpoint.write(published, weights, {**metadata, "mean": "[0.25]", "std": "[2]"})
    other = evaluate.normalised_for(published, dataset)
    assert (other.mean.tolist(), other.std.tolist()) == ([0.25], [2]) and other.mean.dtype == np.float32
    checkpoint.write(published, weights, {**metadata, "mean": "[0.25, 0, 0]"})
    with pytest.raises(ValueError, match="its mean and std are not those of 1 channels"):
        evaluate.normalised_for(published, dataset)


def test_progress_of_a_long_evaluation(monkeypatch, capsys):
    now = iter(range(0, 100, 6))  # seconds
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(now)))
    assert list(progress.watched(range(5), "images")) == [0, 1, 2, 3, 4]
    # Looked at after 6, 12, … seconds, when none, one, … were done.
    assert capsys.readouterr().err.splitlines() == ["images: 1 of 5, 48 s left", "images: 3 of 5, 16 s left"]


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
        (run, "--crops", "10", "--scales", "8"): "of images of 8 pixels all crops of 8 are the same; ",
        (run, "--scales", "9,7"): "crops of 8 pixels do not fit into images of 7 pixels; scale more",
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--save", "new.safetensors"], "--save writes what --precise-bn has changed; give that too"),
        (["--precise-bn", "2", "--save", __file__], "is there already; give a new name"),
        (["--crops", "12"], "argument --crops: invalid choice: 12"),
        (["--scales", "256,0"], "argument --scales: must be above 0, got 0"),
        (["--scales", "256x"], "argument --scales: invalid int value: '256x'"),
    ],
)
def test_options_that_are_refused(run, given, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(run), *given])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and message in error
