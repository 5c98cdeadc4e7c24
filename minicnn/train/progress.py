"""What a person sees of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

LINE_EVERY = 10.0  # seconds, where standard output is not a terminal


def say(text: str) -> None:
    """One line; a bar that is being drawn moves down."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


class Progress:
    """The progress of all epochs together: loss, accuracy, images per second, time left."""

    def __init__(self, epochs: int, steps_per_epoch: int, epochs_done: int):
        self.epochs, self.epoch = epochs, epochs_done + 1
        self.first = self.steps = epochs_done * steps_per_epoch
        self.total = epochs * steps_per_epoch
        self.images, self.began = 0, time.monotonic()
        self.spoke = self.began
        self.bar: Any = None
        if sys.stdout.isatty():
            self.bar = tqdm(total=self.total, initial=self.first, unit="step", dynamic_ncols=True, file=sys.stdout)

    def step(self, images: int, loss: float, accuracy: float) -> None:
        """One more step; loss and accuracy are means over the epoch so far."""
        self.steps, self.images = self.steps + 1, self.images + images
        state = f"loss {loss:.3f}, accuracy {accuracy:.3f}, {self._rate():.0f} images/s"
        if self.bar is not None:
            self.bar.set_description(f"epoch {self.epoch}/{self.epochs}", refresh=False)
            self.bar.set_postfix_str(state, refresh=False)
            self.bar.update()
        elif time.monotonic() - self.spoke >= LINE_EVERY:
            self._line(f"step {self.steps}/{self.total}: {state}")

    def end_epoch(self, loss: float, accuracy: float, validation: float | None) -> None:
        """An epoch is over: a line that stays."""
        validated = "" if validation is None else f", validation {validation:.3f}"
        self._line(f"loss {loss:.3f}, accuracy {accuracy:.3f}{validated}, {self._rate():.0f} images/s")
        self.epoch += 1

    def _rate(self) -> float:
        return self.images / max(time.monotonic() - self.began, 1e-9)

    def _line(self, text: str) -> None:
        self.spoke = time.monotonic()
        left = (self.spoke - self.began) / (self.steps - self.first) * (self.total - self.steps)
        say(f"epoch {self.epoch}/{self.epochs}, {text}, {left:.0f} s left")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.close()
