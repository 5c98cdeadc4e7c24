"""`.pth` files: what PyTorch writes is read as it is there; whatever else stands in one is refused, and not run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicnn import interop, layers, pth
from minicnn.data import DataError
from tests import fuzz

torch = pytest.importorskip("torch")

FORMATS = {"zip": True, "legacy": False}
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.uint16, torch.uint32, torch.uint64),
]


@pytest.fixture(params=FORMATS)
def save(request, tmp_path):
    """`save(content)` is the path of a file that torch.save has written in one of the two formats."""

    def written(content, **options) -> Path:
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=FORMATS[request.param], **options)
        return tmp_path / "w.pth"

    return written


def refused(path: Path) -> str:
    """The one line with which a file is refused, after its name."""
    with pytest.raises(DataError) as caught:
        pth.state_dict(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def same(array: np.ndarray, tensor: torch.Tensor) -> bool:
    tensor = tensor.detach()
    expected = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array.dtype == expected.dtype and array.shape == expected.shape and np.array_equal(array, expected)


# What PyTorch writes


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(save, dtype):
    tensor = (torch.arange(24).reshape(2, 3, 4) % 7 - (0 if "uint" in str(dtype) else 3)).to(dtype)
    found = pth.state_dict(save({"w": tensor, "scalar": tensor[0, 0, 1], "empty": tensor[:0]}))
    assert same(found["w"], tensor) and same(found["scalar"], tensor[0, 0, 1]) and same(found["empty"], tensor[:0])


def test_views_of_one_storage(save):
    base = torch.arange(60.0).reshape(5, 12)
    views = {"base": base, "turned": base.T, "cut": base[1:4, 2::3], "column": base[:, 7], "last": base[4, 11]}
    views["diagonal"], views["wide"] = base.diagonal(), base[0, :1].expand(4, 12)
    found = pth.state_dict(save(views))
    for name, tensor in views.items():
        assert same(found[name], tensor), name
        assert np.shares_memory(found[name], found["base"]) and found[name].flags.writeable


def test_a_network(save):
    """An OrderedDict with its _metadata, parameters and buffers, by name and in order."""
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, (3, 2)), torch.nn.BatchNorm2d(3), torch.nn.Linear(4, 5))
    state = network.state_dict()
    found = pth.state_dict(save(state))
    assert list(found) == list(state)
    assert all(same(found[name], tensor) for name, tensor in state.items())


def test_parameters_and_tensors_with_attributes(save):
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    tagged, noted = torch.nn.Parameter(torch.ones(2)), torch.zeros(3)
    tagged.tag, noted.note = "kept", "elsewhere"
    found = pth.state_dict(
        save(OrderedDict(w=weight, tagged=tagged, noted=noted, grads=torch.ones(1, requires_grad=True)))
    )
    assert same(found["w"], weight) and same(found["tagged"], tagged) and same(found["noted"], noted)
    assert same(found["grads"], torch.ones(1))


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net"])
def test_checkpoints(save, key):
    network = torch.nn.Linear(3, 2)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [30, 60])  # has a Counter
    content = {
        "epoch": 3, "arch": "resnet18", "best_acc1": torch.tensor(76.1), "done": False, "args": None, "set": {1, 2},
        key: network.state_dict(), "optimizer": optimiser.state_dict(), "schedule": schedule.state_dict(),
        "size": network.weight.shape, "raw": b"bytes", "large": 2**70, "list": [(1,), (1, 2), (1, 2, 3, 4)], "f": 0.5,
    }  # fmt: skip
    path = save(content)
    found = pth.state_dict(path)
    assert list(found) == ["weight", "bias"] and same(found["weight"], network.weight)
    whole = pth.read(path)
    for name in ("epoch", "arch", "done", "args", "set", "raw", "large", "list", "f"):
        assert whole[name] == content[name] and type(whole[name]) is type(content[name])
    assert whole["size"] == (2, 3) and whole["schedule"]["milestones"] == Counter([30, 60])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_later_protocols(save, protocol):
    tensor = torch.arange(6.0)
    path = save({"w": tensor, "set": {1}, "frozen": [b"x" * 300, "λ"]}, pickle_protocol=protocol)
    assert same(pth.state_dict(path)["w"], tensor)


def test_a_state_dict_in_another(save):
    assert list(pth.state_dict(save({"state_dict": {"model": {"w": torch.ones(2)}}, "epoch": 1}))) == ["w"]
    assert list(pth.state_dict(save({"model": {"name": "x"}, "weights": {"w": torch.ones(2)}}))) == ["w"]


def test_many_tensors(save):
    content = {f"layer{i}.weight": torch.full((3,), float(i)) for i in range(2000)}
    assert all(same(array, content[name]) for name, array in pth.state_dict(save(content)).items())


def test_it_loads_into_a_model(save):
    theirs = torch.nn.Sequential(OrderedDict(conv=torch.nn.Conv2d(2, 3, 3), fc=torch.nn.Linear(4, 5)))
    ours = layers.Sequential(conv=layers.Conv2d(2, 3, 3), fc=layers.Linear(4, 5))
    interop.load_torch(ours, save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}}))
    assert np.array_equal(ours.conv.weight.data, theirs.conv.weight.detach().numpy().transpose(2, 3, 1, 0))
    assert np.array_equal(ours.fc.weight.data, theirs.fc.weight.detach().numpy().T)


# Files made by hand


class Reference:
    """Is pickled as a persistent id."""

    def __init__(self, *description):
        self.description = description


class Call:
    """Is pickled as a call of a function, and perhaps a state for its result."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def pickled(content, protocol: int = 2) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            return thing.description if isinstance(thing, Reference) else None

    file = io.BytesIO()
    Pickler(file, protocol).dump(content)
    return file.getvalue()


