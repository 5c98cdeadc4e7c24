"""What all commands share: options that explain themselves, and errors that are one line on standard error."""

from __future__ import annotations

import argparse
import difflib
import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn


class _Help(argparse.HelpFormatter):
    """The default behind each option's explanation, where there is one that says something."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        says_nothing = action.default in (None, argparse.SUPPRESS, {}) or action.default is False
        return text if says_nothing or "(default" in text else f"{text} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, with the nearest option for one that does not exist."""

    def __init__(self, **options: Any):
        super().__init__(formatter_class=_Help, allow_abbrev=False, **options)  # type: ignore[misc]

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ").split()
        if message.startswith("unrecognized") and unknown:
            known = [name for action in self._actions for name in action.option_strings]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
            message = f"unknown argument {unknown[0]}" + (f", did you mean {near[0]}?" if near else "; see --help")
        self.exit(2, f"{self.prog}: {message}\n")


def command(main: Callable[..., int]) -> Callable[..., int]:
    """Turn what a user can do something about into one line on standard error and exit code 2; Ctrl-C into 130.

    A reader that has had enough, as `| head` has, ends the command quietly with 141, as it ends other programs.
    Whoever looks for a mistake in minicnn sets MINICNN_TRACEBACK=1 and gets the traceback instead.
    """

    @functools.wraps(main)
    def run(arguments: list[str] | None = None) -> int:
        try:
            result = main(arguments)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
            return 141
        except KeyboardInterrupt as interruption:
            print(f"interrupted{interruption or ''}", file=sys.stderr)
            return 130
        except (ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError, OSError) as error:
            if os.environ.get("MINICNN_TRACEBACK"):
                raise
            print(_one_line(error), file=sys.stderr)
            return 2

    return run


def _one_line(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"out of memory ({error}); a smaller --batch-size or --image-size needs less"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


# For argparse's `type`


def _checked(kind: Callable[[str], Any], holds: Callable[[Any], bool], condition: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not holds(value):
            raise argparse.ArgumentTypeError(f"must be {condition}, got {text}")
        return value

    parse.__name__ = getattr(kind, "__name__", "")  # argparse names it in "invalid int value"
    return parse


def positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A number above 0."""
    return _checked(kind, lambda value: value > 0, "above 0")


def not_negative(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A number of at least 0."""
    return _checked(kind, lambda value: value >= 0, "at least 0")


def threads(text: str) -> int:
    """How many threads: at least 1, and no more than there are cores to run them."""
    from kernels.cpu.cores import visible_cores

    count, most = positive(int)(text), visible_cores()
    if count > most:
        raise argparse.ArgumentTypeError(f"must be at most {most}, the cores that this process may use, got {text}")
    return count


threads.__name__ = "int"  # argparse names it in "invalid int value"


fraction = _checked(float, lambda value: 0 <= value < 1, "at least 0 and below 1")


def variant(text: str) -> dict[str, Any]:
    """A model's keywords as a JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object such as '{{\"bn\": true}}', got {text!r}")
    return value
