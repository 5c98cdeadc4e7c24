"""PyTorch's files of weights, `.pth`, read without running anything that stands in them.

A `.pth` is a pickle: a program for a stack machine that can import any function and call it. The machine here is not
Python's. It has the instructions that make numbers, strings and containers, and knows the few names by which PyTorch
describes a tensor; a file that asks for any other is refused, by that name. No instruction imports, sets an attribute
or calls a method: what cannot be said cannot be run.

A tensor is described as a storage (a run of numbers that lie elsewhere in the file), an offset into it, a shape and
strides; several tensors may share a storage. There are two formats:

zip     since PyTorch 1.6: an archive of NAME/data.pkl, the pickle, and NAME/data/KEY, the bytes of a storage
legacy  pickles in a row: a magic number, the format's version, what wrote it, the object, the keys of its storages;
        then the storages in that order, each after its length. torchvision's older weights are in it.

Sizes are compared with the length of the file before any memory is asked for.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, NoReturn

import numpy as np

from minicnn.checkpoint import from_bfloat16
from minicnn.data.errors import DataError, reading

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001  # of the legacy format
MOST_WORK = 2**22  # instructions; ResNet-1202's state dict takes half a million
MOST_DIMENSIONS = 32
MOST_NUMBERS = 2**48  # in any direction of a tensor
NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "weights")  # where checkpoints keep weights

# Instructions whose argument is what they push.
LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}

Order = Literal["<", ">"]


class Storage(NamedTuple):
    """A run of numbers: its dtype as PyTorch names it, and an array that is filled once the pickle is read."""

    dtype: str
    array: np.ndarray  # (count,), float32 for bfloat16, which NumPy does not have


class Name(NamedTuple):
    """What a name in a file stands for: a function of this module, or a dtype."""

    call: Callable[..., Any] | None = None
    dtype: str = ""


def state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """The weights in a `.pth` file by name, in PyTorch's layout: of a state dict, or of a checkpoint that holds one.

    In a checkpoint such as {"epoch": 3, "state_dict": {...}} the weights are looked for under the usual names; what is
    no array is left out. bfloat16 becomes float32, every other dtype stays. Tensors that share a storage share memory.

    Raises DataError, a ValueError, with one line: for a file that asks for anything but tensors and containers (with
    the name that it asks for), that is damaged or truncated, claims more than it holds, or holds no state dict.
    """
    content = read(path)
    arrays = _arrays(content)
    if not arrays:
        raise DataError(f"{path}: holds no state dict, but {_held(content)}; save model.state_dict() in PyTorch")
    if not all(name.isprintable() for name in arrays):
        raise DataError(f"{path}: damaged, names of weights hold what cannot be printed; use another file")
    return arrays


def read(path: str | Path) -> Any:
    """The object in a `.pth` file, of containers, numbers, strings and NumPy arrays; errors as for `state_dict`."""
    with reading(path), open(path, "rb") as file:
        machine = Machine(path, os.fstat(file.fileno()).st_size)
        try:
            if file.read(4) == b"PK\x03\x04":
                return _read_archive(machine, file)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
                return _read_legacy(machine, stream)
        except (IndexError, KeyError) as error:
            raise ValueError("its pickle takes what was never put") from error


def _arrays(content: Any, depth: int = 3) -> dict[str, np.ndarray]:
    """The arrays by name of the state dict in what a file holds, which may be nested; {} where there is none."""
    if not isinstance(content, dict) or not depth:
        return {}
    for key in NESTED:
        if nested := _arrays(content.get(key), depth - 1):
            return nested
    return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, np.ndarray)}


def _held(content: Any) -> str:
    """What a file holds, in some words."""
    if isinstance(content, dict):
        return ", ".join(map(_printable, list(content)[:8])) or "nothing"
    return f"a {type(content).__name__}"


def _printable(text: Any) -> str:
    """At most 80 characters of it, on one line."""
    return str(text)[:80].encode("unicode_escape").decode()


# The two formats


def _read_archive(machine: Machine, file: IO[bytes]) -> Any:
    path = machine.path
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        records = {entry.filename: entry for entry in entries}
        if len(records) < len(entries) or sum(entry.file_size for entry in entries) > machine.size:
            raise ValueError("its records overlap")
        folders = [name[:-8] for name in records if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(folders) != 1:
            raise DataError(f"{path}: a zip archive, but not one that torch.save has written; it has no data.pkl")
        (folder,) = folders
        if f"{folder}constants.pkl" in records:
            raise DataError(f"{path}: a TorchScript program; save the state_dict() of its model instead")

        def record(name: str) -> bytes:
            entry = records.get(folder + name)
            if entry is None:
                raise ValueError(f"record {_printable(name)} is missing")
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise ValueError(f"record {_printable(name)} is compressed, which PyTorch does not do")
            return archive.read(entry)  # verifies its checksum

        if f"{folder}byteorder" in records and record("byteorder") == b"big":
            machine.order = ">"
        content = machine.run(io.BytesIO(record("data.pkl")))
        for key, storage in machine.storages.items():
            _fill(storage, record(f"data/{key}"), machine.order)
    return content


def _read_legacy(machine: Machine, stream: Any) -> Any:
    if machine.run(stream) != MAGIC or machine.run(stream) != VERSION:
        raise DataError(f"{machine.path}: a pickle, but not one that torch.save has written")
    machine.run(stream)  # what wrote it
    content = machine.run(stream)
    keys = machine.run(stream)
    if type(keys) is not list or not all(type(key) is str for key in keys) or set(keys) != set(machine.storages):
        raise ValueError("its storages are not those of its tensors")
    for key in keys:
        storage = machine.storages[key]
        count = int.from_bytes(stream.read(8), "little")
        if count != len(storage.array):
            raise ValueError(f"a storage of {len(storage.array)} numbers is stored with {count}")
        _fill(storage, stream.read(count * _stored(storage.dtype).itemsize), machine.order)
    return content


def _stored(dtype: str) -> np.dtype:
    """How NumPy reads the bytes of one of PyTorch's dtypes."""
    return np.dtype({"bfloat16": "uint16", "bool": "uint8"}.get(dtype, dtype))


