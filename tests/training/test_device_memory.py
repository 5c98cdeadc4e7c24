"""Out of a GPU's memory: one line with the memory's state and a batch size; the GPU is made up here."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from minicnn.train.trainer import Trainer

pytestmark = pytest.mark.cpu_only("makes up a GPU")

GB = 10**9
HELD = 2 * GB  # by the pool, when the step fails


class OutOfMemoryError(MemoryError):
    """As CuPy has it, by name and kind."""


class CUDARuntimeError(RuntimeError):
    """As CuPy has it, by name and kind."""


OutOfMemoryError.__module__, CUDARuntimeError.__module__ = "cupy.cuda.memory", "cupy_backends.cuda.api.runtime"


class Card:
    """16 GB, of which other programs take 1: weights take 1, and a step on four images 2 more."""

    def __init__(self) -> None:
        self.held = HELD
        self.released = False

    def total_bytes(self) -> int:
        return self.held

    def used_bytes(self) -> int:
        return 1 * GB if self.released else HELD

    def free_all_blocks(self) -> None:
        self.released, self.held = True, 1 * GB

    def memory(self) -> tuple[int, int]:
        return 15 * GB - self.held, 16 * GB


@pytest.fixture
def card(monkeypatch):
    """A trainer's steps fail on this card; compiling, on few images, takes memory of it."""
    card = Card()
    module = ModuleType("cupy")
    module.get_default_memory_pool = lambda: card
    module.cuda = SimpleNamespace(runtime=SimpleNamespace(memGetInfo=card.memory))
    monkeypatch.setitem(sys.modules, "cupy", module)
    compiled = Trainer.compile

    def compile(trainer):
        card.held += 2 * GB
        return compiled(trainer)

    monkeypatch.setattr(Trainer, "compile", compile)
    return card


def failing(monkeypatch, error):
    def step(*_):
        raise error

    monkeypatch.setattr(Trainer, "step", step)


def line(capsys) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error.strip()


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("Out of memory allocating 9,000,000,000 bytes"),
        CUDARuntimeError("cudaErrorMemoryAllocation: out of memory"),
    ],
)
def test_the_batch_that_fits(monkeypatch, capsys, tmp_path, train, card, error):
    failing(monkeypatch, error)
    assert train("--device", "cpu", "--out", tmp_path / "run", "--batch-size", 39) == 2
    # 14 GB can be had beside the weights, nine tenths of them are counted on, and four images take 2
    assert line(capsys) == (
        "out of device memory: of the card's 16.0 GB, CuPy's pool holds 4.0 (2.0 in arrays), and 11.0 are free; "
        "--batch-size 25 would fit instead of 39 (estimated from a step on 4 images, which takes 2.00 GB)"
    )


def test_never_the_batch_that_has_just_failed(monkeypatch, capsys, tmp_path, train, card):
    failing(monkeypatch, OutOfMemoryError("…"))
    assert train("--device", "cpu", "--out", tmp_path / "run", "--batch-size", 10) == 2
    assert "--batch-size 9 would fit instead of 10" in line(capsys)


def test_when_not_even_a_few_images_fit(monkeypatch, capsys, tmp_path, train, card):
    def compile(_):
        raise OutOfMemoryError("…")

    monkeypatch.setattr(Trainer, "compile", compile)
    assert train("--device", "cpu", "--out", tmp_path / "run") == 2
    assert line(capsys).endswith(
        "; a step on 4 images does not fit: choose a smaller --image-size or network, "
        "or free the card of other programs"
    )


def test_other_errors_stay_what_they_are(monkeypatch, capsys, tmp_path, train, card):
    for error, expected in (
        (MemoryError("Unable to allocate"), "out of memory (Unable to allocate)"),
        (CUDARuntimeError("cudaErrorIllegalAddress"), "cudaErrorIllegalAddress"),
    ):
        failing(monkeypatch, error)
        assert train("--device", "cpu", "--out", tmp_path / "run", "--overwrite") == 2
        assert line(capsys).startswith(expected)
