"""torchvision's own networks with random weights: they come here, and go back, with the same logits.

torchvision needs a PyTorch of its own, so it is in no extra; without it these tests are skipped.
"""

from __future__ import annotations

import pytest

from minicnn import Tensor, init, interop, models, no_grad
from tests import device
from tests.device import np

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

CLASSES, N = 11, 2
VGG = {f"vgg{depth}{bn}": (f"vgg{depth}", {"bn": bool(bn)}, 224) for depth in (11, 13, 16, 19) for bn in ("", "_bn")}
RESNET = {f"resnet{depth}": (f"resnet{depth}", {}, 64) for depth in (18, 34, 50, 101, 152)}
NETS = {  # torchvision's name: name and variant here, and a side in pixels that both take
    **VGG,
    **RESNET,
    "alexnet": ("alexnet", {"variant": "torchvision", "image_size": 224}, 224),
    "googlenet": ("googlenet", {"variant": "torchvision"}, 96),
    "inception_v3": ("inception-v3", {}, 96),
}
AUXILIARY = {
    "googlenet": (96, ["logits", "aux_logits1", "aux_logits2"]),
    "inception_v3": (299, ["logits", "aux_logits"]),
}
# What a block of ResNet adds to its input is small, or the sum would grow with every block.
LAST_OF_A_BLOCK = {f"resnet{depth}": ".bn2" if depth < 50 else ".bn3" for depth in (18, 34, 50, 101, 152)}


def of_torchvision(net: str):
    """The network of torchvision with random weights, BatchNorms among them, that keep the size of its signal."""
    options = {"init_weights": False, "aux_logits": True} if net in AUXILIARY else {}
    with torch.device("meta"):  # drawn here, once
        theirs = getattr(torchvision.models, net)(weights=None, num_classes=CLASSES, **options)
    theirs.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(7)

    def draw(tensor, low: float, high: float) -> None:
        tensor.data.uniform_(low, high, generator=generator)

    for name, module in theirs.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            limit = (6 / module.weight[0].numel()) ** 0.5
            draw(module.weight, -limit, limit)
            if module.bias is not None:
                draw(module.bias, -0.2, 0.2)
        elif isinstance(module, torch.nn.BatchNorm2d):
            share = 0.15 if name.endswith(LAST_OF_A_BLOCK.get(net, "no such name")) else 1.0
            draw(module.weight, 0.7 * share, 1.3 * share)
            draw(module.bias, -0.2, 0.2)
            draw(module.running_mean, -0.2, 0.2)
            draw(module.running_var, 0.7, 1.4)
            module.num_batches_tracked.zero_()
        elif isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return theirs


def pair(net: str):
    name, variant, _ = NETS[net]
    theirs = of_torchvision(net)
    with init.skipped():
        ours = models.build(name, CLASSES, **variant).to(device.name)
    for module in ours.modules():
        if hasattr(module, "p"):
            module.p = 0.0
    interop.load_torch(ours, theirs.state_dict())
    return ours, theirs


def images(side: int):
    x = np.random.default_rng(1).standard_normal((N, side, side, 3)).astype(np.float32)
    return Tensor(x), torch.from_numpy(device.host(np.ascontiguousarray(x.transpose(0, 3, 1, 2))))


def agree(ours: Tensor, theirs, tolerance: float = 1e-4) -> None:
    expected = theirs.numpy()
    assert ours.shape == expected.shape and abs(expected).max() > 0.1
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("net", NETS)
def test_logits_agree_both_ways(net):
    ours, theirs = pair(net)
    x, x_nchw = images(NETS[net][2])
    with no_grad(), torch.no_grad():
        expected = theirs.eval()(x_nchw)
        agree(ours.eval()(x), expected)

        for tensor in theirs.state_dict().values():
            tensor.zero_()
        assert not theirs(x_nchw).any()
        weights = {name: torch.from_numpy(array) for name, array in interop.to_torch(ours).items()}
        theirs.load_state_dict(weights)
        assert torch.equal(theirs(x_nchw), expected)


@pytest.mark.not_on_host("runs in float64 at 299 pixels")
@pytest.mark.parametrize("net", AUXILIARY)
def test_all_logits_of_training_agree(net):
    """In float64: the statistics of two images make more of a rounding error than a trained network would."""
    side, fields = AUXILIARY[net]
    ours, theirs = pair(net)
    ours, theirs = ours.to(dtype=np.float64).train(), theirs.double().train()
    x, x_nchw = images(side)
    with no_grad(), torch.no_grad():
        outputs, expected = ours(Tensor(x.data.astype(np.float64))), theirs(x_nchw.double())
    assert len(outputs) == len(fields)
    for logits, field in zip(outputs, fields, strict=True):
        agree(logits, getattr(expected, field), tolerance=1e-8)
    state, running = theirs.state_dict(), interop.to_torch(ours)
    for name in (name for name in running if "running" in name):
        np.testing.assert_allclose(running[name], state[name].numpy(), rtol=1e-8, atol=1e-8, err_msg=name)
