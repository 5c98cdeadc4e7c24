"""Mixed precision: float16 follows float32, an overflow skips a step and is counted, and a resumed run is the same."""

from __future__ import annotations

from types import SimpleNamespace

import numpy
import pytest

import minicnn
from kernels.cuda import gemm
from minicnn import checkpoint
from minicnn.data import load_pair
from minicnn.train import Trainer
from minicnn.train import trainer as module
from minicnn.train.options import configuration, parser
from minicnn.train.precision import LossScale
from tests import device
from tests.device import np
from tests.training.folders import metrics, result, same_run

on_device = pytest.mark.skipif("config.getoption('device') == 'cpu'", reason="the CPU computes in float32")


def trainer(data, *arguments: str, model: str = "tiny") -> Trainer:
    sizes = [model, "--data", str(data), "--batch-size", "12", "--augment", "none", "--schedule", "constant"]
    config = configuration(parser().parse_args([*sizes, *arguments]))
    return Trainer(config, load_pair(data, image_size=config["image_size"])[0], on=device.name)


# ---- The loss scale -------------------------------------------------------------------------------------------------


def gradients(*values: float) -> list:
    return [np.full((3, 5), value, numpy.float16) for value in values]


def test_a_factor_undoes_the_scale():
    scale = LossScale(np)
    assert float(scale.factor(gradients(1, -2))) == 2**-16
    assert (float(scale.value), int(scale.good), int(scale.skipped)) == (2**16, 1, 0)


def test_a_factor_clips_the_unscaled_gradients_to_a_norm():
    scale, norm = LossScale(np), (15 * 5) ** 0.5 / 2**16  # 1² + 2², 15 times
    assert float(scale.factor(gradients(1, -2), 0.5 * norm)) == pytest.approx(0.5 / 2**16)
    assert float(scale.factor(gradients(1, -2), 2 * norm)) == 2**-16


@pytest.mark.parametrize("bad", [numpy.inf, -numpy.inf, numpy.nan])
@pytest.mark.parametrize("max_norm", [0.0, 1.0])
def test_one_gradient_that_is_none_skips_the_step_and_halves_the_scale(bad, max_norm):
    scale = LossScale(np)
    spoilt = gradients(1, 1)
    spoilt[1][2, 4] = bad
    assert float(scale.factor(spoilt, max_norm)) == 0
    assert (float(scale.value), int(scale.good), int(scale.skipped)) == (2**15, 0, 1)
    assert float(scale.factor(gradients(1, 1))) == 2**-15


def test_good_steps_in_succession_double_the_scale(monkeypatch):
    monkeypatch.setattr(LossScale, "PATIENCE", 3)
    scale, values = LossScale(np), []
    for value in (1, 1, numpy.inf, 1, 1, 1, 1):
        scale.factor(gradients(value))
        values.append(float(scale.value))
    assert values == [2**16, 2**16, 2**15, 2**15, 2**15, 2**16, 2**16]


def test_a_saved_scale_goes_on():
    one, other = LossScale(np), LossScale(np)
    for value in (1, numpy.inf, 1):
        one.factor(gradients(value))
    other.load_state_dict({name: device.host(a) for name, a in one.state_dict().items()})
    assert device.host(list(other.state_dict().values())) == [2**15, 1, 1]
    with pytest.raises(ValueError, match="no loss scale"):
        other.load_state_dict({})


# ---- Training -------------------------------------------------------------------------------------------------------


@on_device
@pytest.mark.parametrize(
    ("model", "steps", "options"),
    [
        ("resnet20", 4, ["--image-size", "16", "--lr", "0.005"]),
        ("googlenet", 2, ["--image-size", "28", "--lr", "0.0001", "--batch-size", "4"]),
    ],
)
def test_float16_follows_float32(data, monkeypatch, model, steps, options):
    """A half has 11 bits, so a rounding is off by 2⁻¹³ on average, and those of twenty layers, two apiece and
    independent, by √40 · 2⁻¹³ = 0.0008: of a loss of 3 that is 0.0024. As the loss falls the difference may double with
    each step, as the weights then differ too.
    """
    monkeypatch.setattr(LossScale, "FIRST", 2.0**10)  # no step is skipped
    losses = []
    for precision in ("fp32", "fp16"):
        ours = trainer(data, *options, "--precision", precision, model=model)
        losses.append([float(ours.step(*batch).loss) for _, batch in zip(range(steps), ours.feed, strict=False)])
    expected, half = losses
    differences = [abs(a - b) for a, b in zip(half, expected, strict=True)]
    assert all(difference < 0.0024 * 2**step for step, difference in enumerate(differences))
    assert half[0] != expected[0] and abs(expected[0] - expected[-1]) > 0.1  # there is something to follow
    assert ours.precision.figures() == {"loss_scale": 2**10, "skipped_steps": 0}


@on_device
def test_compiling_leaves_no_trace(data):
    ours = trainer(data, "--precision", "fp16", "--ema", "0.9")
    before = {name: a.copy() for name, a in ours.saved().items()}
    ours.compile()
    assert all(np.array_equal(a, before[name]) for name, a in ours.saved().items())
    assert {"precision/scale", "precision/good", "precision/skipped"} < set(before)


