"""The benchmarks' own arithmetic and manners; they are not run here, for a busy machine would make them wrong."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import curve, harness, memory, networks, probe, sides, start, step, tables, training
from minicnn import Tensor, interop, models, no_grad

PARAMETERS = {  # as published, or exact by the published tables
    "resnet18": 11_689_512,
    "googlenet": 13_378_280,
    "googlenet-without-lrn": 13_378_280,
    "vgg-a": 132_863_336,
    "vgg-16": 138_357_544,
    "vgg-16-bn": 15_253_578,  # with the small head of 32 pixels
    "resnet20": 269_722,
    "resnet50": 25_557_032,
    "resnet152": 60_192_808,
    "resnet1202": 19_421_274,
}


# --- Tables ------------------------------------------------------------------------------------------------------


def table(**changes) -> tables.Table:
    entries = {
        "name": "example",
        "title": "An example",
        "columns": {"network": "{name}", "ms": "{ms[median]:.0f} ({ms[low]:.0f}–{ms[high]:.0f})", "MB": "{mb:.1f}"},
        "rows": [{"name": "a", "ms": harness.spread([3.0, 1.0, 2.0]), "mb": None, "records": [1, 2]}],
        "machine": {"threads": "2"},
        "notes": ["One.", "Two."],
    }
    return tables.Table(**{**entries, **changes})


def test_a_table_in_markdown():
    assert table().markdown() == (
        "# An example\n\n"
        "| network | ms | MB |\n| :-- | --: | --: |\n| a | 2 (1–3) | – |\n\n"
        "One.\n\nTwo.\n\n- threads: 2\n"
    )


def test_a_table_in_json_holds_the_raw_figures():
    entries = json.loads(table().json())
    assert entries["rows"] == [{"name": "a", "ms": {"median": 2, "low": 1, "high": 3}, "mb": None, "records": [1, 2]}]
    assert entries["machine"] == {"threads": "2"}


def test_tables_are_written_whole_or_not_at_all(tmp_path):
    paths = tables.write(table(figure=curve.svg({"accuracy": [(0, 0.1), (1, 0.9)]}, "epoch")), tmp_path)
    assert (
        sorted(path.name for path in paths)
        == sorted(os.listdir(tmp_path))
        == ["example.json", "example.md", "example.svg"]
    )
    before = paths[0].read_text()
    with pytest.raises(KeyError):
        tables.write(table(title="Another", columns={"": "{not_there}"}), tmp_path)
    assert paths[0].read_text() == before and len(os.listdir(tmp_path)) == 3


def test_the_machine_is_named():
    facts = tables.machine(threads=3)
    assert facts["threads"] == "3" and "numpy" in facts["versions"] and "Python" in facts["system"]


# --- Processes and rounds ----------------------------------------------------------------------------------------


def stub(threads: int, text: str) -> harness.Record:
    print("other output")
    steering = [name for name in harness.STEER_BLAS if name in os.environ]
    return {"text": text, "pid": os.getpid(), "omp": os.environ["OMP_NUM_THREADS"], "steering": steering}


def failing_stub(threads: int) -> harness.Record:
    raise MemoryError("no room")


@pytest.fixture
def importable(monkeypatch):
    """Make this file a module that a child process finds."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    for f in (stub, failing_stub):
        monkeypatch.setattr(f, "__module__", "test_benchmarks")


def test_a_measurement_has_a_process_of_its_own(importable, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    record = harness.in_process(stub, threads=3, text="ü", variables={})
    assert record["text"] == "ü" and record["omp"] == "3" and record["steering"] == []
    assert record["pid"] != os.getpid() and 1 < record["peak_mb"] < 10_000


def test_a_measurement_that_fails_is_one_line(importable):
    with pytest.raises(RuntimeError, match=r"failing_stub.*MemoryError: no room$") as caught:
        harness.in_process(failing_stub, threads=1)
    assert "\n" not in str(caught.value)


def test_sides_alternate_and_every_other_round_runs_backwards():
    order = []
    measurements = {name: lambda name=name: order.append(name) or {"ms": len(order)} for name in "abc"}
    reports = []
    records = harness.alternate(measurements, 3, rest=0, report=lambda *what: reports.append(what))
    assert "".join(order) == "abccbaabc"
    assert [record["ms"] for record in records["a"]] == [1, 6, 7]
    assert reports[3] == ("c", 1, records["c"][1])


def test_a_busy_machine_is_noticed(monkeypatch):
    ticks = iter([(1000, 500), (1200, 650), (0, 0), (0, 0)])
    monkeypatch.setattr(harness, "_core_ticks", lambda: next(ticks))
    assert harness.busy_during(0) == 0.25
    assert harness.busy_during(0) is None


def test_the_summary_of_a_row():
    records = {
        "peak": [{"gflops": 90.0, "busy": None}, {"gflops": 100.0, "busy": None}],
        "minicnn": [{"ms": ms, "peak_mb": 50, "multiply_adds": 10**9, "busy": 0.1} for ms in (40.0, 50.0, 90.0)],
        "slow": [{"ms": ms, "peak_mb": 10, "busy": 0.2} for ms in (200.0, 210.0, 190.0)],
        "fast": [{"ms": ms, "peak_mb": 60, "busy": 0.0} for ms in (100.0, 100.0, 500.0)],
    }
    row = step.summary(records)
    assert row["torch_mode"] == "fast" and row["ratio"] == 2 and row["torch_mb"] == 60
    assert row["limit_ms"] == pytest.approx(20) and row["share"] == pytest.approx(0.4)
    assert row["busy"] == 0.2


# --- Both sides are the same network -----------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_parameter_counts_agree(name, torch):
    from benchmarks import torch_networks

    network = networks.NETWORKS[name]
    with torch.device("meta"):  # shapes without numbers
        theirs = torch_networks.build(network.model, network.classes, network.side, **network.variant)
    ours = models.build(network.model, network.classes, image_size=network.side, **network.variant)
    shapes = {name: sorted(p.shape) for name, p in ours.named_parameters()}
    assert shapes == {name: sorted(p.shape) for name, p in theirs.named_parameters()}
    assert sum(p.size for p in ours.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "googlenet", "vgg-16-bn"])
