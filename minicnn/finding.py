"""What a check of the machine has found: one line of `python -m minicnn.doctor`."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One line: the state is ok, missing (minicnn works without it) or wrong; `fix` says what to do."""

    state: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.state:7}  {self.text}" + (f": {self.fix}" if self.fix else "")
