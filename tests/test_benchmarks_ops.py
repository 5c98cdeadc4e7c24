"""The benchmarks of kernels, scaling and accuracy: both sides compute the same, and the tables add up."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import accuracy, exact_training, gradients, harness, kernel_cases, minicnn_kernels, ops, probe, scaling
from benchmarks.kernel_cases import CASES, GROUPS, Case
from benchmarks.networks import Network
from kernels.cpu.machine import VECTOR
from minicnn import models

WAYS = {ops.WINOGRAD, ops.DIRECT} if VECTOR != "plain" else {ops.DIRECT}  # of a 3×3 convolution of many channels
SMALL = [
    *kernel_cases.convolution("", 2, 9, 5, 4, 3, 2),
    *kernel_cases.convolution("", 2, 8, 3, 6, 1),
    *kernel_cases.fully_connected("", 3, 5, 4),
    *kernel_cases.normalisation(2, 5, 4, residual=False),
    *kernel_cases.normalisation(2, 5, 4, residual=True),
    *kernel_cases.elementwise("lrn", 2, 3, 3, 8, **kernel_cases.LRN),
    *kernel_cases.pooling("max_pool", 2, 7, 4, 3, 2, 1),
    *kernel_cases.pooling("avg_pool", 2, 8, 4, 5, 3),
    *kernel_cases.elementwise("relu", 2, 3, 3, 4),
    *kernel_cases.joining(2, 3, 4, 5),
    *kernel_cases.loss(4, 7),
]


def small(kernel: str) -> Case:
    return next(case for case in SMALL if case.kernel == kernel)


# --- What is measured --------------------------------------------------------------------------------------------


def test_every_case_has_a_name_of_its_own():
    assert len(CASES) == sum(len(cases) for cases in GROUPS.values())
    assert {case.kernel for case in CASES.values()} == {case.kernel for case in SMALL} | {
        "dropout",
        "dropout_grad",
        "sgd_step",
    }


def test_what_a_convolution_has_to_do():
    forward, *gradients = kernel_cases.convolution("3×3/2", 2, 9, 5, 4, 3, stride=2)
    assert forward.operands == ((2, 9, 9, 5), (3, 3, 5, 4))
    assert forward.multiply_adds == 2 * 5 * 5 * 4 * 45
    assert forward.moved == 4 * (2 * 81 * 5 + 9 * 20 + 2 * 25 * 4)
    assert all(case.moved == forward.moved and case.multiply_adds == forward.multiply_adds for case in gradients)


def test_operands_take_turns_so_that_caches_do_not_help(monkeypatch):
    monkeypatch.setattr(kernel_cases, "COLD", 10_000)
    case = Case("relu", "", ((1000,),), {}, 8000)
    copies = case.cold_arrays()
    assert len(copies) == 3 and len({array.ctypes.data for (array,) in copies}) == 3
    assert all((array == copies[0][0]).all() for (array,) in copies)
    assert len(dataclasses.replace(case, operands=((1,),)).cold_arrays()) == kernel_cases.MOST_COPIES
    assert len(dataclasses.replace(case, operands=()).cold_arrays()) == 2  # by what it moves


@pytest.mark.parametrize("case", SMALL, ids=lambda case: f"{case.kernel}-{case.operands[0]}")
def test_both_sides_compute_the_same(case):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_kernels

    arrays = accuracy.operands(case) if accuracy.is_measured(case) else case.arrays()
    ours = accuracy.as_list(minicnn_kernels.prepare(case.kernel, arrays, case.options)())
    for layout in torch_kernels.LAYOUTS.values():
        with torch.no_grad():
            results = torch_kernels.prepare(case.kernel, arrays, case.options, layout)()
        theirs = torch_kernels.results(case.kernel, results)
        if case.kernel == "max_pool":  # each has a way of its own to say which element won
            ours, theirs = ours[:1], theirs[:1]
        for mine, other in zip(ours, theirs, strict=case.kernel != "cross_entropy"):
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


def test_the_others_run_on_both_sides():
    pytest.importorskip("torch")
    from benchmarks import torch_kernels

    x = np.ones((4, 100), np.float32)
    for prepare in (minicnn_kernels.prepare, lambda *what: torch_kernels.prepare(*what, torch_kernels.LAYOUTS["NCHW"])):
        dropped = np.asarray(prepare("dropout", (x,), {"p": 0.5})())
        assert set(np.unique(dropped)) == {0, 2}
        prepare("dropout_grad", (x,), {"p": 0.5})()
        prepare("sgd_step", (), {"network": "resnet20"})()


def test_winograd_is_recognised_by_its_rounding():
    def convolve(c: int) -> minicnn_kernels.Call:
        forward, *_ = kernel_cases.convolution("", 8, 16, c, c, 3)
        return minicnn_kernels.prepare("conv2d", forward.arrays(), forward.options)

    assert minicnn_kernels.takes_winograd(convolve(64)) == (VECTOR != "plain")
    assert not minicnn_kernels.takes_winograd(convolve(3))


# --- Kernels -----------------------------------------------------------------------------------------------------


def test_bandwidth_is_measured():
    rates = probe.bandwidth(threads=2, megabytes=6, repeats=1)
    assert rates["gb_s"] == max(rates[name] for name in ("read", "copy", "triad", "in_place")) > 0.1


def records(case: Case, ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> dict:
    def side(times: dict[str, list[float]]) -> list:
        return [{"ms": {case.name: dict(zip(times, ms, strict=True))}} for ms in zip(*times.values(), strict=True)]

    return {"minicnn": side(ours), "PyTorch": side(theirs)} if theirs else {"minicnn": side(ours)}


def test_a_row_for_each_way_beside_the_faster_layout():
    case = Case("conv2d", "a", (), {}, moved=10**6, multiply_adds=10**9)
    times = records(
        case,
        {"Winograd": [5.0, 4.0, 6.0], "direct": [20.0, 20.0, 25.0]},
        {"NCHW": [30.0, 30.0, 30.0], "channels_last": [15.0, 10.0, 10.0]},
    )
    winograd, direct = ops.rows_of(case, times, {"gflops": 200.0, "gb_s": 40.0})
    assert winograd["minicnn"] == {"median": 5, "low": 4, "high": 6} and winograd["rate"] == 400
    assert winograd["layout"] == "channels_last" and winograd["torch_rate"] == 200 and winograd["ratio"] == 2
    assert winograd["limit_ms"] == 10 and winograd["share"] == 2 and direct["share"] == 0.5
    notes = list(ops.summary([winograd, direct]))
    assert "2.00 over 1 rows" in notes[0] and "lowest 0.50 (conv2d a), 1 below 0.92" in notes[1]


def test_memory_is_the_limit_of_a_kernel_without_products():
    case = Case("relu", "a", (), {}, moved=8 * 10**6)
    [row] = ops.rows_of(case, records(case, {"": [1.0]}, {}), {"gflops": 200.0, "gb_s": 40.0})
    assert row["limit_ms"] == pytest.approx(0.2) and row["share"] == pytest.approx(0.2) and row["unit"] == "GB/s"
    assert row["torch"] is row["ratio"] is row["torch_rate"] is row["layout"] is None
    assert list(ops.summary([row])) == []


def test_rows_are_selected():
    found = ops.selected("^conv2d_weight_grad .*512→512 @(7|28)")
    assert [case.layer for cases in found.values() for case in cases] == ["3×3 512→512 @7", "3×3 512→512 @28"]


def test_kernels_are_timed_in_a_child():
    names = ["linear 128 × 64→10", "conv2d 3×3 64→64 @8"]
    record = harness.in_process(ops.measure_minicnn, threads=1, cases=names, seconds=1e-3)
    assert list(record["ms"]) == names and set(record["ms"][names[1]]) == WAYS
    assert record["ms"][names[0]][""] > 0


# --- Scaling -----------------------------------------------------------------------------------------------------


def test_exponents():
    assert scaling.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert scaling.exponent([1, 2], [10, 5]) == pytest.approx(-1)


def test_each_axis_varies_one_thing():
    assert [point.threads for point in scaling.axis("threads", 6)] == [1, 2, 4, 6]
    assert [point.threads for point in scaling.axis("threads", 1)] == [1]
    for name in scaling.NAMES:
        points = scaling.axis(name, 4)
        varied = [(*dataclasses.astuple(point.network)[:3], point.threads) for point in points]
        assert sum(len(set(column)) > 1 for column in zip(*varied, strict=True)) == 1
        assert [point.value for point in points] == sorted({point.value for point in points})
        assert all(models.defaults(point.network.model) for point in points)


# --- Accuracy ----------------------------------------------------------------------------------------------------


def test_errors_are_shares_of_the_largest_value():
    exact = [np.array([10.0, 1.0]), np.array([0.5])]
    assert accuracy.error([np.array([10.0, 1.1]), np.array([0.5])], exact) == pytest.approx(0.01)
    assert accuracy.error([np.array([10.0, 1.0]), np.array([0.4])], exact) == pytest.approx(0.2)


def test_errors_of_every_kernel_are_those_of_float32():
    for case in filter(accuracy.is_measured, SMALL):
        found = accuracy.errors(case, threads=1)
        assert all(0 <= error < 1e-5 for error in found.values()), (case, found)
    *_, case = kernel_cases.convolution("", 8, 16, 64, 64, 3)
    found = accuracy.errors(case, threads=1)
    assert {"direct", "Winograd"} & set(found) == WAYS
    assert 0 < found["direct"] <= found.get("Winograd", 1) and all(error < 5e-5 for error in found.values())


def test_a_row_of_errors():
    case = small("conv2d")
    row = accuracy.row_of(case, {"direct": 2e-6, "NCHW": 4e-6, "channels_last": 1e-6})
    assert row["PyTorch"] == 1e-6 and row["ratio"] == 2 and row["Winograd"] is None
    assert accuracy.row_of(case, {"direct": 2e-6})["ratio"] is None
    assert accuracy.summary([row]) == ["Worst, direct: 2.00 times PyTorch's (conv2d )."]


def test_gradients_of_a_network_in_every_way():
    network = Network("resnet20", batch=2, side=32)
    found = gradients.measure(1, dataclasses.asdict(network), weights=0)
    assert {"Winograd", "direct"} <= set(found)
    for errors in found.values():
        assert len(errors["convolutions"]) == 21 - 2 and 0 < max(errors["convolutions"]) < 0.1
        assert math.isfinite(sum(errors["parameters"])) and errors["loss"] < 1e-5


def test_the_mean_curve_of_several_seeds():
    rows = [{"metrics": [{"epoch": 1, "train_loss": loss}, {"epoch": 2, "train_loss": 0.0}]} for loss in (1.0, 2.0)]
    assert exact_training.mean_loss(rows) == [(1, 1.5), (2, 0)]


# --- The command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ops", "--only", "alexnet"], "--only 'alexnet': no row has such a name; one is 'conv2d 7×7/2 3→64 @224'"),
        (["ops", "--only", "("], "--only '(': not a regular expression"),
        (["accuracy", "--only", "alexnet"], "--only 'alexnet': no row has such a name"),
        (["accuracy", "--data", "cifar10"], "accuracy: --data, and options of minicnn.train after --, need --train"),
        (["scaling", "--axes", "batch,width"], "unknown axis 'width': choose from batch, side, depth"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