def _fill(storage: Storage, content: bytes, order: Order) -> None:
    stored = _stored(storage.dtype).newbyteorder(order)
    if len(content) != len(storage.array) * stored.itemsize:
        raise ValueError(f"a storage of {len(storage.array)} {storage.dtype} has {len(content)} bytes")
    numbers = np.frombuffer(content, stored)
    storage.array[...] = from_bfloat16(numbers) if storage.dtype == "bfloat16" else numbers


# The machine


class Machine:
    """Carries out the pickles of one file: a stack, a memo, and instructions that only put together.

    `storages` are those that the tensors so far lie in, by key; `size` is the length of the file in bytes.
    """

    def __init__(self, path: str | Path, size: int):
        self.path, self.size = path, size
        self.storages: dict[str, Storage] = {}
        self.order: Order = "<"  # of the bytes of a number
        self._work = 0  # instructions, and items that they copied
        self._bytes = 0  # of all storages
        self._shown = 0  # bytes of all tensors, which may overlap

    def run(self, stream: Any) -> Any:
        """The object that the next pickle in the stream describes; the stream then stands behind it."""
        stack: list[Any] = []
        below: list[list[Any]] = []  # the stacks under the marks
        memo: dict[int, Any] = {}

        def since_mark() -> list[Any]:
            nonlocal stack
            items, stack = stack, below.pop()
            return items

        argument: Any
        for instruction, argument, _ in pickletools.genops(stream):
            self.spend(1)
            name = instruction.name
            if name in LITERALS:
                stack.append(argument)
            elif name in CONSTANTS:
                stack.append(CONSTANTS[name])
            else:
                match name:
                    case "PROTO" | "FRAME":
                        pass
                    case "MARK":
                        below.append(stack)
                        stack = []
                    case "STOP":
                        return stack.pop()
                    case "POP":
                        stack.pop()
                    case "PUT" | "BINPUT" | "LONG_BINPUT":
                        memo[argument] = stack[-1]
                    case "MEMOIZE":
                        memo[len(memo)] = stack[-1]
                    case "GET" | "BINGET" | "LONG_BINGET":
                        stack.append(memo[argument])
                    case "EMPTY_TUPLE":
                        stack.append(())
                    case "TUPLE1" | "TUPLE2" | "TUPLE3":
                        count = int(name[-1])
                        if len(stack) < count:
                            raise ValueError("its stack is empty")
                        stack[-count:] = [tuple(stack[-count:])]
                    case "TUPLE":
                        items = since_mark()
                        stack.append(tuple(items))
                    case "EMPTY_LIST":
                        stack.append([])
                    case "LIST":
                        items = since_mark()
                        stack.append(items)
                    case "APPEND":
                        item = stack.pop()
                        _of(list, stack).append(item)
                    case "APPENDS":
                        items = since_mark()
                        _of(list, stack).extend(items)
                    case "EMPTY_DICT":
                        stack.append({})
                    case "DICT":
                        items = since_mark()
                        stack.append(_pairs(items))
                    case "SETITEM":
                        value, key = stack.pop(), stack.pop()
                        _of(dict, stack).update(_pairs([key, value]))
                    case "SETITEMS":
                        items = since_mark()
                        _of(dict, stack).update(_pairs(items))
                    case "EMPTY_SET":
                        stack.append(set())
                    case "ADDITEMS":
                        items = since_mark()
                        _of(set, stack).update(map(_key, items))
                    case "GLOBAL":
                        stack.append(self._named(*argument.split(" ", 1)))
                    case "STACK_GLOBAL":
                        attribute, module = stack.pop(), stack.pop()
                        stack.append(self._named(module, attribute))
                    case "REDUCE":
                        arguments, function = stack.pop(), stack.pop()
                        stack.append(self.call(function, arguments))
                    case "BUILD":  # attributes of a state dict, such as its _metadata: nothing is set
                        stack.pop()
                        if type(stack[-1]) is not dict:
                            self._refuse("a state for something else than a dict (BUILD)")
                    case "BINPERSID":
                        stack.append(self._persistent(stack.pop()))
                    case _:
                        self._refuse(f"the instruction {name}" + (f" {_printable(argument)}" if argument else ""))
        raise ValueError("its pickle has no end")

    def spend(self, work: int) -> None:
        """Count instructions and the items that they copy: a short pickle can ask for a long list again and again."""
        self._work += work
        if self._work > MOST_WORK:
            raise DataError(f"{self.path}: has more than {MOST_WORK:,} instructions, which no weights need")

    def _refuse(self, what: str) -> NoReturn:
        raise DataError(
            f"{self.path}: refused, for it asks for {what}, which is not in weights and could run code; nothing was "
            "run. If you trust the file, save model.state_dict() alone in PyTorch"
        )

    def _named(self, module: Any, attribute: Any) -> Name:
        if type(module) is not str or type(attribute) is not str:
            raise ValueError("a name that is no string")
        module = "builtins" if module == "__builtin__" else module  # Python 2
        name = f"{module}.{attribute}"
        if name not in NAMES:
            self._refuse(_printable(name))
        return NAMES[name]

    def call(self, function: Any, arguments: Any) -> Any:
        """What one of the functions in NAMES makes of its arguments."""
        if type(function) is not Name or function.call is None or type(arguments) is not tuple:
            self._refuse("a call of what is no function")
        return function.call(self, *arguments)

    def _persistent(self, description: Any) -> Storage:
        """A storage, by its description: ("storage", its type, its key, where it was, how many numbers)."""
        match description:
            case ("storage", Name(call=None, dtype=dtype), str(key), str(_), int(count), *rest) if dtype:
                storage = self._storage(key, dtype, count)
                match rest:
                    case [] | [None]:
                        return storage
                    case [(_, int(offset), int(count))] if 0 <= offset <= offset + count <= len(storage.array):
                        return Storage(dtype, storage.array[offset : offset + count])  # a part, in old legacy files
                raise ValueError("a part of a storage lies outside it")
        self._refuse("a persistent object that is no storage")

    def _storage(self, key: str, dtype: str, count: int) -> Storage:
        if key not in self.storages:
            self._bytes += count * _stored(dtype).itemsize
            if count < 0 or self._bytes > self.size:
                raise ValueError(f"its storages would need {self._bytes} bytes, the file has {self.size}")
            self.storages[key] = Storage(dtype, np.empty(count, "float32" if dtype == "bfloat16" else dtype))
        storage = self.storages[key]
        if storage.dtype != dtype or len(storage.array) != count:
            raise ValueError(f"storage {_printable(key)} is described in two ways")
        return storage

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, dtype: str = "") -> np.ndarray:
        """A view of a storage, whose bytes mean `dtype` if that is given; ValueError where it would lie outside."""
        if type(storage) is not Storage or not {type(shape), type(strides)} <= {tuple, list}:
            raise ValueError("a tensor without storage, shape or strides")
        if len(shape) != len(strides) or len(shape) > MOST_DIMENSIONS:
            raise ValueError(f"a tensor with {len(shape)} dimensions and {len(strides)} strides")
        if not all(type(n) is int and 0 <= n < MOST_NUMBERS for n in (offset, *shape, *strides)):
            raise ValueError("a tensor of an impossible shape")
        array = storage.array.view(dtype) if dtype else storage.array
        count = math.prod(shape)
        if not count:
            return np.empty(shape, array.dtype)
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if last >= len(array):
            raise ValueError(f"a tensor reaches to number {last} of a storage that has {len(array)}")
        self._shown += count * array.itemsize
        if self._shown > max(2**26, 4 * self.size):  # a stride of 0 shows one number a million times
            raise ValueError(f"its tensors would need {self._shown} bytes, the file has {self.size}")
        steps = [stride * array.itemsize for stride in strides]
        return np.ndarray(tuple(shape), array.dtype, array, offset * array.itemsize, steps)


