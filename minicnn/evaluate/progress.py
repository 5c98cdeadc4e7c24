"""How far a long evaluation is: a bar on a terminal, plain lines elsewhere, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

LINE_EVERY = 10.0  # seconds, where standard error is not a terminal

Watch = Callable[[Any], Iterator[Any]]  # from something that has a length to its items


def watched(items: Any, what: str) -> Iterator[Any]:
    """The items, and while they are used how many are done and how long the others will take; `what` they are of."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, dynamic_ncols=True, leave=False, file=sys.stderr)
        return
    began = spoke = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - spoke >= LINE_EVERY:
            spoke, left = now, (now - began) / max(done, 1) * (len(items) - done)
            print(f"{what}: {done} of {len(items)}, {left:.0f} s left", file=sys.stderr, flush=True)
        yield item
