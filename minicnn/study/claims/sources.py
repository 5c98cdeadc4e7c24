"""Statements of the story that no experiment of ours can settle: what the sources say."""

from __future__ import annotations

from minicnn.study.claim import Claim

BEYOND_HUMANS = Claim(
    number=20,
    slug="beyond-humans",
    title="ResNet was the first model beyond humans",
    published_verdict="–",
    statement="ResNet, with 3.57 % top-5 error in 2015, is said to be the first better than people on ImageNet.",
    published=(
        ("ResNet, ensemble, test (arXiv 1512.03385)", "3.57 % top-5 error"),
        ("BN-Inception, ensemble, test (arXiv 1502.03167, §4.2.3)", "4.82 % top-5 error"),
        ("PReLU networks (arXiv 1502.01852)", "4.94 % top-5 error"),
        ("one trained person on a part of the test images", "about 5.1 % top-5 error, as it is usually quoted"),
    ),
    sources=(
        "Two papers said so of themselves ten months earlier: that of BatchNorm, whose result “exceeds the estimated "
        "accuracy of human raters”, and that of PReLU in its title. ResNet won the challenge of 2015, and is far "
        "better than either; it was not the first to pass that mark.",
        "What the mark is worth is another question. It goes back to one person, who trained himself on the thousand "
        "classes, and labelled some hundreds of images; top-5 forgives five guesses, and much of what people get "
        "wrong are breeds of dogs. It is no measure of seeing.",
        "No network that is trained here can settle who was first; the papers' own words do.",
    ),
)

GATES = Claim(
    number=21,
    slug="gates-and-inception",
    title="Shortcuts were inspired by the LSTM's gates and by Inception",
    published_verdict="–",
    statement="The story derives shortcuts from the gates of the LSTM, and from Inception's branches.",
    published=(),
    sources=(
        "He et al. (arXiv 1512.03385, §2) name what came before: shortcuts in multi-layer perceptrons, auxiliary "
        "classifiers and centred responses, an Inception layer “composed of a shortcut branch and a few deeper "
        "branches”, and, at the same time, highway networks, whose shortcuts have gates. They set themselves apart "
        "from the latter: their shortcuts have no parameters and are never closed.",
        "Highway networks (Srivastava et al., arXiv 1505.00387) do say that their gates are inspired by the LSTM. "
        "Identity Mappings (arXiv 1603.05027) then tries such gates in ResNet, and finds the plain identity better: "
        "claim 12 repeats it.",
        "What an author was inspired by is for the author to say: these papers relate shortcuts to both, and derive "
        "them from neither. Their own reason is claim 10: if added layers could be identities, a deeper network would "
        "be no worse.",
    ),
)

TIMELINE = Claim(
    number=22,
    slug="story-and-sources",
    title="Other places where the story and the sources differ",
    published_verdict="–",
    statement="What the story says in passing, and what the papers say. None of it needs an experiment.",
    published=(
        ("“VGG uses BatchNorm”", "it has none: VGG is of 2014, BatchNorm of 2015; `vgg*_bn` are torchvision's"),
        ("“two 3×3 replace a 7×7”", "two see 5×5, three see 7×7 (arXiv 1409.1556, §2.3; claim 5 counts it)"),
        (
            "“ZFNet uses LCN”",
            "“local contrast operation … across feature maps”, citing both LRN and LCN (arXiv 1311.2901, §2)",
        ),
        ("“Inception-v1 has only 20 layers”", "22 with parameters, 27 with pools (arXiv 1409.4842, §5)"),
        (
            "“ResNet cures vanishing gradients”",
            "degradation is unlikely to be caused by them (arXiv 1512.03385, §4.1; claim 10)",
        ),
        ("“BatchNorm prevents underfitting”", "it regularises, so dropout may go (arXiv 1502.03167, §4.2.1; claim 13)"),
        ("“C is better than B, D better than C”", "confirmed word for word (arXiv 1409.1556, §4.1; claims 3 and 4)"),
    ),
    sources=(),
)

CLAIMS = (BEYOND_HUMANS, GATES, TIMELINE)