def storage(count: int, key: str = "0", kind=torch.FloatStorage) -> Reference:
    return Reference("storage", kind, key, "cpu", count)


def tensor(held: Reference, offset, shape, strides) -> Call:
    return Call(torch._utils._rebuild_tensor_v2, held, offset, shape, strides, False, OrderedDict())


FOUR = np.arange(4, dtype="<f4").tobytes()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "made.pth"


def write_zip(path: Path, content, records: dict[str, bytes] | None = None, **options) -> Path:
    """An archive of the object, already pickled or not, and of data/0 with four numbers, or other records."""
    data = content if isinstance(content, bytes) else pickled(content)
    path.write_bytes(fuzz.archive({"data.pkl": data, **({"data/0": FOUR} if records is None else records)}, **options))
    return path


def write_legacy(path: Path, content, storages: dict[str, bytes] | None = None, keys=None) -> Path:
    """The same in the legacy format; each storage is its length and its bytes."""
    storages = {"0": struct.pack("<q", 4) + FOUR} if storages is None else storages
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    pieces = [pth.MAGIC, 1001, system, content, list(storages) if keys is None else keys]
    whole = b"".join(piece if isinstance(piece, bytes) else pickled(piece) for piece in pieces)
    path.write_bytes(whole + b"".join(storages.values()))
    return path


WRITERS = {"zip": write_zip, "legacy": write_legacy}


@pytest.fixture(params=WRITERS)
def write(request, path):
    """`write(content)`: a file of a given object in one of the formats."""
    return lambda content, **options: WRITERS[request.param](path, content, **options)


def test_what_is_made_by_hand_is_read(write):
    expected = np.arange(4.0, dtype=np.float32).reshape(2, 2).T
    assert np.array_equal(pth.state_dict(write({"w": tensor(storage(4), 0, (2, 2), (1, 2))}))["w"], expected)


def test_what_python_2_wrote(write):
    """Strings as bytes, an OrderedDict as a call with pairs, sets from __builtin__, and the oldest rebuild function."""
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x06cuda:0K\x04NtQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\x01K\x03\x85K\x01\x85tR"  # from 1 on, (3,), (1,)
    names = b"c__builtin__\nset\n](K\x01e\x85R"
    pairs = b"](" + b"](U\x01w" + tensor + b"e" + b"](U\x05names" + names + b"e" + b"e"
    content = b"\x80\x02ccollections\nOrderedDict\n" + pairs + b"\x85R}U\x09_metadataK\x01sb."
    found = pth.read(write(content))
    assert list(found) == ["w", "names"] and found["names"] == {1}
    assert np.array_equal(found["w"], np.array([1, 2, 3], np.float32))


