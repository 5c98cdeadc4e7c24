"""The benchmarks' own arithmetic and manners; they are not run here, for a busy machine would make them wrong."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import harness, memory, networks, probe, sides, start, step, tables, training
from minicnn import Tensor, device, interop, models, no_grad
from minicnn.study import chart

PARAMETERS = {  # as published, or exact by the published tables
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "googlenet": 13_378_280,
    "googlenet-without-lrn": 13_378_280,
    "vgg-a": 132_863_336,
    "vgg-16": 138_357_544,
    "vgg-16-batch-32": 138_357_544,
    "vgg-16-bn": 15_253_578,  # with the small head of 32 pixels
    "resnet20": 269_722,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet50": 25_557_032,
    "resnet152": 60_192_808,
    "resnet1202": 19_421_274,
}

RESNET20 = 40_551_040  # multiply-adds for an image, forward


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
    figure = chart.lines({"accuracy": chart.through([(0, 0.1), (1, 0.9)])}, "", "epoch", "")
    paths = tables.write(table(figure=figure), tmp_path)
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
    steering = {name: os.environ[name] for name in harness.STEERING if name in os.environ}
    return {"text": text, "pid": os.getpid(), "omp": os.environ["OMP_NUM_THREADS"], "steering": steering}


def failing_stub(threads: int) -> harness.Record:
    raise MemoryError("no room\nat all")


@pytest.fixture
def importable(monkeypatch):
    """Make this file a module that a child process finds."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    for f in (stub, failing_stub):
        monkeypatch.setattr(f, "__module__", "test_benchmarks")


