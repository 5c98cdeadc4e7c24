"""Whole networks against PyTorch's with the same weights: logits in evaluation, and all weights after a step."""

from __future__ import annotations

import pytest

from minicnn import Tensor, init, interop, models, no_grad, optim
from tests import device
from tests.device import np

torch = pytest.importorskip("torch")
torch_nets = pytest.importorskip("tests.models.torch_nets")

CLASSES = 7
NETS = {  # name and arguments here, side of the image, PyTorch's
    "resnet18": ("resnet18", {}, 96, lambda: torch_nets.ResNet((2, 2, 2, 2), False, CLASSES)),
    "resnet50": ("resnet50", {}, 96, lambda: torch_nets.ResNet((3, 4, 6, 3), True, CLASSES)),
    "vgg11": ("vgg11", {}, 96, lambda: torch_nets.VGG(False, CLASSES)),
    "vgg11_bn": ("vgg11", {"bn": True}, 96, lambda: torch_nets.VGG(True, CLASSES)),
    "alexnet": ("alexnet", {"variant": "torchvision"}, 224, lambda: torch_nets.AlexNet(False, CLASSES)),
    "alexnet_larger": ("alexnet", {"variant": "torchvision"}, 288, lambda: torch_nets.AlexNet(False, CLASSES)),
    "alexnet_2012": ("alexnet", {}, 227, lambda: torch_nets.AlexNet(True, CLASSES)),
    "googlenet": ("googlenet", {"variant": "torchvision"}, 224, lambda: torch_nets.GoogLeNet(CLASSES)),
}


def pair(net: str):
    """Both networks with the same weights, and two images (N, H, W, C)."""
    name, variant, side, theirs = NETS[net]
    torch.manual_seed(0)
    theirs = theirs()
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # statistics that are not 0 and 1
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    with init.skipped():
        ours = models.build(name, num_classes=CLASSES, image_size=side, **variant).to(device.name)
    interop.load_torch(ours, theirs.state_dict())
    return ours, theirs, np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)


def nchw(x: np.ndarray):
    return torch.from_numpy(device.host(np.ascontiguousarray(x.transpose(0, 3, 1, 2))))


def without_dropout(model):
    for module in model.modules():
        if hasattr(module, "p"):
            module.p = 0.0
    return model.train()


@pytest.mark.parametrize("net", NETS)
def test_logits(net):
    ours, theirs, x = pair(net)
    with no_grad(), torch.no_grad():
        expected = theirs.eval()(nchw(x))
        expected = (expected[0] if isinstance(expected, tuple) else expected).numpy()
        y = ours.eval()(Tensor(x)).numpy()
    assert abs(y - expected).max() < 1e-4 * abs(expected).max()


@pytest.mark.not_on_host("steps in float64 at 96 and 224 pixels")
@pytest.mark.parametrize("net", ["resnet18", "googlenet"])
def test_a_training_step_in_float64(net):
    ours, theirs, x = pair(net)
    ours, theirs, x, labels = (
        without_dropout(ours).to(dtype=np.float64),
        theirs.double().train(),
        x.astype(float),
        [3, 5],
    )

    outputs = theirs(nchw(x))
    main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    cross_entropy, targets = torch.nn.functional.cross_entropy, torch.tensor(labels)
    (cross_entropy(main, targets) + 0.3 * sum(cross_entropy(logits, targets) for logits in auxiliary)).backward()
    torch.optim.SGD(theirs.parameters(), lr=0.1).step()

    models.loss(ours(Tensor(x)), np.array(labels)).backward()
    optim.SGD(ours.parameters(), lr=0.1).step()

    expected = {name: value for name, value in theirs.state_dict().items() if "num_batches" not in name}
    result = interop.to_torch(ours)
    assert result.keys() == expected.keys()
    for name, value in result.items():
        np.testing.assert_allclose(value, expected[name].numpy(), rtol=1e-8, atol=1e-9, err_msg=name)


def test_published_cifar_resnet20(shared):
    """akamaster's ResNet-20: the logits that PyTorch gave on 1,000 test images, and their accuracy."""
    golden = np.load(shared / "weights" / "cifar_resnet20_golden.npz")
    with np.load(shared / "data" / "cifar10_lossless_5k.npz") as data:
        images, labels = data["x_test"], data["y_test"]
    with init.skipped():
        model = models.build("resnet20").to(device.name).eval()
    interop.load_torch(model, shared / "weights" / "cifar_resnet20.safetensors")
    x = (images.astype(np.float32) / 255 - golden["mean"]) / golden["std"]
    with no_grad():
        logits = np.concatenate([model(Tensor(x[i : i + 250])).data for i in range(0, len(x), 250)])
    assert np.abs(logits - golden["logits"]).max() < 1e-4
    assert float((logits.argmax(axis=1) == labels).mean()) == pytest.approx(0.915)
