"""Fuzzing the readers of files from elsewhere: `python -m tests.fuzz pth safetensors --minutes 10`.

Intact files are changed at random and read. A reader may give something back or raise a ValueError of one line; any
other exception, more than a few seconds, or memory out of proportion is a failure, whose input is kept. Two readers
run at a time, each in a process of its own.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import io
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minicnn import checkpoint, interop, pth

SLOW = 10.0  # seconds
LARGE = 2**29  # bytes that a reader of files of some kilobytes may take
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)
TOKENS = [
    b"(",
    b")",
    b".",
    b"R",
    b"b",
    b"Q",
    b"\x81",
    b"\x93",
    b"\x82\x05",
    b"cos\nsystem\n",
    b"\xff" * 8,
    b"\x8b\xff\xff\xff\x7f",
]


class Seed(NamedTuple):
    """What is changed, and what makes a file of it again."""

    content: bytes
    whole: Callable[[bytes], bytes] = bytes


class Reader(NamedTuple):
    """`seeds(folder)` are intact files; `read(path)` is what must survive anything that is made of them."""

    suffix: str
    seeds: Callable[[Path], list[Seed]]
    read: Callable[[Path], Any]


def archive(records: dict[str, bytes], compression: int = zipfile.ZIP_STORED, folder: str = "archive") -> bytes:
    """A zip archive as torch.save writes it, of records such as data.pkl and data/0."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as written:
        for name, content in records.items():
            written.writestr(f"{folder}/{name}", content)
    return file.getvalue()


def _pth_seeds(folder: Path) -> list[Seed]:
    import torch

    base = torch.arange(24.0).reshape(4, 6)
    layer = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    contents = [
        {"model": layer.state_dict(), "epoch": 3, "best": 0.5, "names": ["a", "b"], "none": None},
        {"a": base, "b": base.T[1:], "c": base.bfloat16(), "d": base > 3, "e": torch.nn.Parameter(base.half())},
    ]
    seeds = []
    for i, content in enumerate(contents):
        path = folder / f"{i}.pth"
        torch.save(content, path, _use_new_zipfile_serialization=False)
        seeds.append(Seed(path.read_bytes()))
        torch.save(content, path)
        seeds.append(Seed(path.read_bytes()))
        with zipfile.ZipFile(path) as read:
            records = {name.partition("/")[2]: read.read(name) for name in read.namelist()}
        pickled = records.pop("data.pkl")
        seeds.append(Seed(pickled, lambda changed, records=records: archive({"data.pkl": changed, **records})))
    return seeds


def _safetensors_seeds(folder: Path) -> list[Seed]:
    path = folder / "a.safetensors"
    arrays = {"conv.weight": np.ones((3, 3, 2, 4), np.float32), "bn/x": np.arange(6), "e": np.zeros((0, 3), np.float16)}
    checkpoint.write(path, arrays, {"model": "{}"})
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header, data = content[8:start], content[start:]
    return [Seed(content), Seed(header, lambda changed: len(changed).to_bytes(8, "little") + changed + data)]


READERS = {
    "pth": Reader(".pth", _pth_seeds, pth.state_dict),
    "safetensors": Reader(".safetensors", _safetensors_seeds, interop.read),
}


def changed(content: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with a few random changes: values, tokens, pieces copied, left out or cut off."""
    result = bytearray(content)
    for _ in range(rng.geometric(0.5)):
        at, length = int(rng.integers(len(result) + 1)), int(rng.integers(1, 17))
        match rng.integers(6):
            case 0 if at < len(result):
                result[at] ^= 1 << int(rng.integers(8))
            case 1 if at < len(result):
                result[at] = INTERESTING[rng.integers(len(INTERESTING))]
            case 2:
                result[at:at] = TOKENS[rng.integers(len(TOKENS))]
            case 3:
                start = int(rng.integers(len(result) + 1))
                result[at:at] = result[start : start + length]
            case 4:
                del result[at : at + length]
            case 5 if rng.integers(8) == 0:
                del result[at:]
    return bytes(result)


def inputs(reader: Reader, folder: Path, rng: np.random.Generator) -> Iterator[bytes]:
    """Changed files without end."""
    seeds = reader.seeds(folder)
    while True:
        seed = seeds[rng.integers(len(seeds))]
        yield seed.whole(changed(seed.content, rng))


def accepts(reader: Reader, path: Path) -> bool:
    """Whether the file is read; False for a ValueError of one line, anything else is raised."""
    try:
        reader.read(path)
    except ValueError as error:
        assert "\n" not in str(error), f"an error of several lines: {error}"
        return False
    return True


def attack(name: str, seconds: float, seed: int) -> str:
    """Fuzz a reader for so long; says how it went, and raises AssertionError with the name of a file that breaks it."""
    reader, rng = READERS[name], np.random.default_rng(seed)
    read = accepted = 0
    slowest, began = 0.0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"input{reader.suffix}"
        for content in inputs(reader, Path(folder), rng):
            if not read:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # PyTorch has made the intact files
            path.write_bytes(content)
            start = time.process_time()  # the machine may be busy with something else
            try:
                accepted += accepts(reader, path)
                grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
                took = time.process_time() - start
                assert took < SLOW, f"takes {took:.1f} s"
                assert grown < LARGE, f"takes {grown:,} bytes"
            except Exception as error:
                kept = Path(f"fuzz-{name}-{seed}-{read}{reader.suffix}")
                kept.write_bytes(content)
                raise AssertionError(f"{name}: {kept}: {type(error).__name__}: {error}") from error
            read, slowest = read + 1, max(slowest, took)
            if time.monotonic() - began > seconds:
                break
    return (
        f"{name}: {read:,} files, {accepted:,} of them read, slowest {1000 * slowest:.0f} ms, {grown / 2**20:.0f} MiB"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"which (default: all): {', '.join(READERS)}")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (default: %(default)s)")
    options = parser.parse_args()
    if unknown := set(options.readers) - set(READERS):
        parser.error(f"no reader is called {', '.join(sorted(unknown))}; choose from {', '.join(READERS)}")
    failed = False
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        chosen = options.readers or READERS
        for future in [pool.submit(attack, name, 60 * options.minutes, options.seed) for name in chosen]:
            try:
                print(future.result(), flush=True)
            except AssertionError as error:
                failed = True
                print(error, file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