def test_a_part_of_a_storage(path):
    """Old legacy files describe storages that lie in others."""
    part = Reference("storage", torch.FloatStorage, "0", "cpu", 4, ("1", 2, 2))
    write_legacy(path, {"whole": tensor(storage(4), 0, (4,), (1,)), "part": tensor(part, 0, (2,), (1,))})
    assert pth.state_dict(path)["part"].tolist() == [2, 3]


def test_big_endian(path):
    records = {"data/0": np.arange(4, dtype=">f4").tobytes(), "byteorder": b"big"}
    write_zip(path, {"w": tensor(storage(4), 0, (4,), (1,))}, records)
    assert pth.state_dict(path)["w"].tolist() == [0, 1, 2, 3]


# What is refused

NO_STORAGE, BROKEN = "a persistent object that is no storage", "damaged or not of its format"


def attacks(marker: Path) -> dict[str, tuple]:
    """What would make the folder `marker`, or worse, if it were run; and what is said of it."""
    make = (os.mkdir, str(marker))
    system = f"mkdir {marker}".encode()
    short = b"\x8c" + bytes([len(system)]) + system
    return {
        "a call": (Call(*make), "posix.mkdir"),
        "a shell": (Call(os.system, system.decode()), "posix.system"),
        "eval": (Call(eval, f"__import__('os').mkdir({str(marker)!r})"), "builtins.eval"),
        "exec": (Call(exec, f"import os; os.mkdir({str(marker)!r})"), "builtins.exec"),
        "getattr": (Call(getattr, "x", "upper"), "builtins.getattr"),
        "in a tensor's arguments": (tensor(Call(*make), 0, (1,), (1,)), "posix.mkdir"),
        "in a key": ({"a": [{"b": (1, Call(*make))}]}, "posix.mkdir"),
        "nested": (Call(torch._utils._rebuild_parameter, Call(*make), True, None), "posix.mkdir"),
        "in a call in a call": (Call(torch._tensor._rebuild_from_type_v2, *make, (1,), None), "posix.mkdir"),
        "in a persistent id": (Reference("storage", os.mkdir, "0", "cpu", 4), "posix.mkdir"),
        "a persistent id of a module": (Reference("module", "x", "y.py", "import os"), NO_STORAGE),
        "a persistent id that is a path": (Reference(f"{marker}"), NO_STORAGE),
        "setstate": (Call(OrderedDict, state=Call(*make)), "posix.mkdir"),
        "the state of a tensor": (
            Call(torch._utils._rebuild_tensor_v2, storage(4), 0, (4,), (1,), False, None, state={"x": 1}),
            "a state for something else than a dict (BUILD)",
        ),
        "another torch function": (Call(torch.load, "x.pth"), "torch.serialization.load"),
        "a NumPy scalar": (np.float64(0.5), "numpy."),
        "a network": (torch.nn.ReLU(), "torch.nn.modules.activation.ReLU"),
        "an old GLOBAL": (b"cos\nsystem\n(S'" + system + b"'\ntR.", "os.system"),
        "STACK_GLOBAL": (b"\x80\x04\x8c\x02os\x8c\x06system\x93" + short + b"\x85R.", "os.system"),
        "a dotted STACK_GLOBAL": (b"\x80\x04\x8c\x02os\x8c\x09path.join\x93)R.", "os.path.join"),
        "INST": (b"(S'" + system + b"'\nios\nsystem\n.", "the instruction INST os system"),
        "OBJ": (b"(ctorch\nSize\n)o.", "the instruction OBJ"),
        "NEWOBJ": (b"\x80\x02ctorch\nSize\n)\x81.", "the instruction NEWOBJ"),
        "NEWOBJ_EX": (b"\x80\x04ctorch\nSize\n)}\x92.", "the instruction NEWOBJ_EX"),
        "EXT1": (b"\x80\x02\x82\x05.", "the instruction EXT1 5"),
        "EXT2": (b"\x80\x02\x83\x05\x00.", "the instruction EXT2 5"),
        "EXT4": (b"\x80\x02\x84\x05\x00\x00\x00.", "the instruction EXT4 5"),
        "PERSID": (b"Pstorage\n.", "the instruction PERSID storage"),
        "NEXT_BUFFER": (b"\x80\x05\x97.", "the instruction NEXT_BUFFER"),
        "DUP": (b"\x80\x02K\x012.", "the instruction DUP"),
        "a call of a string": (b"\x80\x02U\x06system)R.", "a call of what is no function"),
        "a call of a dtype": (b"\x80\x02ctorch\nfloat32\n)R.", "a call of what is no function"),
        "a call with a list": (b"\x80\x02ctorch\nSize\n]R.", "a call of what is no function"),
        "a name with odd characters": (b"\x80\x04\x8c\x01\n\x8c\x07\x1b[31m\xc3\xa4\x93.", r"\n.\x1b[31m\xe4"),
    }  # fmt: skip


