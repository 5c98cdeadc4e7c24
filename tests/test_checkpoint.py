"""Checkpoints: whole or not at all, the same bytes for the same content, clear about what they cannot read."""

from __future__ import annotations

import errno
import os

import numpy
import pytest
from safetensors.numpy import load_file, save_file

from minicnn import checkpoint
from tests.device import np

ARRAYS = {
    "conv.weight": np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32),
    "optimiser/steps": np.asarray(7),
    "optimiser/0.velocity": np.arange(6.0).reshape(2, 3).T,  # not contiguous
}
METADATA = {"epoch": "3", "model": '{"name": "λ"}', "a": "", "b": "", "c": "", "d": "", "e": ""}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "last.safetensors"
    checkpoint.write(path, ARRAYS, METADATA)
    return path


def test_round_trip(path):
    arrays, metadata = checkpoint.read(path)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].shape == array.shape and arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)
    assert metadata == {**METADATA, "format": "minicnn", "layout": "HWIO"}


def test_parts():
    assert checkpoint.part(ARRAYS).keys() == {"conv.weight"}
    assert checkpoint.part(ARRAYS, "optimiser").keys() == {"steps", "0.velocity"}


def test_other_programs_can_read_it(path):
    assert np.array_equal(load_file(path)["conv.weight"], ARRAYS["conv.weight"])


def test_the_same_content_makes_the_same_bytes(path):
    first = path.read_bytes()
    for _ in range(10):  # the library draws an order of the metadata each time
        checkpoint.write(path, ARRAYS, METADATA)
        assert path.read_bytes() == first


@pytest.mark.parametrize("keep", [0, 5, 60, 0.5, 0.999])
def test_truncated(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(ValueError, match=r"last\.safetensors: truncated or not a safetensors file"):
        checkpoint.read(path)


def test_missing(tmp_path):
    with pytest.raises(ValueError, match=r"none\.safetensors: no such file"):
        checkpoint.read(tmp_path / "none.safetensors")


def test_of_another_program(tmp_path):
    save_file({"w": numpy.ones(2)}, tmp_path / "torch.safetensors")
    with pytest.raises(ValueError, match=r"torch\.safetensors: not a checkpoint of minicnn; .*load_torch"):
        checkpoint.read(tmp_path / "torch.safetensors")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(path, monkeypatch, failing):
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left on device; nothing was written over") as raised:
        checkpoint.write(path, {"conv.weight": np.zeros(3)}, {})
    assert raised.value.filename == str(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_interruption_leaves_what_was_there(path, monkeypatch):
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(path, {"conv.weight": np.zeros(3)}, {})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_is_forced_to_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, f=original: (calls.append(name), f(*a)))
    checkpoint.write_whole(tmp_path / "file", b"con", b"tent")
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the folder that holds the name
    assert (tmp_path / "file").read_bytes() == b"content"