def _of(kind: type, stack: list[Any]) -> Any:
    """What lies on top of the stack, which must be of that kind, and no other that has the same methods."""
    if type(stack[-1]) is not kind:
        raise ValueError(f"an item for a {kind.__name__} is given to a {type(stack[-1]).__name__}")
    return stack[-1]


def _key(key: Any) -> Any:
    """A key of a dict or an item of a set: a tuple might be nested so deeply that to hash it overflows C's stack."""
    if type(key) not in (str, int, float, bool, bytes, type(None)):
        raise ValueError(f"a {type(key).__name__} is no key of a dict")
    return key


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """{key: value} of [key, value, key, value, …]."""
    if len(items) % 2:
        raise ValueError("a key of a dict has no value")
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


# The functions that a file may call. Each is given the machine, and the arguments that the file has for it.


def _tensor(machine: Machine, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
    return machine.tensor(storage, offset, shape, strides)


def _tensor_of_bytes(
    machine: Machine, storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> np.ndarray:
    if type(dtype) is not Name or dtype.dtype in ("", "bfloat16", "bool") or machine.order == ">":
        raise ValueError("a tensor of an unknown dtype")
    return machine.tensor(storage, offset, shape, strides, dtype.dtype)


def _parameter(machine: Machine, data: Any, *_: Any) -> np.ndarray:
    if not isinstance(data, np.ndarray):
        raise ValueError("a parameter that is no tensor")
    return data


def _with_attributes(machine: Machine, function: Any, kind: Any, arguments: Any, attributes: Any) -> Any:
    return machine.call(function, arguments)


def _items(machine: Machine, items: Any) -> Any:
    if type(items) not in (tuple, list, dict):
        raise ValueError("a container of what is none")
    machine.spend(len(items))
    return items


def _dict(machine: Machine, items: Any = ()) -> dict[Any, Any]:
    """From another dict or from pairs; Python 2 gives the pairs of an OrderedDict as lists."""
    items = _items(machine, items)
    return {_key(key): value for key, value in (items.items() if type(items) is dict else items)}


def _set(machine: Machine, items: Any = ()) -> set[Any]:
    return set(map(_key, _items(machine, items)))


def _tuple(machine: Machine, items: Any = ()) -> tuple[Any, ...]:
    return tuple(_items(machine, items))


def _bytes(machine: Machine, text: Any, encoding: Any) -> bytes:
    """Until protocol 3 bytes are pickled as text that is encoded again."""
    if type(text) is not str or encoding != "latin1":
        raise ValueError("bytes that are no text")
    machine.spend(len(text) // 16)
    return text.encode("latin-1")


_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
    "ComplexDouble": "complex128", "ComplexFloat": "complex64",
}  # fmt: skip

NAMES = {
    "torch._utils._rebuild_tensor": Name(_tensor),
    "torch._utils._rebuild_tensor_v2": Name(_tensor),
    "torch._utils._rebuild_tensor_v3": Name(_tensor_of_bytes),
    "torch._utils._rebuild_parameter": Name(_parameter),
    "torch._utils._rebuild_parameter_with_state": Name(_parameter),
    "torch._tensor._rebuild_from_type_v2": Name(_with_attributes),
    "torch.Size": Name(_tuple),
    "collections.OrderedDict": Name(_dict),
    "collections.Counter": Name(_dict),
    "builtins.set": Name(_set),
    "_codecs.encode": Name(_bytes),
    "torch.Tensor": Name(),
    "torch.nn.parameter.Parameter": Name(),
    "torch.storage.UntypedStorage": Name(dtype="uint8"),
    **{f"torch.{kind}Storage": Name(dtype=dtype) for kind, dtype in _STORAGES.items()},
    **{f"torch.{dtype}": Name(dtype=dtype) for dtype in (*_STORAGES.values(), "uint16", "uint32", "uint64")},
}