def test_a_measurement_has_a_process_of_its_own(importable, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.mmap_max=1")
    record = harness.in_process(stub, threads=3, text="ü", variables={})
    assert record["text"] == "ü" and record["omp"] == "3" and record["steering"] == {}
    assert record["pid"] != os.getpid() and 1 < record["peak_mb"] < 10_000
    assert harness.in_process(stub, threads=1, text="", variables=step.KEEP_PAGES)["steering"] == step.KEEP_PAGES


def test_a_measurement_that_fails_is_one_line(importable):
    with pytest.raises(RuntimeError, match=r"failing_stub.*MemoryError: no room at all$") as caught:
        harness.in_process(failing_stub, threads=1)
    assert "\n" not in str(caught.value)
    assert harness.attempt(failing_stub, threads=1) == {"failed": str(caught.value)}


def test_a_measurement_that_takes_too_long_is_stopped_with_what_it_started(tmp_path, monkeypatch):
    (tmp_path / "endless.py").write_text(
        "import pathlib, subprocess, time\n"
        "def endless(threads, pid):\n"
        "    pathlib.Path(pid).write_text(str(subprocess.Popen(['sleep', '600']).pid))\n"
        "    time.sleep(600)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def endless(threads: int, pid: str) -> harness.Record: ...

    endless.__module__, endless.__qualname__ = "endless", "endless"
    record = harness.attempt(endless, threads=1, limit=3, pid=str(tmp_path / "pid"))
    assert record["failed"].endswith("not done after 3 s")
    if not (tmp_path / "pid").exists() or not Path("/proc/self").exists():
        pytest.skip("too busy for the child to start in time, or not Linux")
    status = Path("/proc", (tmp_path / "pid").read_text(), "status")
    deadline = time.monotonic() + 30
    while status.exists() and "(zombie)" not in status.read_text():  # whoever adopts it may be slow to bury it
        assert time.monotonic() < deadline, "what the child started lives"
        time.sleep(0.1)


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


def test_resident_memory_is_below_the_peak():
    now = harness.resident_megabytes()
    assert now is None or 1 < now <= harness.peak_megabytes()


# --- The step command's table ------------------------------------------------------------------------------------


def test_the_summary_of_a_row():
    records = {
        "minicnn": [{"ms": ms, "peak_mb": mb, "multiply_adds": 10**9} for ms, mb in ((40, 90), (50, 50), (90, 40))],
        "installed": [{"ms": ms, "peak_mb": 10} for ms in (200.0, 210.0, 190.0)],
        "tuned": [{"ms": ms, "peak_mb": 60} for ms in (100.0, 100.0, 500.0)],
    }
    row = step.summary(records, gflops=100)
    assert row["installed_ratio"] == 4 and row["tuned_ratio"] == row["best_ratio"] == 2
    assert row["limit_ms"] == pytest.approx(20) and row["share"] == pytest.approx(0.4)
    assert (row["minicnn_mb"], row["installed_mb"], row["tuned_mb"]) == (50, 10, 60)


@pytest.fixture
def stopwatch(monkeypatch):
    """Measure nothing: a dict says how long (ms) which kind of step takes (None, also for a network: it fails).

    With it comes the list of what was measured.
    """
    times, ran = {"minicnn": 100.0, "NCHW": 300.0, "channels_last": 250.0, "compiled": 200.0}, []

    def in_process(f, *, threads, variables=None, limit=None, network="", compiled=False, channels_last=False, **rest):
        if f is probe.peak:
            return {"gflops": 200.0, "peak_mb": 1.0}
        mode = "compiled" if compiled else "channels_last" if channels_last else "NCHW"
        name = "minicnn" if f is step.measure_minicnn else mode
        ran.append((network, rest["task"], name, "tuned" if variables else "installed"))
        assert (limit is not None) == compiled
        if times[name] is None or times.get(network, 0) is None:
            raise RuntimeError(f"{name}: no such luck")
        ms = times[name] * (0.9 if variables else 1)
        return {"ms": ms, "peak_mb": 100.0 if f is step.measure_minicnn else 200.0, "multiply_adds": 10**9}

    monkeypatch.setattr(harness, "in_process", in_process)
    monkeypatch.setattr(harness, "busy_during", lambda rest: 0.25)
    monkeypatch.setattr(step.importlib.util, "find_spec", lambda name: True)
    return times, ran


def test_a_scouting_round_then_the_best_mode_of_each_allocator(stopwatch):
    _, ran = stopwatch
    row = step.measure("resnet20", "training", threads=1, rounds=3, effort=step.QUICK)
    kinds = [(name, allocator) for _, _, name, allocator in ran]
    modes = ["NCHW", "channels_last", "compiled"]
    assert kinds[:6] == [(mode, allocator) for mode in modes for allocator in ("installed", "tuned")]
    contenders = [("minicnn", "installed"), ("compiled", "installed"), ("compiled", "tuned")]
    assert kinds[6:] == contenders + contenders[::-1] + contenders
    assert row["installed_mode"] == row["tuned_mode"] == "channels_last+compiled"
    assert row["installed_ratio"] == 2 and row["tuned_ratio"] == pytest.approx(1.8) and row["busy"] == 0.25
    assert len(row["scouting"]) == 7 and [len(records) for records in row["records"].values()] == [3, 3, 3]


def test_a_mode_that_fails_is_a_note(stopwatch):
    times, _ = stopwatch
    times["compiled"] = None
    table = step.table("training", ["resnet20"], threads=1, rounds=1, effort=step.QUICK)
    assert table.rows[0]["tuned_mode"] == "channels_last" and table.rows[0]["installed_ratio"] == 2.5
    reason = "compiled: no such luck"
    assert f"resnet20: PyTorch's channels_last+compiled, installed is missing: {reason}" in table.notes
    assert json.loads(table.json())["rows"][0]["scouting"]["channels_last+compiled, tuned"]["failed"] == reason


def test_a_network_that_fails_is_a_note_unless_all_do(stopwatch):
    times, _ = stopwatch
    times["resnet56"] = None
    table = step.table("inference", ["resnet56", "resnet20"], threads=1, rounds=1, effort=step.QUICK)
    assert [row["network"] for row in table.rows] == ["resnet20"] and table.name == "inference"
    assert any(note.startswith("resnet56 is missing: ") and "no such luck" in note for note in table.notes)
    with pytest.raises(RuntimeError, match="resnet56 is missing"):
        step.table("inference", ["resnet56"], threads=1, rounds=1, effort=step.QUICK)


def test_both_tables_are_written_with_the_means_of_the_gated_networks(stopwatch, tmp_path, capsys):
    _, ran = stopwatch
    assert command.main(["step", "--quick", "--rounds", "1", "--out", str(tmp_path)]) == 0
    assert sorted(os.listdir(tmp_path)) == ["inference.json", "inference.md", "step.json", "step.md"]
    assert {network for network, *_ in ran} == set(networks.GATED)
    assert {network for network, _, name, _ in ran if name == "compiled"} == set(networks.COMPILED)
    mean = (2 * 2.5) ** 0.5  # half of them are compiled
    for name in ("step", "inference"):
        notes = json.loads((tmp_path / f"{name}.json").read_text())["notes"]
        assert notes[0].startswith(f"PyTorch as installed ÷ minicnn: geometric mean {mean:.2f} over resnet18, ")
        assert notes[0].endswith("lowest 2.00 (resnet18).")
        assert f"geometric mean {0.9 * mean:.2f}" in notes[1] and f"geometric mean {0.9 * mean:.2f}" in notes[2]


def test_there_is_no_mean_unless_all_gated_networks_were_measured(stopwatch):
    assert (
        step.table("training", ["resnet18", "resnet34"], threads=1, rounds=1, effort=step.QUICK)
        .notes[0]
        .startswith("A step")
    )


def test_memory_above_pytorchs_is_said():
    row = {"network": "a", "minicnn_mb": 3.0, "installed_mb": 4.0, "tuned_mb": 5.0}
    assert "more than PyTorch in no row" in next(step.memory([row]))
    assert "more than PyTorch in b." in next(step.memory([row, {**row, "network": "b", "installed_mb": 2.0}]))


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


@pytest.mark.parametrize("channels_last", [False, True])
def test_pytorchs_inference_is_folded_and_computes_the_same(channels_last, torch):
    network = networks.Network("resnet20", batch=2, side=32)
    model, images = sides.torch_model(network, torch.get_num_threads(), channels_last)
    with torch.no_grad():
        expected = model.eval()(images).sum().item()
    infer = sides.torch_inference(network, torch.get_num_threads(), channels_last=channels_last)
    assert infer() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", step.DEFAULT)
def test_pytorchs_folding_takes_every_network(name, torch):
    from torch.fx.experimental import optimization

    from benchmarks import torch_networks

    network = networks.NETWORKS[name]
    variant = network.variant if network.lrn else {"lrn": False}
    with torch.device("meta"):
        model = torch_networks.build(network.model, network.classes, network.side, **variant).eval()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in optimization.fuse(model).modules())


def test_minicnns_inference_computes_the_same():
    network = networks.Network("resnet20", batch=2, side=32)
    model = sides.minicnn_model(network, device.threads()).eval()
    expected = model(Tensor(sides.batch(network)[0])).numpy().sum()
    infer = sides.minicnn_inference(network, device.threads())
    assert infer() == pytest.approx(expected, rel=1e-4)
    assert probe.multiply_adds(infer) == 2 * RESNET20


def test_multiply_adds_of_a_step():
    network = networks.Network("resnet20", batch=1, side=32)
    stem = 32 * 32 * 27 * 16
    assert probe.multiply_adds(sides.minicnn_step(network, threads=1)) == 3 * RESNET20 - stem


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
        (["memory", "--long", "resnet2"], "unknown network 'resnet2': did you mean resnet20"),
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
        (["step", "--only", "train"], "argument --only: invalid choice: 'train'"),
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