@pytest.mark.parametrize("attack", attacks(Path("unused")))
def test_nothing_is_run(write, tmp_path, attack):
    content, named = attacks(tmp_path / "made")[attack]
    assert refused(write(content)).startswith(f"refused, for it asks for {named}"), refused(write(content))
    assert not (tmp_path / "made").exists()


def test_a_bare_pickle_is_not_run_either(path, tmp_path):
    path.write_bytes(pickle.dumps(Call(os.mkdir, str(tmp_path / "made"))))
    assert "posix.mkdir" in refused(path) and not (tmp_path / "made").exists()
    path.write_bytes(pickle.dumps({"w": 1}))
    assert refused(path) == "a pickle, but not one that torch.save has written"


DAMAGED = {
    "beyond the storage": (tensor(storage(4), 1, (4,), (1,)), "reaches to number 4 of a storage that has 4"),
    "by its strides": (tensor(storage(4), 0, (2, 2), (1, 3)), "reaches to number 4 of a storage that has 4"),
    "a negative offset": (tensor(storage(4), -1, (2,), (1,)), "an impossible shape"),
    "a negative stride": (tensor(storage(4), 3, (2,), (-1,)), "an impossible shape"),
    "a negative size": (tensor(storage(4), 0, (-1,), (1,)), "an impossible shape"),
    "an absurd size": (tensor(storage(4), 0, (2**60,), (0,)), "an impossible shape"),
    "a size that is no number": (tensor(storage(4), 0, (2.0,), (1,)), "an impossible shape"),
    "a stride of 0, a billion times": (tensor(storage(4), 0, (2**15, 2**15), (0, 0)), "its tensors would need"),
    "an empty tensor of absurd size": (tensor(storage(4), 0, (0, 2**47, 2**47), (1, 1, 1)), BROKEN),
    "too few strides": (tensor(storage(4), 0, (2, 2), (1,)), "2 dimensions and 1 strides"),
    "too many dimensions": (tensor(storage(4), 0, (1,) * 40, (1,) * 40), "40 dimensions"),
    "without a storage": (tensor("0", 0, (1,), (1,)), "without storage, shape or strides"),  # type: ignore[arg-type]
    "a shape that is text": (tensor(storage(4), 0, "11", "11"), "without storage, shape or strides"),
    "a storage as long as a disk": (tensor(storage(2**50), 0, (1,), (1,)), "its storages would need"),
    "a storage of less than nothing": (tensor(storage(-4), 0, (1,), (1,)), "its storages would need"),
    "a storage of another length": (tensor(storage(3), 0, (1,), (1,)), BROKEN),
    "a storage that is not there": (tensor(storage(4, "1"), 0, (1,), (1,)), BROKEN),
    "a storage by a path": (tensor(storage(4, "../../etc/passwd"), 0, (1,), (1,)), BROKEN),
    "a storage of two dtypes": (
        [tensor(storage(4), 0, (4,), (1,)), tensor(storage(4, kind=torch.IntStorage), 0, (4,), (1,))],
        "storage 0 is described in two ways",
    ),
    "a part outside a storage": (
        tensor(Reference("storage", torch.FloatStorage, "0", "cpu", 4, ("1", 2, 3)), 0, (1,), (1,)),
        "a part of a storage lies outside it",
    ),
    "a parameter of nothing": (Call(torch._utils._rebuild_parameter, 3, True, None), "a parameter that is no tensor"),
    "a call with too little": (Call(torch._utils._rebuild_tensor_v2, storage(4)), BROKEN),
    "a Size of a number": (b"\x80\x02ctorch\nSize\nK\x05\x85R.", "a container of what is none"),
    "an item for a tuple": (b"\x80\x02)K\x01a.", "an item for a list is given to a tuple"),
    "a tuple as a key": (b"\x80\x02})K\x01s.", "a tuple is no key of a dict"),
    "a key without a value": (b"\x80\x02}(K\x01u.", "a key of a dict has no value"),
    "an empty stack": (b"\x80\x02a.", "its pickle takes what was never put"),
    "a memo that was never filled": (b"\x80\x02h\x05.", "its pickle takes what was never put"),
    "no mark": (b"\x80\x02t.", "its pickle takes what was never put"),
    "no end": (b"\x80\x02K\x01", BROKEN),
    "an unknown instruction": (b"\x80\x02\xf0.", BROKEN),
    "a string longer than the file": (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x0f.", BROKEN),
    "a number of a million digits": (b"\x80\x02L" + b"9" * 10**6 + b"L\n.", BROKEN),
    "nested too deeply to hash": (b"\x80\x02})" + b"\x85" * 10**5 + b"K\x01s.", "a tuple is no key of a dict"),
    "a list that is asked for again and again": (
        b"\x80\x02ctorch\nSize\nq\x00](" + b"K\x01" * 10**5 + b"eq\x01" + b"h\x00h\x01\x85R0" * 100 + b".",
        "instructions, which no weights need",
    ),
    "names that cannot be printed": ({"a\nb": tensor(storage(4), 0, (4,), (1,))}, "names of weights hold what cannot"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage(write, damage):
    content, message = DAMAGED[damage]
    assert message in refused(write(content))


@pytest.mark.parametrize(
    ("content", "held"),
    [({"epoch": 3, "lr": 0.1}, "epoch, lr"), ([1, 2], "a list"), ({}, "nothing"), (torch.ones(2), "a ndarray")],
)
def test_no_state_dict(save, content, held):
    assert refused(save(content)) == f"holds no state dict, but {held}; save model.state_dict() in PyTorch"


def test_containers_that_hold_themselves(write):
    """Lists of lists of lists, two of each: a billion if they were copied. And a dict in itself."""
    content: list = [tensor(storage(4), 0, (4,), (1,))]
    for _ in range(40):
        content = [content, content]
    endless: dict = {"billion": content}
    endless["state_dict"] = endless
    assert "holds no state dict, but billion" in refused(write(endless))


def test_truncated(save):
    path = save({"w": torch.arange(1000.0), "v": torch.ones(3, 4)})
    content = path.read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        refused(path)


def test_a_changed_weight_is_found_out(path):
    torch.save({"w": torch.arange(1000.0)}, path)
    content = path.read_bytes()
    at = content.index(np.float32(500).tobytes() + np.float32(501).tobytes())
    path.write_bytes(content[:at] + b"\1" + content[at + 1 :])
    assert "Bad CRC-32" in refused(path)


GOOD = {"w": tensor(storage(4), 0, (4,), (1,))}
OUTSIDE = "a zip archive, but not one that torch.save has written; it has no data.pkl"


def test_compressed_records(path):
    """Nothing is unpacked: a zip bomb would be the only reason to compress random weights."""
    write_zip(path, GOOD, compression=zipfile.ZIP_DEFLATED)
    assert "record data.pkl is compressed" in refused(path)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"data/0": FOUR[:12]}, "a storage of 4 float32 has 12 bytes"),
        ({"data/0": FOUR + FOUR}, "a storage of 4 float32 has 32 bytes"),
        ({"data/1": FOUR}, "record data/0 is missing"),
        ({"data/0": FOUR, "constants.pkl": b""}, "a TorchScript program; save the state_dict() of its model instead"),
    ],
)
def test_archives_that_are_not_right(path, records, message):
    assert message in refused(write_zip(path, GOOD, records))


