"""Weights go to PyTorch's layout and back, and whatever does not fit is said at once."""

from __future__ import annotations

import numpy
import pytest
from safetensors.numpy import save_file

from minicnn import Tensor, checkpoint, init, interop, layers, models
from tests import device
from tests.device import np


class Net(layers.Module):
    """A convolution, a BatchNorm, and a linear layer on the flattened 2x3 map of 4 channels."""

    def __init__(self):
        self.conv1 = layers.Conv2d(2, 4, (3, 2), bias=False)
        self.bn1 = layers.BatchNorm(4)
        self.fc = layers.Linear(24, 5, from_map=(2, 3, 4))
        self.to(device.name)


def torch_state() -> dict[str, np.ndarray]:
    rng = numpy.random.default_rng(0)
    shapes = {
        "conv1.weight": (4, 2, 3, 2),  # (O, C, KH, KW)
        "bn1.weight": (4,),
        "bn1.bias": (4,),
        "bn1.running_mean": (4,),
        "bn1.running_var": (4,),
        "fc.weight": (5, 24),  # (out, C·H·W)
        "fc.bias": (5,),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_layouts():
    state, net = torch_state(), Net()
    interop.load_torch(net, state)
    w, conv = net.conv1.weight.numpy(), state["conv1.weight"]
    assert all(w[kh, kw, c, o] == conv[o, c, kh, kw] for kh, kw, c, o in np.ndindex(w.shape))
    x = np.random.default_rng(1).normal(size=(6, 2, 3, 4)).astype(np.float32)  # (N, H, W, C)
    expected = device.host(x).transpose(0, 3, 1, 2).reshape(6, 24) @ state["fc.weight"].T + state["fc.bias"]
    np.testing.assert_allclose(net.fc(Tensor(x).flatten()).data, expected, rtol=1e-5)
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert np.array_equal(net.state_dict()[f"bn1.{name}"], state[f"bn1.{name}"])


def test_there_and_back():
    state, net = torch_state(), Net()
    interop.load_torch(net, state)
    result = interop.to_torch(net)
    assert result.keys() == state.keys()
    for name, array in result.items():
        assert np.array_equal(array, state[name]), name
        assert array.flags.c_contiguous and not np.shares_memory(array, net.state_dict()[name])


def test_other_names_for_the_same():
    state = {f"module.{name.replace('fc', 'linear')}": array for name, array in torch_state().items()}
    state["module.bn1.num_batches_tracked"] = numpy.array(7)
    net = Net()
    interop.load_torch(net, state)
    assert np.array_equal(net.fc.bias.data, state["module.linear.bias"])

    renamed = layers.Sequential(linear=layers.Linear(2, 3))
    interop.load_torch(renamed, {"fc.weight": numpy.ones((3, 2)), "fc.bias": numpy.ones(3)})
    assert (renamed.linear.weight.data == 1).all()


def test_what_wrappers_put_before_names():
    """DataParallel, torch.compile and Lightning; not where the model itself has a child of that name."""
    net = Net()
    interop.load_torch(net, {f"model._orig_mod.module.{name}": array for name, array in torch_state().items()})
    assert np.array_equal(net.fc.bias.data, torch_state()["fc.bias"])
    inner = layers.Sequential(model=layers.Linear(2, 3))
    interop.load_torch(inner, {"model.weight": numpy.ones((3, 2)), "model.bias": numpy.ones(3)})
    assert (inner.model.weight.data == 1).all()


def test_everything_that_does_not_fit_is_reported_together():
    state, net = torch_state(), Net()
    before = {name: array.copy() for name, array in net.state_dict().items()}
    del state["bn1.bias"]
    state["fc.weight"], state["layer9.weight"] = numpy.zeros((5, 23), np.float32), numpy.zeros(1, np.float32)
    with pytest.raises(ValueError) as error:
        interop.load_torch(net, state)
    message = str(error.value)
    assert message.startswith("state dict: Net does not fit the weights; ") and "\n" not in message
    assert "wrong shape: fc.weight is (23, 5), needs (24, 5)" in message
    assert "missing: bn1.bias" in message and "unexpected: layer9.weight" in message
    for name, array in net.state_dict().items():
        assert np.array_equal(array, before[name]), name


def test_without_strict_only_shapes_matter():
    net = Net()
    interop.load_torch(net, {"fc.bias": numpy.full(5, 3.0), "aux1.fc1.bias": numpy.zeros(2)}, strict=False)
    assert (net.fc.bias.data == 3).all()
    with pytest.raises(ValueError, match=r"wrong shape: conv1.weight is \(3,\)"):
        interop.load_torch(net, {"conv1.weight": numpy.zeros(3)}, strict=False)


def test_files_in_both_layouts(tmp_path):
    state, net, again = torch_state(), Net(), Net()
    save_file(state, tmp_path / "torch.safetensors")
    interop.load_torch(net, tmp_path / "torch.safetensors")
    assert np.array_equal(interop.to_torch(net)["fc.weight"], state["fc.weight"])

    checkpoint.write(tmp_path / "ours.safetensors", {**net.state_dict(), "optimiser/0": np.ones(1)}, {})
    interop.load_torch(again, str(tmp_path / "ours.safetensors"))
    for name, array in again.state_dict().items():
        assert np.array_equal(array, net.state_dict()[name]), name


def test_half_precision_weights_are_cast(tmp_path):
    save_file({name: array.astype(np.float16) for name, array in torch_state().items()}, tmp_path / "w.safetensors")
    net = Net()
    interop.load_torch(net, tmp_path / "w.safetensors")
    assert net.fc.weight.dtype == np.float32


def test_weights_of_another_model_name_the_file(tmp_path):
    save_file(torch_state(), tmp_path / "w.safetensors")
    with (
        init.skipped(),
        pytest.raises(ValueError, match=r"w\.safetensors: ResNet does not fit the weights; .*missing: "),
    ):
        interop.load_torch(models.build("resnet20"), tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.pth", b"", r"net\.pth: damaged or not of its format"),
        ("net.pth", b"cos\nsystem\n(S'ls'\ntR.", r"net\.pth: refused, for it asks for os\.system"),
        ("net.pt", None, r"net\.pt: No such file or directory"),
        ("net.safetensors", b"\x10\0\0\0\0\0\0\0{", r"net\.safetensors: truncated or not a safetensors file"),
        ("net.safetensors", None, r"net\.safetensors: no such file"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        interop.load_torch(Net(), tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.not_on_host("CuPy exports its arrays as ROCm's there")
def test_dlpack_shares_memory():
    array = np.arange(6.0).reshape(2, 3)
    assert np.shares_memory(interop.from_dlpack(array).data, array)
    assert np.shares_memory(np.from_dlpack(interop.from_dlpack(Tensor(array))), array)


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    net = Net()
    state = {name: torch.nn.Parameter(torch.from_numpy(array)) for name, array in torch_state().items()}
    interop.load_torch(net, state)
    assert np.array_equal(interop.to_torch(net)["conv1.weight"], state["conv1.weight"].detach().numpy())
    images = torch.ones(2, 3, 4, 5)
    x = interop.from_dlpack(images).transpose(0, 2, 3, 1)
    assert x.shape == (2, 4, 5, 3)
    images[0, 2, 1, 1] = 9
    assert x.data[0, 1, 1, 2] == 9


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_pytorch(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array) for name, array in torch_state().items()}
    state |= {"bn1.num_batches_tracked": torch.tensor(5)}
    path = tmp_path / "net.pth.tar"
    torch.save({"epoch": 3, "state_dict": state}, path, _use_new_zipfile_serialization=zipped)
    net, expected = Net(), Net()
    interop.load_torch(net, path)
    interop.load_torch(expected, torch_state())
    for name, array in net.state_dict().items():
        assert np.array_equal(array, expected.state_dict()[name]), name


def test_safetensors_in_bfloat16_become_float32(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    state = {name: torch.from_numpy(array).bfloat16() for name, array in torch_state().items()}
    save_torch({**state, "fc.bias": state["fc.bias"].float()}, tmp_path / "w.safetensors")
    arrays, _ = interop.read(tmp_path / "w.safetensors")
    assert arrays.keys() == state.keys()
    for name, array in arrays.items():
        assert array.dtype == np.float32 and np.array_equal(array, state[name].float().numpy()), name
    save_torch({"w": torch.ones(3).to(torch.float8_e4m3fn)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors: has numbers of a kind that NumPy does not have .*float8"):
        interop.read(tmp_path / "w.safetensors")
