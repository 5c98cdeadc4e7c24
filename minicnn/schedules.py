"""Learning-rate schedules: a factor on the base rate, as a function of training's progress in epochs.

A schedule is called with the epochs done so far, fractions included, before every step. `observe` tells it of a
validation loss after each epoch; only Plateau listens. `parse` makes one from a text such as "warmup:1+cosine".
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable


class Schedule:
    """The constant schedule, and what all others have: `state_dict` holds what is not a function of the progress."""

    def __call__(self, epoch: float) -> float:
        return 1.0

    def observe(self, loss: float) -> None:
        """Hear the validation loss of the epoch that has just ended."""

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        pass


class MultiStep(Schedule):
    """Multiply by `factor` at each of the epochs in `milestones`."""

    def __init__(self, milestones: list[float], factor: float = 0.1):
        self.milestones, self.factor = sorted(milestones), factor

    def __call__(self, epoch: float) -> float:
        return self.factor ** sum(epoch >= milestone for milestone in self.milestones)


class Exponential(Schedule):
    """Multiply by `factor` every `every` epochs: GoogLeNet's −4 % every 8 epochs is Exponential(0.96, 8)."""

    def __init__(self, factor: float, every: float = 1.0):
        if not every > 0:
            raise ValueError(f"Exponential: every must be above 0 epochs, got {every}")
        self.factor, self.every = factor, every

    def __call__(self, epoch: float) -> float:
        return self.factor ** math.floor(epoch / self.every)


class Polynomial(Schedule):
    """(1 − progress)^power, down to 0 at the last epoch."""

    def __init__(self, epochs: float, power: float = 1.0):
        self.epochs, self.power = epochs, power

    def __call__(self, epoch: float) -> float:
        return max(0.0, 1 - epoch / self.epochs) ** self.power


class Cosine(Schedule):
    """Half a cosine from 1 to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts)."""

    def __init__(self, epochs: float):
        self.epochs = epochs

    def __call__(self, epoch: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(1.0, epoch / self.epochs)))


class OneCycle(Schedule):
    """Up to 1 in a straight line over the first `warm` of the epochs, down to `final` along a cosine over the rest.

    Source: Smith and Topin 2018 (arXiv:1708.07120).
    """

    def __init__(self, epochs: float, warm: float = 0.3, final: float = 0.0):
        if not 0 <= warm < 1:
            raise ValueError(f"OneCycle: warm is a share of the epochs below 1, got {warm}")
        self.epochs, self.warm, self.final = epochs, warm, final

    def __call__(self, epoch: float) -> float:
        progress = min(1.0, epoch / self.epochs)
        if progress < self.warm:
            return max(progress / self.warm, 1e-3)
        down = 0.5 * (1 + math.cos(math.pi * (progress - self.warm) / (1 - self.warm)))
        return self.final + (1 - self.final) * down


class Plateau(Schedule):
    """Multiply by `factor` when the validation loss has not improved for more than `patience` epochs."""

    def __init__(self, patience: int = 5, factor: float = 0.1):
        self.patience, self.factor = patience, factor
        self.scale, self.best, self.waited = 1.0, math.inf, 0

    def __call__(self, epoch: float) -> float:
        return self.scale

    def observe(self, loss: float) -> None:
        if loss < self.best * (1 - 1e-4):
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.scale, self.waited = self.scale * self.factor, 0

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.scale, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale, self.best, self.waited = state["scale"], state["best"], int(state["waited"])


class Warmup(Schedule):
    """Rise from near 0 to 1 over the first `epochs`, on top of another schedule."""

    def __init__(self, epochs: float, then: Schedule):
        if not epochs > 0:
            raise ValueError(f"Warmup: must last more than 0 epochs, got {epochs}")
        self.epochs, self.then = epochs, then

    def __call__(self, epoch: float) -> float:
        return self.then(epoch) * min(1.0, max(epoch / self.epochs, 1e-3))

    def observe(self, loss: float) -> None:
        self.then.observe(loss)

    def state_dict(self) -> dict[str, float]:
        return self.then.state_dict()

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.then.load_state_dict(state)


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(f"must be a number of at least 0, got {text}")
    return value


_FORMS: dict[str, tuple[str, Callable[..., Schedule]]] = {
    "constant": ("constant", lambda epochs: Schedule()),
    "step": ("step:EPOCHS[:FACTOR]", lambda epochs, every, factor="0.1": Exponential(_number(factor), _number(every))),
    "multistep": (
        "multistep:EPOCH,EPOCH…[:FACTOR]",
        lambda epochs, at, factor="0.1": MultiStep([_number(e) for e in at.split(",")], _number(factor)),
    ),
    "plateau": (
        "plateau[:PATIENCE[:FACTOR]]",
        lambda epochs, patience="5", factor="0.1": Plateau(int(_number(patience)), _number(factor)),
    ),
    "polynomial": ("polynomial[:POWER]", lambda epochs, power="1": Polynomial(epochs, _number(power))),
    "exponential": (
        "exponential:FACTOR[:EPOCHS]",
        lambda epochs, factor, every="1": Exponential(_number(factor), _number(every)),
    ),
    "cosine": ("cosine", lambda epochs: Cosine(epochs)),
    "one-cycle": (
        "one-cycle[:WARM[:FINAL]]",
        lambda epochs, warm="0.3", final="0": OneCycle(epochs, _number(warm), _number(final)),
    ),
}
WARMUP = "warmup:EPOCHS[+SCHEDULE]"
FORMS = [*(form for form, _ in _FORMS.values()), WARMUP]


def parse(text: str, epochs: float) -> Schedule:
    """The schedule that a text describes, for a run of `epochs`: one of FORMS, "warmup:EPOCHS+" in front or not.

    Raises ValueError naming the nearest schedule, or the form that the text should have.
    """
    if text.startswith("warmup:"):
        first, plus, rest = text.removeprefix("warmup:").partition("+")
        then = parse(rest, epochs) if plus else Schedule()
        return _made(lambda: Warmup(_number(first), then), text, WARMUP)
    name, *options = text.split(":")
    if name not in _FORMS:
        near = difflib.get_close_matches(name, _FORMS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(FORMS)}"
        raise ValueError(f"unknown schedule {name!r}: {hint}")
    form, make = _FORMS[name]
    return _made(lambda: make(epochs, *options), text, form)


def _made(make: Callable[[], Schedule], text: str, form: str) -> Schedule:
    try:
        return make()
    except (TypeError, ValueError):  # too many or too few numbers, or one that is none or out of range
        raise ValueError(f"schedule {text!r}: must have the form {form}") from None