@on_device
def test_what_is_half_and_what_is_not(data):
    ours, seen = trainer(data, "--precision", "fp16"), {}
    images, labels = next(iter(ours.feed))
    assert images.dtype == numpy.float16
    with ours.precision.working():
        seen = {name: p.data.dtype.name for name, p in ours.model.named_parameters()}
    halves = {name for name, dtype in seen.items() if dtype == "float16"}
    assert halves == {"conv1.weight", "fc.weight", "fc.bias"} and set(seen) - halves == {"bn1.weight", "bn1.bias"}
    ours.step(images, labels)
    assert {a.dtype.name for name, a in ours.model.state_dict().items()} == {"float32"}
    assert {name: p.grad.dtype.name for name, p in ours.model.named_parameters()} == seen


@on_device
def test_a_step_smaller_than_the_last_bit_of_a_half_is_not_lost(data):
    ours = trainer(data, "--precision", "fp16", "--lr", "1e-6", "--momentum", "0", "--no-nesterov")
    before = ours.model.conv1.weight.data.copy()
    list(ours.epoch())
    change = abs(ours.model.conv1.weight.data - before)
    assert float(change.max()) > 0
    assert np.array_equal(ours.model.conv1.weight.data.astype(numpy.float16), before.astype(numpy.float16))


@on_device
def test_an_overflow_skips_the_step_and_is_counted(data):
    ours = trainer(data, "--precision", "fp16", "--optimizer", "adamw", "--lr", "0.01")
    ours.precision.scale.value[...] = 2.0**22  # of which a twelfth is no half
    batch = next(iter(ours.feed))
    names = [name for name, _ in ours.model.named_parameters()]
    before = {name: a.copy() for name, a in ours.saved().items()}
    skipped = 0
    while int(ours.precision.scale.skipped) == skipped:  # until a step is taken
        same = {name: np.array_equal(a, before[name]) for name, a in ours.saved().items()}
        assert all(same[name] for name in names) and all(same[n] for n in same if n.endswith((".m", ".v")))
        ours.step(*batch)
        skipped += 1
    assert ours.precision.figures() == {"loss_scale": 2.0 ** (22 - (skipped - 1)), "skipped_steps": skipped - 1}
    assert 3 <= skipped - 1 <= 8
    assert not np.array_equal(ours.model.conv1.weight.data, before["conv1.weight"])


@on_device
def test_gradients_that_overflow_at_any_scale_end_training(data, monkeypatch):
    monkeypatch.setattr(LossScale, "LEAST", 2.0**22)
    ours = trainer(data, "--precision", "fp16")
    with pytest.raises(module.NotFinite, match=r"after step 4 gradients are NaN or Inf even of a loss scaled by 4.19"):
        list(ours.epoch())


@on_device
@pytest.mark.parametrize("recipe", [[], ["--optimizer", "adam", "--lr", "0.01", "--clip", "1", "--ema", "0.9"]])
def test_resumed_is_as_never_stopped(train, tmp_path, monkeypatch, recipe):
    monkeypatch.setattr(LossScale, "FIRST", 2.0**20)
    monkeypatch.setattr(LossScale, "PATIENCE", 5)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    fp16 = ("--precision", "fp16", "--schedule", "constant", *recipe)
    assert train("--out", whole, *fp16) == 0
    assert train("--out", stopped, *fp16, "--epochs", 1) == 0
    assert train("--out", stopped, "--resume", *fp16) == 0
    assert same_run(whole, stopped)
    rows = metrics(whole)
    assert int(rows[0]["skipped_steps"]) > 0 and float(rows[-1]["loss_scale"]) < 2**20
    assert result(whole)["skipped_steps"] == int(rows[-1]["skipped_steps"])
    arrays, _ = checkpoint.read(whole / "last.safetensors")
    assert {name for name in arrays if name.startswith("precision/")} == {
        "precision/scale",
        "precision/good",
        "precision/skipped",
    }
    assert arrays["precision/scale"] == float(rows[-1]["loss_scale"])


def test_float32_tells_nothing_of_a_scale(train, tmp_path):
    assert train("--out", tmp_path / "run", "--epochs", 1) == 0
    assert "loss_scale" not in metrics(tmp_path / "run")[0] and "skipped_steps" not in result(tmp_path / "run")


# ---- TF32 -----------------------------------------------------------------------------------------------------------


@on_device
def test_tf32_is_switched_for_products_of_float32_alone(data):
    import cupy
    from cupy._core import _routines_linalg as linalg

    for precision, expected in (("tf32", linalg.COMPUTE_TYPE_TF32), ("fp32", linalg.COMPUTE_TYPE_DEFAULT)):
        trainer(data, "--precision", precision)
        assert cupy._core.get_compute_type(numpy.float32) == expected
        assert cupy._core.get_compute_type(numpy.float64) == linalg.COMPUTE_TYPE_DEFAULT


@on_device
def test_tf32_is_asked_of_cublas_for_float32_alone(monkeypatch):
    import cupy
    from cupy_backends.cuda.libs import cublas

    monkeypatch.setattr(cupy.cuda.runtime, "is_hip", False)
    for on, expected in ((True, cublas.CUBLAS_COMPUTE_32F_FAST_TF32), (False, cublas.CUBLAS_COMPUTE_32F)):
        minicnn.device.use_tf32(on)
        assert gemm._compute_type(np.dtype(numpy.float32)) == expected
        assert gemm._compute_type(np.dtype(numpy.float16)) == cublas.CUBLAS_COMPUTE_32F


@on_device
def test_a_card_without_tf32(train, tmp_path, monkeypatch, capsys):
    import cupy

    monkeypatch.setattr(cupy.cuda, "Device", lambda: SimpleNamespace(compute_capability="75"))
    assert train("--precision", "tf32", "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert error == "TF32 needs a card of compute capability 8.0 or later, this one has 7.5; use fp32 or fp16\n"
