"""Networks with fully connected layers, on images larger than those that they are made for."""

from __future__ import annotations

from minicnn import ops
from minicnn.autograd import Tensor
from minicnn.layers import Linear, Module


class Dense(Module):
    """A network whose fully connected layers slide over the map as convolutions; its class scores are averaged.

    A fully connected layer on a flattened 7x7 map is a 7x7 convolution that fits in one place only; the next ones are
    1x1 convolutions. On a larger image the same weights give a map of class scores, as if the network had looked at
    every position 32 pixels apart, for little more than the price of one.

    `model` has `features`, which make the map, and a `classifier`, a Sequential whose first linear layer says what map
    it takes (`from_map`): VGG, AlexNet, ZFNet. The parameters are the model's own.
    Source: Sermanet et al. 2013 (OverFeat, arXiv 1312.6229, §3.5); VGG's test, arXiv 1409.1556, §3.2.
    """

    def __init__(self, model: Module):
        self.features, self.classifier = model.features, model.classifier  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # (N, H, W, 512)
        for layer in self.classifier:
            if isinstance(layer, Linear):
                kh, kw, c = layer.from_map or (1, 1, x.shape[3])
                w = layer.weight.reshape(kh, kw, c, -1)  # (in, out) is (KH·KW·C, O) already
                x = ops.conv2d(x, w, layer.bias)
            else:
                x = layer(x)
        return x.mean(axis=(1, 2))  # (N, H', W', classes) -> (N, classes)
