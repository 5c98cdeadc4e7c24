"""`python -m minicnn.weights`: published weights by name, from a server on this machine, and conversion both ways."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minicnn import Tensor, checkpoint, evaluate, init, interop, models, no_grad, optim, weights
from minicnn.data import catalogue

torch = pytest.importorskip("torch")
torch_nets = pytest.importorskip("tests.models.torch_nets")


def small(seed: int = 0, **sizes) -> models.Model:
    """A resnet20 whose statistics are not 0 and 1."""
    network, rng = models.build("resnet20", **sizes), np.random.default_rng(seed)
    for name, array in network.named_buffers():
        array[...] = rng.uniform(0.5, 1.5, array.shape) if name.endswith("var") else rng.normal(size=array.shape)
    return network


def same(one: models.Model, two: models.Model) -> bool:
    states = one.state_dict(), two.state_dict()
    return states[0].keys() == states[1].keys() and all(np.array_equal(a, states[1][k]) for k, a in states[0].items())


def refused(capsys, *arguments) -> str:
    """The command's one line on standard error, with which it exits 2."""
    assert weights.main([str(a) for a in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


# list and get


@pytest.fixture
def published(tmp_path_factory, monkeypatch):
    """`resnet18` is a resnet20 for 1000 classes, in a file that PyTorch wrote, on a server on this machine."""
    folder, network = tmp_path_factory.mktemp("server"), small(num_classes=1000)
    state = {name: torch.from_numpy(array) for name, array in interop.to_torch(network).items()}
    torch.save(state, folder / "file.pth", _use_new_zipfile_serialization=False)
    content = (folder / "file.pth").read_bytes()
    name = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (folder / "file.pth").rename(folder / name)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def log_message(self, *arguments):
            asked.append(self.path)

    asked: list[str] = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        entry = weights.PUBLISHED["resnet18"]._replace(model={"name": "resnet20", "num_classes": 1000}, file=name)
        monkeypatch.setitem(weights.PUBLISHED, "resnet18", entry)
        monkeypatch.setattr(weights, "HOST", f"http://127.0.0.1:{served.server_port}")
        yield network, folder / name, asked
        served.shutdown()
        thread.join()


def test_get(published, tmp_path, capsys):
    network, _, asked = published
    folder = tmp_path / "a" / "kept"
    for _ in range(2):  # the second time it is there already
        assert weights.main(["get", "resnet18", "--folder", str(folder)]) == 0
        assert capsys.readouterr().out == f"resnet18: {folder / 'resnet18.safetensors'}\n"
    assert len(asked) == 1 and [file.name for file in folder.iterdir()] == ["resnet18.safetensors"]
    assert same(evaluate.load(folder / "resnet18.safetensors"), network)
    metadata = checkpoint.read(folder / "resnet18.safetensors")[1]
    assert tuple(json.loads(metadata["classes"])) == weights.imagenet_classes()
    assert json.loads(metadata["mean"]) == [0.485, 0.456, 0.406] and metadata["source"].endswith(".pth")
    assert weights.main(["list", "--folder", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("resnet18 ")).endswith(
        f"in {folder / 'resnet18.safetensors'}"
    )


def test_a_wrong_checksum_leaves_nothing(published, tmp_path, capsys):
    _, file, _ = published
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "its checksum is" in refused(capsys, "get", "resnet18", "--folder", tmp_path)
    assert list(tmp_path.iterdir()) == []
    file.write_bytes(content)
    assert weights.get("resnet18", tmp_path).is_file()


def test_weights_that_do_not_fit_are_kept_for_another_try(published, tmp_path, monkeypatch, capsys):
    """What was downloaded is not downloaded again."""
    _, file, asked = published
    with monkeypatch.context() as patch:
        patch.setitem(weights.PUBLISHED["resnet18"].model, "num_classes", 10)
        assert "wrong shape: fc.weight" in refused(capsys, "get", "resnet18", "--folder", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert weights.get("resnet18", tmp_path).is_file() and len(asked) == 1


def test_no_network_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(weights, "HOST", "http://127.0.0.1:9")  # the discard port: nothing listens
    line = refused(capsys, "get", "vgg16", "--folder", tmp_path)
    assert line.startswith("http://127.0.0.1:9/vgg16-397923af.pth: cannot be reached") and "check the network" in line


def test_an_unknown_name_is_one_line(tmp_path, capsys):
    assert "'resnet81': did you mean resnet18" in refused(capsys, "get", "resnet81", "--folder", tmp_path)
    assert refused(capsys, "get", "xyz", "--folder", tmp_path).startswith(
        "no published weights are called 'xyz': choose"
    )


def test_interrupted(monkeypatch, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "get", interrupt)
    assert weights.main(["get", "resnet18"]) == 130
    assert "it goes on from there" in capsys.readouterr().err


@pytest.mark.parametrize("name", weights.PUBLISHED)
def test_the_catalogue(name):
    """Names and checksums are well formed, and every network can be built, for 1000 classes."""
    published = weights.PUBLISHED[name]
    assert re.fullmatch(r"[a-z0-9_]+(-owt)?-[0-9a-f]{8}\.pth", published.file) and published.file.startswith(name[:5])
    assert re.fullmatch(r"[0-9a-f]{8}", published.source.sha256)
    assert published.source.url == f"https://download.pytorch.org/models/{published.file}"
    assert 50 < published.top1 < published.top5 < 100
    with init.skipped():
        network = models.build(**published.model)
    numbers = sum(array.size for array in network.state_dict().values())
    assert network.num_classes == 1000 and abs(4 * numbers / 1e6 / published.megabytes - 1) < 0.02


def test_the_classes():
    classes = weights.imagenet_classes()
    assert len(classes) == 1000 and classes[0] == "tench" and classes[207] == "golden retriever"
    assert classes[217] == catalogue.IMAGENETTE_CLASSES[1] and all(name == name.strip() for name in classes)


# convert


def test_to_pytorch_and_back(tmp_path, capsys):
    network = small(num_classes=7)
    ours, theirs, again = (tmp_path / f"{name}.safetensors" for name in ("ours", "theirs", "again"))
    facts = {"model": json.dumps(network.config), "classes": '["a"]'}
    checkpoint.write(ours, network.state_dict(), facts)
    assert weights.main(["convert", str(ours), "--out", str(theirs)]) == 0
    assert capsys.readouterr().out.endswith("numbers, in PyTorch's names and layout\n")
    expected = interop.to_torch(network)
    found = load_file(theirs)
    assert found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in expected)
    arguments = ["convert", str(theirs), "--model", "resnet20", "--classes", "7", "--out", str(again)]
    assert weights.main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"{again}: resnet20, ")
    assert again.read_bytes() == ours.read_bytes()


def test_a_layout_can_be_asked_for(tmp_path, capsys):
    network, ours = small(), tmp_path / "ours.safetensors"
    checkpoint.write(ours, network.state_dict(), {"model": json.dumps(network.config)})
    weights.main(["convert", str(ours), "--to", "minicnn", "--out", str(tmp_path / "copy.safetensors")])
    assert (tmp_path / "copy.safetensors").read_bytes() == ours.read_bytes()


def test_from_a_pth(tmp_path):
    network = small()
    state = {f"module.{name}": torch.from_numpy(array) for name, array in interop.to_torch(network).items()}
    torch.save({"state_dict": state}, tmp_path / "theirs.pth")
    out = tmp_path / "ours.safetensors"
    assert weights.main(["convert", str(tmp_path / "theirs.pth"), "--model", "resnet20", "--out", str(out)]) == 0
    assert same(evaluate.load(out), network)


def test_what_cannot_be_converted(tmp_path, capsys):
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "w.safetensors")
    file, out = tmp_path / "w.safetensors", tmp_path / "out.safetensors"
    before = sorted(tmp_path.iterdir())
    for arguments, message in [
        ((tmp_path / "none", "--out", out), "none: no such run folder or file"),
        ((file, "--out", out), "w.safetensors: does not say which network it is of; say it with --model"),
        ((file, "--out", tmp_path / "out.pth"), "out.pth: weights are written as NAME.safetensors"),
        ((file, "--model", "resnet20", "--out", file), "w.safetensors: is the file that is read; choose another name"),
        ((file, "--model", "resnet20", "--out", out), "w.safetensors: ResNet does not fit the weights"),
        ((file, "--model", "resnt20", "--out", out), "unknown model 'resnt20': did you mean resnet20"),
        ((tmp_path, "--out", out), "is no run folder, it has no last.safetensors"),
    ]:
        assert message in refused(capsys, "convert", *arguments)
    assert sorted(tmp_path.iterdir()) == before


NETS = {
    "resnet18": ("resnet18", {}, 96, lambda: torch_nets.ResNet((2, 2, 2, 2), False, 5)),
    "vgg11_bn": ("vgg11", {"bn": True}, 96, lambda: torch_nets.VGG(True, 5)),
    "googlenet": ("googlenet", {"variant": "torchvision"}, 96, lambda: torch_nets.GoogLeNet(5)),
}


@pytest.mark.parametrize("net", NETS)
def test_a_network_trained_here_runs_there(net, tmp_path):
    """Two steps here; the file that `convert` writes, loaded strictly in PyTorch, gives the same logits."""
    name, variant, side, theirs = NETS[net]
    ours, theirs = models.build(name, 5, image_size=side, **variant), theirs()
    optimiser, rng = optim.SGD(ours.parameters(), lr=1e-3), np.random.default_rng(0)
    x = rng.normal(size=(3, side, side, 3)).astype(np.float32)
    for _ in range(2):
        optimiser.zero_grad()
        models.loss(ours(Tensor(x)), np.array([0, 3, 4])).backward()
        optimiser.step()
    checkpoint.write(tmp_path / "run.safetensors", ours.state_dict(), {"model": json.dumps(ours.config)})
    assert weights.main(["convert", str(tmp_path / "run.safetensors"), "--out", str(tmp_path / "pt.safetensors")]) == 0
    state = {key: torch.from_numpy(array) for key, array in load_file(tmp_path / "pt.safetensors").items()}
    theirs.load_state_dict(state, strict=True)
    with no_grad(), torch.no_grad():
        logits = theirs.eval()(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))))
        expected = (logits[0] if isinstance(logits, tuple) else logits).numpy()
        y = ours.eval()(Tensor(x)).numpy()
    assert abs(y - expected).max() < 1e-4 * abs(expected).max()
