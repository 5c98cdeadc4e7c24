"""The images and budgets that many claims share."""

from __future__ import annotations

from minicnn.study.claim import Data

# tiny: minutes for all claims together; its verdicts say that the machinery works, not what is so.
BUNDLED_TINY = Data("bundled", train=160, test=200)
# small: of the 5,000 images that minicnn brings, or of Fashion-MNIST, at 28 pixels.
BUNDLED_SMALL = Data("bundled", train=4000, test=1000)
FASHION = Data("fashion-mnist", train=12_800, test=2000)
FASHION_DEEP = Data("fashion-mnist", train=6400, test=2000)  # for networks of 56 layers
# paper: ImageNet at a short side of 256, of which recipes cut 224; CIFAR-10 at its 32.
IMAGENET = Data("imagenet", image_size=256)
CIFAR10 = Data("cifar10")
