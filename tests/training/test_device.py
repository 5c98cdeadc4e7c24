"""On a device the trainer asks for work and goes on; what the device has made of it is read some steps later."""

from __future__ import annotations

import itertools

import pytest

from minicnn.data import load_pair
from minicnn.train import Trainer
from minicnn.train import trainer as module
from minicnn.train.options import configuration, parser
from tests import device
from tests.cuda.host import cupy_on_host

ON_HOST = pytest.mark.skipif("config.getoption('device') != 'host'", reason="needs --device=host, which it controls")

RECIPES = {
    "sgd": [],
    "sgd, averaged": ["--ema", "0.9"],
    "adam, clipped": ["--optimizer", "adam", "--clip", "0.1", "--polyak"],
    "rmsprop": ["--optimizer", "rmsprop", "--lr", "0.01"],
    "sgd in float16": ["--precision", "fp16"],
    "adam in float16, clipped": ["--precision", "fp16", "--optimizer", "adam", "--clip", "0.1", "--ema", "0.9"],
}


def trainer(data, *arguments: str) -> Trainer:
    sizes = ["tiny", "--data", str(data), "--batch-size", "12", "--augment", "shift:1,flip"]
    return Trainer(configuration(parser().parse_args([*sizes, *arguments])), load_pair(data)[0], on=device.name)


@ON_HOST
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_no_step_makes_the_host_wait(data, recipe, monkeypatch):
    step, forbidden = Trainer.step, []

    def without_waiting(self, images, labels):
        with cupy_on_host.no_synchronising():
            forbidden.append(True)
            return step(self, images, labels)

    monkeypatch.setattr(Trainer, "step", without_waiting)
    assert sum(count for count, _, _ in trainer(data, *recipe).epoch()) == 48
    assert len(forbidden) == 4


@pytest.mark.parametrize("every", [1, 3, 4, 100])
def test_when_figures_are_read_changes_none_of_them(data, every, monkeypatch):
    one, other = trainer(data), trainer(data)
    expected = list(one.epoch())
    monkeypatch.setitem(module.READ_EVERY, device.name, every)
    assert list(other.epoch()) == expected
    assert len(expected) == 4 and all(type(loss) is float and type(right) is int for _, loss, right in expected)


@pytest.mark.parametrize("wrong", [1, 3, 6])
def test_the_first_loss_that_is_none_is_named_by_its_step(data, wrong, monkeypatch):
    ours, forward = trainer(data), Trainer.forward

    def poisoned(self, images, labels):
        loss, logits = forward(self, images, labels)
        return (loss * float("nan") if self.optimiser.steps + 1 >= wrong else loss), logits

    monkeypatch.setattr(Trainer, "forward", poisoned)
    with pytest.raises(module.NotFinite, match=f"^the loss is nan at step {wrong}[:,]"):
        list(itertools.chain(ours.epoch(), ours.epoch()))