def test_archives_of_something_else(path):
    path.write_bytes(fuzz.archive({"readme.txt": b"x"}))
    assert refused(path) == OUTSIDE
    path.write_bytes(fuzz.archive({"data.pkl": pickled(GOOD)}, folder="../.."))
    assert refused(path) == OUTSIDE


def test_records_of_the_same_name(path):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as file:
        for content in (FOUR, FOUR[::-1]):
            file.writestr("a/data/0", content)
        file.writestr("a/data.pkl", pickled(GOOD))
    assert "its records overlap" in refused(path)


def test_records_that_share_their_bytes(path):
    """Entries of the directory that point to the same bytes unpack a small file to a large one."""
    write_zip(path, GOOD)
    content = path.read_bytes()
    end = content.rindex(b"PK\5\6")
    count, length, start = struct.unpack("<10xHII", content[end : end + 20])
    entry = content[start : start + 46 + len("archive/data.pkl")]
    more = b"".join(entry.replace(b"data.pkl", b"%08d" % i) for i in range(1000))
    sizes = struct.pack("<HHII", count + 1000, count + 1000, length + len(more), start)
    path.write_bytes(content[:end] + more + content[end : end + 8] + sizes + content[end + 20 :])
    assert "overlap" in refused(path).lower()


def test_legacy_storages_that_are_not_right(path):
    for storages, keys in [
        ({"0": struct.pack("<q", 5) + FOUR}, None),
        ({"0": struct.pack("<q", 4) + FOUR[:-1]}, None),
        ({"0": struct.pack("<q", -4) + FOUR}, None),
        ({"1": struct.pack("<q", 4) + FOUR}, None),
        ({}, None),
        ({"0": struct.pack("<q", 4) + FOUR}, {"0": 1}),
        ({"0": struct.pack("<q", 4) + FOUR}, [["0"]]),
    ]:
        assert "damaged or not of its format" in refused(write_legacy(path, GOOD, storages, keys))


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"PK\x03\x04", b"hello world", b"\x89PNG\r\n", b"{}" * 100, bytes(1000)]
)
def test_something_else(path, content):
    path.write_bytes(content)
    refused(path)


