"""A run from its command to its folder, and that the same command gives the same numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minicnn import checkpoint, evaluate
from minicnn.data import load, load_pair, split_validation
from minicnn.train import Trainer
from minicnn.train.options import configuration, parser
from tests import device
from tests.training.folders import metrics, result

FILES = {"config.json", "metrics.csv", "result.json", "last.safetensors", "best.safetensors"}


def test_what_a_run_leaves_behind(train, tmp_path):
    out = tmp_path / "run"
    assert train("--out", out, "--seed", 5, "--threads", 1) == 0
    assert {file.name for file in out.iterdir()} == FILES

    config = json.loads((out / "config.json").read_text())
    assert (config["model"], config["epochs"], config["seed"], config["lr"]) == ("tiny", 3, 5, 0.1)

    rows = metrics(out)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"] and rows[-1]["step"] == "12"
    assert all(0 <= float(row[key]) <= 1 for row in rows for key in row if key.endswith("accuracy"))

    r = result(out)
    assert 0 <= r["test_accuracy"] <= 1 and 0 <= r["train_accuracy"] <= 1 and r["test_loss"] > 0
    assert (r["epochs"], r["seed"], r["device"], r["threads"]) == (3, 5, device.name, 1)
    assert r["parameters"] == 9 * 8 + 2 * 8 + 8 * 3 + 3
    assert r["train_seconds"] > 0 and r["compile_seconds"] >= 0
    assert r["images_per_second"] == pytest.approx(3 * 39 / r["train_seconds"], rel=0.05)

    _, metadata = checkpoint.read(out / "last.safetensors")
    assert (metadata["epoch"], metadata["step"]) == ("3", "12")


def test_without_out_a_folder_is_made_under_runs(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train("--epochs", 1) == 0
    assert train("--epochs", 1) == 0  # within the same second, perhaps
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 2 and all(folder.name.startswith("tiny-") for folder in folders)
    assert all({file.name for file in folder.iterdir()} == FILES for folder in folders)


RECIPES = [
    [],
    ["--optimizer", "adam", "--lr", "0.01", "--ema", "0.9", "--clip", "1", "--schedule", "warmup:1+plateau:0:0.5"],
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_command_gives_the_same_bits_on_any_number_of_threads(train, tmp_path, recipe):
    runs = [("a", 1, 1), ("b", 1, 1), ("c", 2, 3)]
    for name, threads, loader_threads in runs:
        assert train("--out", tmp_path / name, "--threads", threads, "--loader-threads", loader_threads, *recipe) == 0
    for file in ("last.safetensors", "best.safetensors"):
        assert len({(tmp_path / name / file).read_bytes() for name, *_ in runs}) == 1
    assert len({(r["test_accuracy"], r["test_loss"]) for r in (result(tmp_path / name) for name, *_ in runs)}) == 1


def test_another_seed_gives_another_network(train, tmp_path):
    for seed in (0, 1):
        assert train("--out", tmp_path / str(seed), "--seed", seed, "--epochs", 1) == 0
    assert (tmp_path / "0" / "last.safetensors").read_bytes() != (tmp_path / "1" / "last.safetensors").read_bytes()


def test_a_residual_network_gives_the_same_bits_with_one_thread_and_two(tmp_path, train):
    few = {}
    for split, count in (("train", 200), ("test", 20)):
        few[f"x_{split}"], few[f"y_{split}"] = load("bundled", split).take(np.arange(count))
    np.savez(tmp_path / "few.npz", **few)
    for threads in (1, 2):
        options = ("--threads", threads, "--data", tmp_path / "few.npz", "--batch-size", 64, "--epochs", 2)
        assert train("--out", tmp_path / str(threads), *options, model="resnet-mini") == 0
    assert (tmp_path / "1" / "last.safetensors").read_bytes() == (tmp_path / "2" / "last.safetensors").read_bytes()


@pytest.mark.parametrize("average", [["--ema", "0.5"], ["--polyak"], ["--no-polyak"]])
def test_the_accuracy_reported_is_that_of_the_weights_that_evaluate_loads(train, tmp_path, data, average):
    assert train("--out", tmp_path / "run", *average) == 0
    network = evaluate.load(tmp_path / "run")
    assert evaluate.accuracy_and_loss(network, load(data, "test")) == {
        "accuracy": result(tmp_path / "run")["test_accuracy"],
        "loss": result(tmp_path / "run")["test_loss"],
    }


def test_best_is_chosen_on_the_validation_split(train, tmp_path, data):
    out = tmp_path / "run"
    assert train("--out", out, "--epochs", 6) == 0
    rows = metrics(out)
    best = max(rows, key=lambda row: (float(row["validation_accuracy"]), -float(row["validation_loss"])))
    _, metadata = checkpoint.read(out / "best.safetensors")
    assert metadata["epoch"] == best["epoch"]
    _, held_out = split_validation(load(data, "train"), 0.2, 0)
    measured = evaluate.accuracy_and_loss(evaluate.load(out / "best.safetensors"), held_out)
    assert measured["accuracy"] == pytest.approx(float(best["validation_accuracy"]), rel=1e-6)


def test_without_validation_the_last_weights_are_the_best(train, tmp_path):
    out = tmp_path / "run"
    assert train("--out", out, "--validation", 0) == 0
    last, best = (checkpoint.read(out / f"{name}.safetensors")[0] for name in ("last", "best"))
    assert all(np.array_equal(array, last[name]) for name, array in best.items())
    assert {row["validation_accuracy"] for row in metrics(out)} == {""}


def test_compiling_leaves_no_trace(data):
    arguments = ["tiny", "--data", str(data), "--batch-size", "12", "--polyak", "--optimizer", "rmsprop"]
    config = configuration(parser().parse_args(arguments))
    trainer = Trainer(config, load_pair(data)[0])
    before = {name: array.copy() for name, array in trainer.saved().items()}
    metadata = trainer.metadata()
    assert trainer.compile() > 0
    assert all(np.array_equal(array, before[name]) for name, array in trainer.saved().items())
    assert trainer.metadata() == metadata
    assert all(p.grad is None for p in trainer.model.parameters())


def test_without_a_terminal_progress_is_plain_lines_on_standard_output(train, tmp_path, capsys):
    assert train("--out", tmp_path / "run") == 0
    captured = capsys.readouterr()
    lines = [line for line in captured.out.splitlines() if not line.startswith("compiling ")]
    assert captured.err == "" and "\r" not in captured.out and "\x1b" not in captured.out
    assert lines[0].startswith(f"device: {device.name} (")
    assert [line.split(",")[0] for line in lines if line.startswith("epoch")] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert lines[-1].startswith("test accuracy ") and lines[-1].endswith(str(tmp_path / "run"))


def test_on_a_terminal_there_is_a_bar(train, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    assert train("--out", tmp_path / "run") == 0
    bar = capsys.readouterr().out.split("\r")[-1]
    assert "epoch 3/3: 100%" in bar and "12/12" in bar and "loss " in bar and "accuracy " in bar and "images/s" in bar


def test_corrupt_files_are_skipped_and_counted_on_demand(tmp_path, train, capsys):
    from PIL import Image

    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for i in range(8):
                Image.fromarray(rng.integers(0, 256, (10, 10, 3)).astype(np.uint8)).save(folder / f"{i}.jpg")
    bad = tmp_path / "images" / "train" / "cat" / "3.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    options = ("--data", tmp_path / "images", "--image-size", 8, "--batch-size", 4, "--epochs", 1)
    assert train(*options, "--out", tmp_path / "refused") == 2
    assert str(bad) in capsys.readouterr().err
    assert train(*options, "--out", tmp_path / "run", "--skip-corrupt") == 0
    assert result(tmp_path / "run")["skipped_files"] == [str(bad)]
    assert "skipped 1 files that cannot be decoded" in capsys.readouterr().out
