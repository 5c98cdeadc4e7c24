"""What is raised for data that cannot be used, and the two guards that every reader works behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


class DataError(ValueError):
    """Data that cannot be used. The message is one line: the file, what is wrong with it, and what to do."""


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Within the block, whatever a missing or broken file makes a decoder raise becomes a DataError naming the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # zlib, zipfile, struct and Pillow raise a dozen types of their own for broken files
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"{path}: {error.strerror}") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: damaged or not of its format ({reason}); replace it by an intact copy") from error


def check_expansion(path: str | Path, size: int, stored: int) -> None:
    """Refuse to unpack `size` bytes from `stored` compressed ones if no real images compress that well (a zip bomb).

    A header alone must not make us allocate: what it asks for has to be justified by the length of the file.
    """
    if size > max(2**26, 256 * stored):
        raise DataError(f"{path}: {stored} bytes claim to unpack to {size}; this is damaged or a zip bomb, replace it")
