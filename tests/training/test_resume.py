"""A run that was stopped and resumed holds the same numbers, bit for bit, as one that never stopped."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from minicnn.train import Trainer
from tests import device
from tests.training.folders import metrics, result, same_run

RECIPES = {
    "sgd": ["--nesterov", "--schedule", "one-cycle"],
    "sgd with a plateau and an average": ["--schedule", "plateau:0:0.5", "--ema", "0.8", "--decay-all"],
    "rmsprop with Polyak's mean": ["--optimizer", "rmsprop", "--lr", "0.01", "--schedule", "cosine", "--polyak"],
    "adamw, clipped, no validation": ["--optimizer", "adamw", "--lr", "0.01", "--clip", "0.5", "--validation", "0"],
}
STEPS = 4  # of the tiny network in an epoch


@pytest.fixture
def stop_at(monkeypatch):
    """`stop_at(n)`: Ctrl-C is pressed in the n-th step from now; `stop_at(0)`: never."""
    step = Trainer.step

    def arm(n: int) -> None:
        done = 0

        def counted(self, *batch):
            nonlocal done
            done += 1
            if done == n:
                raise KeyboardInterrupt
            return step(self, *batch)

        monkeypatch.setattr(Trainer, "step", counted)

    return arm


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("stops", [[1], [STEPS + 2], [2 * STEPS, STEPS + 1]])
def test_resumed_is_as_never_stopped(train, tmp_path, stop_at, capsys, recipe, stops):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train("--out", whole, *recipe) == 0
    for stop in stops:
        stop_at(stop)
        assert train("--out", stopped, "--resume", *recipe) == 130
        error = capsys.readouterr().err
        assert error.startswith("interrupted;") and f"--out {stopped} --resume" in error and error.count("\n") == 1
    stop_at(0)
    assert train("--out", stopped, "--resume", *recipe) == 0
    assert same_run(whole, stopped)
    same = ("test_accuracy", "test_loss", "train_accuracy", "epochs")
    assert [result(whole)[key] for key in same] == [result(stopped)[key] for key in same]


@pytest.mark.parametrize("file", ["best.safetensors", "metrics.csv", "last.safetensors"])
def test_stopped_while_writing(train, tmp_path, monkeypatch, file):
    """The files of an epoch are written one after another; whichever of them is the last, the run can go on."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train("--out", whole) == 0
    replace, seen = os.replace, 0

    def stop_at_second(source, target):
        nonlocal seen
        replace(source, target)
        seen += str(target).endswith(file)
        if seen == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop_at_second)
        assert train("--out", stopped) == 130
    assert train("--out", stopped, "--resume") == 0
    assert same_run(whole, stopped)


def test_killed_before_the_first_checkpoint_starts_afresh(train, tmp_path):
    assert train("--out", tmp_path / "whole") == 0
    assert train("--out", tmp_path / "run") == 0
    for name in ("last.safetensors", "best.safetensors", "metrics.csv", "result.json"):
        (tmp_path / "run" / name).unlink()
    assert train("--out", tmp_path / "run", "--resume") == 0
    assert same_run(tmp_path / "whole", tmp_path / "run")


def test_killed_before_the_result_measures_only(train, tmp_path):
    out = tmp_path / "run"
    assert train("--out", out) == 0
    before, expected = (out / "last.safetensors").read_bytes(), result(out)["test_accuracy"]
    (out / "result.json").unlink()
    assert train("--out", out, "--resume") == 0
    assert (out / "last.safetensors").read_bytes() == before and result(out)["test_accuracy"] == expected


def test_resume_of_a_finished_run_changes_nothing(train, tmp_path, capsys):
    out = tmp_path / "run"
    assert train("--out", out) == 0
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in out.iterdir()}
    assert train("--out", out, "--resume") == 0
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in out.iterdir()} == before
    assert "is finished after 3 epochs; --epochs may grow" in capsys.readouterr().out


def test_epochs_may_grow(train, tmp_path):
    constant = ("--schedule", "constant")
    assert train("--out", tmp_path / "short", "--epochs", 2, *constant) == 0
    assert train("--out", tmp_path / "short", "--epochs", 4, *constant, "--resume") == 0
    assert train("--out", tmp_path / "long", "--epochs", 4, *constant) == 0
    assert same_run(tmp_path / "short", tmp_path / "long")
    assert result(tmp_path / "short")["epochs"] == 4


def test_threads_may_change(train, tmp_path, stop_at):
    assert train("--out", tmp_path / "whole", "--threads", 2) == 0
    stop_at(STEPS + 2)
    assert train("--out", tmp_path / "run", "--threads", 1, "--loader-threads", 2) == 130
    stop_at(0)
    assert train("--out", tmp_path / "run", "--threads", 2, "--device", device.name, "--resume") == 0
    assert same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--lr", 0.2), "was begun with lr=0.1, now it is 0.2"),
        (("--seed", 1), "was begun with seed=0, now it is 1"),
        (("--augment", "none"), "was begun with augment='shift:1,flip', now it is 'none'"),
        (("--epochs", 2), "was begun with 3 epochs; --epochs may only grow"),
    ],
)
def test_nothing_else_may_change(train, tmp_path, capsys, changed, message):
    out = tmp_path / "run"
    assert train("--out", out) == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    capsys.readouterr()
    assert train("--out", out, "--resume", *changed) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{out}: {message}") and error.count("\n") == 1
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_a_full_disk_keeps_the_checkpoint_before(train, tmp_path, monkeypatch, capsys):
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train("--out", whole) == 0
    capsys.readouterr()
    fsync, calls = os.fsync, 0

    def full(handle):
        nonlocal calls
        calls += 1
        if calls > 14:  # two an epoch's file, three files an epoch: in the second epoch
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert train("--out", out) == 2
    error = capsys.readouterr().err
    assert error.startswith(str(out)) and error.endswith("No space left on device; nothing was written over\n")
    assert error.count("\n") == 1
    assert not [file for file in out.iterdir() if file.name.startswith(".")]
    assert train("--out", out, "--resume") == 0
    assert same_run(whole, out)


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent otherwise there")
def test_ctrl_c(tmp_path, data):
    """The real thing: a process, a signal, an exit code, and the same command again."""
    command = [
        sys.executable, "-m", "minicnn.train", "resnet-mini", "--data", str(data), "--batch-size", "12",
        "--epochs", "40", "--schedule", "constant",
    ]  # fmt: skip
    stopped = subprocess.Popen(
        [*command, "--out", tmp_path / "stopped"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background job ignores it
    )
    for line in stopped.stdout:
        if line.startswith("epoch 2/40"):
            stopped.send_signal(signal.SIGINT)
            break
    _, error = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert error.startswith("interrupted; the last finished epoch is saved") and error.count("\n") == 1
    epochs = len(metrics(tmp_path / "stopped"))
    assert 2 <= epochs < 40

    command[command.index("40")] = "41"
    for out, options in (("stopped", ["--resume"]), ("whole", [])):
        finished = subprocess.run([*command, *options, "--out", tmp_path / out], capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr
    assert same_run(tmp_path / "stopped", tmp_path / "whole")
