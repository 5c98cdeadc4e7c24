"""What goes wrong is one line on standard error that says what to do, exit code 2, and nothing half-written."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

from minicnn import _cli, checkpoint, device
from minicnn.train.__main__ import main
from tests.training.folders import metrics


def refused(capsys, code: int) -> str:
    """The one line on standard error."""
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and error.endswith("\n")
    return error[:-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnt20"], "unknown model 'resnt20': did you mean resnet20"),
        (["--data", "bundeled"], "unknown data set 'bundeled': did you mean bundled?"),
        (["--data", "no/such/folder"], "no/such/folder: no such file or folder"),
        (["--batch-size", "0"], "Loader: batch size 0 is not possible; bundled has 4900 images here"),
        (["--batch-size", "5001"], "Loader: batch size 5001 is not possible; bundled has 4900 images here"),
        (["--image-size", "1"], "resnet-mini: image_size 1 is too small: nothing is left of a 1x1 map after maxpool"),
        (["vgg-a", "--variant", '{"bm": true}'], "vgg-a: unknown keyword bm; it takes bn=False"),
        (["--schedule", "cosin"], "unknown schedule 'cosin': did you mean cosine?"),
        (["--augment", "flop"], "augment: unknown step 'flop': did you mean flip"),
        (["--momentum", "0", "--nesterov"], "SGD: nesterov needs a momentum above 0"),
        (["--recipe", "paper"], "--recipe paper: no paper says how resnet-mini is trained; use --recipe default"),
    ],
)
def test_what_cannot_be_trained(capsys, tmp_path, arguments, message):
    error = refused(capsys, main([*arguments, "--out", str(tmp_path / "run")]))
    assert error.startswith(message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epohcs", "3"], "unknown argument --epohcs, did you mean --epochs?"),
        (["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
        (["--lr", "0"], "argument --lr: must be above 0, got 0"),
        (["--lr", "nan"], "argument --lr: must be above 0, got nan"),
        (["--weight-decay", "-1"], "argument --weight-decay: must be at least 0, got -1"),
        (["--epochs", "0"], "argument --epochs: must be above 0, got 0"),
        (["--seed", "-1"], "argument --seed: must be at least 0, got -1"),
        (["--validation", "1"], "argument --validation: must be at least 0 and below 1, got 1"),
        (["--optimizer", "adma"], "argument --optimizer: invalid choice: 'adma'"),
        (["--variant", "bn"], "argument --variant: must be a JSON object such as '{\"bn\": true}', got 'bn'"),
        (["--variant", "5"], "argument --variant: must be a JSON object such as '{\"bn\": true}', got '5'"),
        (["--resume", "--overwrite"], "argument --overwrite: not allowed with argument --resume"),
    ],
)
def test_what_cannot_be_said(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    error = refused(capsys, stopped.value.code)
    assert error.startswith(f"python -m minicnn.train: {message}")


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_a_precision_that_the_cpu_does_not_have(capsys, tmp_path, train, precision):
    error = refused(capsys, train("--device", "cpu", "--precision", precision, "--out", tmp_path / "run"))
    assert error == f"--precision {precision}: needs a CUDA device, and this run is on the CPU; use fp32 there"
    assert not (tmp_path / "run").exists()


def test_resume_needs_a_folder(capsys):
    assert refused(capsys, main(["--resume"])).startswith("--resume needs --out")


def test_no_cuda(capsys, monkeypatch, tmp_path, train):
    monkeypatch.setattr(device, "cuda_problem", lambda: "no CUDA device is visible")
    error = refused(capsys, train("--device", "cuda", "--out", tmp_path / "run"))
    assert error == "device: CUDA cannot be used: no CUDA device is visible"
    assert not (tmp_path / "run").exists()
    assert train("--device", "auto", "--epochs", 1, "--out", tmp_path / "run") == 0
    assert capsys.readouterr().out.startswith("device: cpu (no CUDA device is visible)\n")


def test_a_run_is_not_written_over(train, tmp_path, capsys):
    out = tmp_path / "run"
    assert train("--out", out) == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    capsys.readouterr()
    error = refused(capsys, train("--out", out))
    assert error.startswith(f"{out}: holds a run already") and "--resume" in error and "--overwrite" in error
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert train("--out", out, "--overwrite", "--epochs", 1) == 0
    assert len(metrics(out)) == 1


def test_a_folder_or_file_of_something_else_is_not_written_to(train, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert refused(capsys, train("--out", tmp_path)).startswith(f"{tmp_path}: holds files that are no run")
    assert refused(capsys, train("--out", tmp_path / "notes.txt")).endswith("is not a folder; choose another --out")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "truncated or not a safetensors file"),
        (lambda path: checkpoint.write(path, {"w": np.ones(1)}, {"model": '{"name": "vgg-a"}'}), "of another model"),
        (lambda path: without(path, "optimiser/0.velocity"), "SGD: the saved state is of another optimiser"),
        (lambda path: reshaped(path, "conv1.weight"), "wrong shape: conv1.weight is (2, 2), needs (3, 3, 1, 8)"),
    ],
)
def test_a_checkpoint_that_does_not_fit(train, tmp_path, capsys, spoil, message):
    out = tmp_path / "run"
    assert train("--out", out) == 0
    capsys.readouterr()
    spoil(out / "last.safetensors")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert message in refused(capsys, train("--out", out, "--resume"))
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def without(path, name):
    arrays, metadata = checkpoint.read(path)
    del arrays[name]
    checkpoint.write(path, arrays, metadata)


def reshaped(path, name):
    arrays, metadata = checkpoint.read(path)
    checkpoint.write(path, {**arrays, name: np.ones((2, 2))}, metadata)


def test_a_damaged_configuration(train, tmp_path, capsys):
    out = tmp_path / "run"
    assert train("--out", out) == 0
    (out / "config.json").write_text("{")
    capsys.readouterr()
    assert refused(capsys, train("--out", out, "--resume")).startswith(f"{out / 'config.json'}: is damaged")


def test_a_rate_that_makes_the_loss_nan(train, tmp_path, capsys):
    out = tmp_path / "run"
    error = refused(capsys, train("--out", out, "--lr", 1e30, "--schedule", "constant"))
    assert error.startswith("the loss is nan at step ") or error.startswith("the loss is inf at step ")
    assert "forward of '" in error and "produced NaN or Inf" in error and "a smaller --lr" in error
    assert not (out / "result.json").exists()


def test_nan_weights_are_named(data, monkeypatch, capsys, train, tmp_path):
    from minicnn import optim

    step = optim.SGD.step

    def poison(self, *factor):
        step(self, *factor)
        if self.steps == 6:
            self._parameters[0][0].data[0, 0, 0, 0] = np.nan

    monkeypatch.setattr(optim.SGD, "step", poison)
    error = refused(capsys, train("--out", tmp_path / "run"))
    assert re.match(
        "the loss is nan at step 7(, read after step 8)?: forward of 'conv2d' produced NaN or Inf, "
        "after the step before had made conv1.weight NaN or Inf;",
        error,
    )
    assert checkpoint.read(tmp_path / "run" / "last.safetensors")[1]["epoch"] == "1"


def test_nan_from_the_last_step_is_found(train, tmp_path, capsys):
    out = tmp_path / "run"
    one_step = ("--out", out, "--epochs", 1, "--batch-size", 36, "--validation", 0.25)
    error = refused(capsys, train(*one_step, "--lr", 1e38, "--schedule", "constant"))
    assert error.startswith("after step 1 the loss on other images is ") and "; a smaller --lr" in error
    assert checkpoint.read(out / "last.safetensors")[1]["epoch"] == "0"


def test_weights_that_the_last_step_has_made_nan_are_named(train, tmp_path, capsys, monkeypatch):
    from minicnn import optim

    monkeypatch.setattr(optim.SGD, "step", lambda self, factor: self._parameters[0][0].data.fill(np.nan))
    monkeypatch.setattr("minicnn.train.trainer.Trainer.compile", lambda self: 0.0)
    error = refused(capsys, train("--out", tmp_path / "run", "--epochs", 1, "--batch-size", 36, "--validation", 0.25))
    assert error.startswith("step 0 has made conv1.weight NaN or Inf; a smaller --lr")


def test_what_a_kill_has_left_of_writing_the_first_file_is_no_obstacle(train, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".config.json.12345").write_text("{")
    assert train("--out", out, "--resume") == 0


def test_more_epochs_are_noted_only_once_the_checkpoint_is_read(train, tmp_path, capsys):
    out = tmp_path / "run"
    assert train("--out", out) == 0
    arrays, metadata = checkpoint.read(out / "last.safetensors")
    checkpoint.write(out / "last.safetensors", arrays, {"model": metadata["model"]})
    capsys.readouterr()
    assert "does not say its dropout" in refused(capsys, train("--out", out, "--resume", "--epochs", 5))
    checkpoint.write(out / "last.safetensors", arrays, metadata)
    assert train("--out", out, "--resume") == 0


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\n  two"), "one two"),
        (MemoryError("9 GiB"), "out of memory (9 GiB); a smaller --batch-size or --image-size needs less"),
        (PermissionError(13, "Permission denied", "file"), "file: Permission denied"),
        (OSError("odd"), "odd"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_every_command_translates_errors_alike(capsys, monkeypatch, error, line):
    @_cli.command
    def failing(arguments):
        raise error

    assert refused(capsys, failing()) == line
    monkeypatch.setenv("MINICNN_TRACEBACK", "1")
    with pytest.raises(type(error)):
        failing()


def test_an_error_in_a_process():
    done = subprocess.run([sys.executable, "-m", "minicnn.train", "resnt20"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("unknown model 'resnt20'") and done.stderr.count("\n") == 1
