"""Files of arrays: written whole or not at all, read with an error that names the file.

A file is safetensors with the metadata `format=minicnn, layout=HWIO`, and whatever else the writer says. The weights
stand under the names of `model.state_dict()`; what belongs to training stands under names with a "/" in front of a
part, such as "optimiser/3.velocity". The same arrays and metadata make the same file, byte for byte.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save

from minicnn import device

Arrays = Mapping[str, Any]


def write(path: str | Path, arrays: Arrays, metadata: Mapping[str, str]) -> None:
    """Write arrays (NumPy or CuPy) to `path`. An OSError (full disk, no permission) leaves what was there untouched."""
    on_cpu = {name: np.asarray(device.to(array, "cpu"), order="C") for name, array in arrays.items()}
    content = save(on_cpu, metadata={"format": "minicnn", "layout": "HWIO", **metadata})
    write_whole(path, *_with_sorted_metadata(content))


def _with_sorted_metadata(content: bytes) -> tuple[bytes, memoryview]:
    """The header and the data of a safetensors file; the library writes the metadata in an order that it draws."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text, memoryview(content)[start:]


def write_whole(path: str | Path, *pieces: bytes | memoryview) -> None:
    """Write beside, force it to the disk, rename: a reader finds the old file or the new one, never a part."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; nothing was written over", str(path)) from None
    finally:
        beside.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Force the rename to the disk too, where the system can open folders."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays, metadata) of a file of ours; ValueError for a damaged one or one of another format."""
    arrays, metadata = read_safetensors(path)
    if not is_ours(metadata):
        raise ValueError(f"{path}: not a checkpoint of minicnn; load weights from elsewhere with interop.load_torch")
    return arrays, metadata


def read_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays, metadata) of any safetensors file; ValueError for one that is missing, damaged or of another kind.

    bfloat16 becomes float32.
    """
    with _opened(path) as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        arrays = {name: file.get_tensor(name) for name, kind in kinds.items() if kind != "BF16"}
        metadata = file.metadata() or {}
        return (arrays | _bfloat16s(path) if "BF16" in kinds.values() else arrays), metadata


def read_metadata(path: str | Path) -> dict[str, str]:
    """What a safetensors file says of itself, without its arrays; errors as for `read_safetensors`."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """A safetensors file, within the block; what cannot be read is a ValueError in one line."""
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: has numbers of a kind that NumPy does not have ({error}); save them as float32"
        ) from None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: truncated or not a safetensors file ({error}); use another file") from None


def _bfloat16s(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file that are in bfloat16, as float32."""
    return {
        name: from_bfloat16(np.frombuffer(entry["data"], "<u2")).reshape(entry["shape"])
        for name, entry in deserialize(Path(path).read_bytes())
        if entry["dtype"] == "BF16"
    }


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """float32 from bfloat16, which NumPy does not have: its 16 bits, a uint16, are the upper half of a float32's."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def is_ours(metadata: Mapping[str, str]) -> bool:
    """Whether a file says of itself that its weights are in our layout."""
    return metadata.get("format") == "minicnn"


def part(arrays: Arrays, prefix: str = "") -> dict[str, Any]:
    """What stands under "prefix/"; without a prefix, the weights."""
    if not prefix:
        return {name: array for name, array in arrays.items() if "/" not in name}
    return {name.removeprefix(f"{prefix}/"): array for name, array in arrays.items() if name.startswith(f"{prefix}/")}