def test_no_file(tmp_path):
    assert refused(tmp_path / "none.pth") == "No such file or directory"
    assert refused(tmp_path) == "Is a directory"


# Fuzzing: python -m tests.fuzz does the same for as long as one likes


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return fuzz.READERS["pth"].seeds(tmp_path_factory.mktemp("seeds"))


@settings(suppress_health_check=list(HealthCheck), max_examples=150)
@given(
    which=st.integers(0, 5),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    keep=st.floats(0.5, 1.5),
)
def test_changed_bytes(seeds, tmp_path, which, flips, keep):
    """Some bytes replaced, and perhaps the end cut off: it is read, or one line says why not."""
    seed = seeds[which]
    broken = bytearray(seed.content)
    for where, value in flips:
        broken[int(where * len(broken))] = value
    path = tmp_path / "changed.pth"
    path.write_bytes(seed.whole(bytes(broken[: max(1, int(keep * len(broken)))])))
    fuzz.accepts(fuzz.READERS["pth"], path)


@pytest.mark.parametrize("name", fuzz.READERS)
def test_a_short_fuzz(tmp_path, name):
    """Some hundred files, of which a reader may make something or raise ValueError; both happen."""
    reader = fuzz.READERS[name]
    path = tmp_path / f"changed{reader.suffix}"
    results = []
    for content, _ in zip(fuzz.inputs(reader, tmp_path, np.random.default_rng(1)), range(400), strict=False):
        path.write_bytes(content)
        results.append(fuzz.accepts(reader, path))
    assert {True, False} == set(results)
