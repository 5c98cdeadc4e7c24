"""What a person sees of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

LINE_EVERY = 10.0  # seconds, where standard error is not a terminal


def say(text: str) -> None:
    """One line; a bar that is being drawn moves down."""
    tqdm.write(text, file=sys.stderr)
    sys.stderr.flush()


class Progress:
    """The progress of all epochs together: loss, accuracy, images per second, time left."""

    def __init__(self, epochs: int, steps_per_epoch: int, done: int):
        self.epochs, self.steps, self.total = epochs, done, epochs * steps_per_epoch
        self.steps_per_epoch, self.first = steps_per_epoch, done
        self.began = self.spoke = time.monotonic()
        self.images = 0
        self.bar: Any = None
        if sys.stderr.isatty():
            self.bar = tqdm(total=self.total, initial=done, unit="step", dynamic_ncols=True, file=sys.stderr)

    def step(self, images: int, loss: float, accuracy: float) -> None:
        """One more step; loss and accuracy are means over the epoch so far."""
        self.steps += 1
        self.images += images
        now = time.monotonic()
        rate = self.images / max(now - self.began, 1e-9)
        epoch = min((self.steps - 1) // self.steps_per_epoch + 1, self.epochs)
        if self.bar is not None:
            self.bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
            self.bar.set_postfix_str(f"loss {loss:.3f}, accuracy {accuracy:.3f}, {rate:.0f} images/s", refresh=False)
            self.bar.update()
        elif now - self.spoke >= LINE_EVERY:
            self.spoke = now
            left = (now - self.began) / (self.steps - self.first) * (self.total - self.steps)
            say(
                f"epoch {epoch}/{self.epochs}, step {self.steps}/{self.total}: loss {loss:.3f}, "
                f"accuracy {accuracy:.3f}, {rate:.0f} images/s, {left:.0f} s left"
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.close()