def test_both_sides_compute_the_same(name, torch):
    from benchmarks import torch_networks

    network = networks.NETWORKS[name]
    torch.manual_seed(0)
    theirs = torch_networks.build(network.model, network.classes, network.side, **network.variant).eval()
    ours = models.build(network.model, network.classes, image_size=network.side, **network.variant).eval()
    interop.load_torch(ours, theirs.state_dict())
    images = sides.batch(network)[0][:2]
    with torch.no_grad(), no_grad():
        expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
        np.testing.assert_allclose(ours(Tensor(images)).numpy(), expected, rtol=1e-3, atol=1e-4)


def test_multiply_adds_of_a_step():
    network = networks.Network("resnet20", batch=1, side=32)
    forward, stem = 40_551_040, 32 * 32 * 27 * 16
    assert probe.multiply_adds(sides.minicnn_step(network, threads=1)) == 3 * forward - stem


def test_a_step_of_each_kind_runs_in_a_child():
    record = harness.in_process(memory.measure_minicnn, threads=1, network="resnet20")
    assert record["ops"] > 40 and record["alive"] == 0 and record["peak_mb"] > record["activations_mb"] > 100
    record = harness.in_process(start.measure, threads=1, arguments=[], began=time.time())
    assert 0 < record["seconds"] < 600


# --- Runs --------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_read(tmp_path):
    (tmp_path / "config.json").write_text('{"epochs": 2}')
    with pytest.raises(ValueError, match=r"no finished run, result\.json is missing"):
        training.read(tmp_path)
    (tmp_path / "result.json").write_text('{"test_accuracy": 0.9}')
    (tmp_path / "metrics.csv").write_text("epoch,train_accuracy,test_accuracy\n1,0.5,\n2,0.75,0.7\n")
    run = training.read(tmp_path)
    assert run.result == {"test_accuracy": 0.9} and run.metrics[0] == {"epoch": 1, "train_accuracy": 0.5}
    figure = training.accuracy_curve(run.metrics)
    assert figure.startswith("<svg") and "train accuracy" in figure and figure.count("<polyline") == 2


def test_commands_are_shown_without_the_folders_of_a_machine():
    arguments = ["resnet20", "--data", "fashion-mnist:/home/me/fashion", "--epochs", "3"]
    assert training.shown(arguments) == "python -m minicnn.train resnet20 --data fashion-mnist:PATH/fashion --epochs 3"
    assert training.shown([]) == "python -m minicnn.train"
    assert training.without_folders("data=/a/b.npz, out=runs/x, rate=1/2") == "data=PATH/b.npz, out=runs/x, rate=1/2"


# --- The command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["step", "--networks", "resnet81"], "unknown network 'resnet81': did you mean resnet18"),
        (["step", "--modes", "fast"], "unknown mode 'fast': choose from NCHW, channels_last"),
        (["training", "x", "--run", "nowhere"], "nowhere: holds no finished run, config.json is missing"),
        (["seeds", "--", "--epochs", "-1"], "--epochs: must be above 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capfd, monkeypatch):
    monkeypatch.setattr(step.importlib.util, "find_spec", lambda name: True)
    assert command.main(arguments) == 2
    error = capfd.readouterr().err
    assert message in error and error.count("\n") == (2 if "--" in arguments else 1)  # the child's, and ours


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["step", "--rounds", "0"], "argument --rounds: must be above 0"),
        (["stop"], "invalid choice: 'stop'"),
        (["memory", "--", "--epochs", "1"], "takes no options of minicnn.train"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1


def test_a_missing_pytorch_is_said_how_to_install(capsys, monkeypatch):
    monkeypatch.setattr(step.importlib.util, "find_spec", lambda name: None)
    assert command.main(["step"]) == 2
    assert "pip install torch==2.13.0" in capsys.readouterr().err
