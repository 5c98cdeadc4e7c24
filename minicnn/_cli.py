"""What all commands share: options that explain themselves, and errors that are one line on standard error."""

from __future__ import annotations

import argparse
import difflib
import functools
import sys
from collections.abc import Callable
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, with the nearest option for one that does not exist."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ").split()
        if message.startswith("unrecognized") and unknown:
            known = [name for action in self._actions for name in action.option_strings]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
            message = f"unknown argument {unknown[0]}" + (f", did you mean {near[0]}?" if near else "; see --help")
        self.exit(2, f"{self.prog}: {message}\n")


def command(main: Callable[..., int]) -> Callable[..., int]:
    """Turn what a user can do something about into one line on standard error and exit code 2; Ctrl-C into 130."""

    @functools.wraps(main)
    def run(arguments: list[str] | None = None) -> int:
        try:
            return main(arguments)
        except KeyboardInterrupt as interruption:
            print(f"interrupted{interruption or ''}", file=sys.stderr)
            return 130
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            print(f"{where}{error.strerror or error}", file=sys.stderr)
        except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
            print(" ".join(str(error).split()), file=sys.stderr)
        return 2

    return run


def positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """For argparse's `type`: a number above 0."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
        return value

    parse.__name__ = kind.__name__  # argparse names it in "invalid int value"
    return parse


def fraction(text: str) -> float:
    """For argparse's `type`: a number from 0 to below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {text}")
    return value
