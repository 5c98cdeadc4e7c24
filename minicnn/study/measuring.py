"""An arm that is measured or counted, not trained: a function of the bench, the seed and its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minicnn.study.claim import Figures
from minicnn.study.progress import ArmProgress

if TYPE_CHECKING:
    from minicnn.study.engine import Bench


@dataclass(frozen=True)
class Measuring:
    """`function(bench, seed, **options)` and about how many seconds it takes; `images` says whether it looks at any."""

    function: Callable[..., Figures]
    options: Mapping[str, Any] = field(default_factory=dict)
    images: bool = False
    seconds: float = 1.0

    @property
    def label(self) -> str:
        return self.function.__name__.replace("_", "-")

    def identity(self, bench: Bench) -> dict[str, Any]:
        shown = {"images": bench.fingerprint()} if self.images else {}
        return {"function": self.function.__name__, "options": dict(self.options), "device": bench.device, **shown}

    def effort(self, bench: Bench) -> float:
        return self.seconds

    def run(self, bench: Bench, seed: int, progress: ArmProgress) -> Figures:
        return self.function(bench, seed, **self.options)
