"""Schedules against their closed forms, read from the texts of the command line."""

from __future__ import annotations

import json
import math

import pytest

from minicnn import schedules
from minicnn.schedules import Plateau, parse


@pytest.mark.parametrize(
    ("text", "factors"),  # of a run of 10 epochs, by epochs done
    [
        ("constant", {0: 1, 9.9: 1}),
        ("step:3", {0: 1, 2.99: 1, 3: 0.1, 5.9: 0.1, 6: 0.01}),
        ("step:4:0.5", {3.9: 1, 4: 0.5, 8: 0.25}),
        ("multistep:5,7.5", {4.9: 1, 5: 0.1, 7.4: 0.1, 7.5: 0.01, 9: 0.01}),
        ("multistep:2:0.3", {1: 1, 2: 0.3, 9: 0.3}),
        ("polynomial", {0: 1, 5: 0.5, 10: 0, 11: 0}),
        ("polynomial:0.5", {0: 1, 7.5: 0.5}),
        ("exponential:0.96:8", {0: 1, 7.9: 1, 8: 0.96, 16: 0.96**2}),
        ("exponential:0.9", {0.9: 1, 1: 0.9, 3.5: 0.9**3}),
        ("cosine", {0: 1, 5: 0.5, 2.5: 0.5 + math.sqrt(0.125), 10: 0, 12: 0}),
        ("one-cycle", {0: 0.001, 1.5: 0.5, 3: 1, 6.5: 0.5, 10: 0}),
        ("one-cycle:0.5:0.2", {2.5: 0.5, 5: 1, 7.5: 0.6, 10: 0.2}),
        ("one-cycle:0", {0: 1, 5: 0.5}),
        ("plateau", {0: 1, 9: 1}),
        ("warmup:2+constant", {0: 0.001, 1: 0.5, 2: 1, 5: 1}),
        ("warmup:2", {1: 0.5, 2: 1}),
        ("warmup:4+step:2:0.5", {1: 0.25, 2: 0.25, 4: 0.25}),
    ],
)
def test_closed_form(text, factors):
    schedule = parse(text, epochs=10)
    assert {epoch: schedule(epoch) for epoch in factors} == pytest.approx(factors, abs=1e-12)


def test_plateau_falls_when_the_loss_has_not_improved_for_longer_than_its_patience():
    schedule = parse("plateau:2:0.5", epochs=10)
    factors = []
    for loss in [3, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]:
        schedule.observe(loss)
        factors.append(schedule(0))
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_plateau_goes_on_from_a_saved_state_under_a_warm_up():
    losses = [3, 2, 2, 2, 2, 2, 2, 2]
    whole, first = parse("warmup:1+plateau:1:0.5", epochs=10), parse("warmup:1+plateau:1:0.5", epochs=10)
    for loss in losses:
        whole.observe(loss)
    for loss in losses[:3]:
        first.observe(loss)
    second = parse("warmup:1+plateau:1:0.5", epochs=10)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for loss in losses[3:]:
        second.observe(loss)
    assert second(5) == whole(5) == 0.125
    assert second.state_dict() == whole.state_dict()


def test_a_fresh_plateau_can_be_saved():
    state = json.loads(json.dumps(Plateau().state_dict()))
    restored = Plateau()
    restored.load_state_dict(state)
    assert restored.best == math.inf


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosin", "unknown schedule 'cosin': did you mean cosine?"),
        ("zigzag", f"unknown schedule 'zigzag': choose from {', '.join(schedules.FORMS)}"),
        ("step", r"schedule 'step': must have the form step:EPOCHS[:FACTOR]"),
        ("step:0", r"schedule 'step:0': must have the form step:EPOCHS[:FACTOR]"),
        ("step:x", r"schedule 'step:x': must have the form step:EPOCHS[:FACTOR]"),
        ("cosine:3", "schedule 'cosine:3': must have the form cosine"),
        ("multistep:", "schedule 'multistep:': must have the form multistep:EPOCH,EPOCH…[:FACTOR]"),
        ("one-cycle:1", "schedule 'one-cycle:1': must have the form one-cycle[:WARM[:FINAL]]"),
        ("exponential:0.9:nan", "schedule 'exponential:0.9:nan': must have the form exponential:FACTOR[:EPOCHS]"),
        ("warmup:x+cosine", "schedule 'warmup:x+cosine': must have the form warmup:EPOCHS[+SCHEDULE]"),
        ("warmup:0+cosine", "schedule 'warmup:0+cosine': must have the form warmup:EPOCHS[+SCHEDULE]"),
        ("warmup:1+cosin", "unknown schedule 'cosin': did you mean cosine?"),
        ("polynomial:-1", "schedule 'polynomial:-1': must have the form polynomial[:POWER]"),
        ("step:30:-1", "schedule 'step:30:-1': must have the form step:EPOCHS[:FACTOR]"),
        ("plateau:-1", "schedule 'plateau:-1': must have the form plateau[:PATIENCE[:FACTOR]]"),
        ("exponential:inf", "schedule 'exponential:inf': must have the form exponential:FACTOR[:EPOCHS]"),
        ("", f"unknown schedule '': choose from {', '.join(schedules.FORMS)}"),
    ],
)
def test_errors(text, message):
    with pytest.raises(ValueError) as raised:
        parse(text, epochs=10)
    assert str(raised.value) == message
