"""How far a whole study is: one bar over all arms and seeds on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from minicnn.train.progress import LINE_EVERY, Progress, say


class StudyProgress:
    """All jobs together. Each has an effort, about its seconds; what those done have taken tells what is left."""

    def __init__(self, jobs: int, effort: float):
        self.jobs, self.job, self.total = jobs, 0, effort
        self.done = self.skipped = 0.0
        self.began = time.monotonic()
        self.bar: Any = None
        if sys.stdout.isatty():
            form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {postfix}"
            self.bar = tqdm(total=effort, bar_format=form, dynamic_ncols=True, file=sys.stdout)

    def skip(self, effort: float) -> None:
        """A job whose result is there already."""
        self.job, self.skipped = self.job + 1, self.skipped + effort
        self._done(effort)

    def arm(self, label: str, effort: float) -> ArmProgress:
        """The next job begins."""
        self.job += 1
        return ArmProgress(self, f"[{self.job}/{self.jobs}] {label}", effort)

    def finish(self, label: str, effort: float) -> None:
        """A job has ended: a line that stays."""
        self._done(effort)
        say(f"[{self.job}/{self.jobs}] {label}; {self.left(0.0)}")

    def left(self, under_way: float) -> str:
        """The time left, where `under_way` of the effort is done besides the finished jobs."""
        done = self.done - self.skipped + under_way
        if done <= 0:
            return "time left not known yet"
        seconds = (time.monotonic() - self.began) / done * max(self.total - self.done - under_way, 0.0)
        return f"{duration(seconds)} left"

    def show(self, text: str, under_way: float) -> None:
        """Where the bar stands now."""
        if self.bar is not None:
            self.bar.n = min(self.done + under_way, self.total)
            self.bar.set_description_str(text, refresh=False)
            self.bar.set_postfix_str(self.left(under_way))

    def _done(self, effort: float) -> None:
        self.done += effort
        self.show("", 0.0)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


class ArmProgress(Progress):
    """One job within the study, as the trainer's loop reports it."""

    def __init__(self, study: StudyProgress, label: str, effort: float):
        self.study, self.label, self.effort, self.bar = study, label, effort, None
        self.spoke = time.monotonic()
        self.after_epoch: Callable[[], None] = lambda: None
        self.begin(1, 1, 0)

    def begin(self, epochs: int, steps_per_epoch: int, epochs_done: int) -> None:
        """How long it will be, once that is known."""
        self.epochs, self.epoch = epochs, epochs_done + 1
        self.steps, self.total = epochs_done * steps_per_epoch, epochs * steps_per_epoch

    def step(self, images: int, loss: float, accuracy: float) -> None:
        self.steps += 1
        self._show(f"epoch {self.epoch}/{self.epochs}, loss {loss:.3f}, accuracy {accuracy:.3f}")

    def end_epoch(self, loss: float, accuracy: float, validation: float | None) -> None:
        self.epoch += 1
        self.after_epoch()

    def _show(self, state: str) -> None:
        under_way = self.effort * self.steps / self.total
        self.study.show(f"{self.label}, {state}", under_way)
        if self.study.bar is None and time.monotonic() - self.spoke >= LINE_EVERY:
            self.spoke = time.monotonic()
            say(f"{self.label}, {state}; {self.study.left(under_way)}")


def duration(seconds: float) -> str:
    """As people say it: 40 s, 12 min, 3.5 h, 4 days."""
    for unit, length, until in (("s", 1, 100), ("min", 60, 6000), ("h", 3600, 48 * 3600)):
        if seconds < until:
            number = seconds / length
            return f"{number:.1f} {unit}" if unit == "h" and number < 10 else f"{number:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
