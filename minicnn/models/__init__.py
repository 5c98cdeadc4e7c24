"""The networks, by name: `build("resnet20")`, `names()`, and the loss of whatever they return.

A file per paper holds its table and its builders; `MODELS` there says which name is which row.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from minicnn import ops
from minicnn.autograd import Tensor
from minicnn.models import alexnet, bn_inception, googlenet, inception_v3, nin, resnet, vgg, zfnet
from minicnn.models.model import Model

_BUILDERS: dict[str, Callable[..., Model]] = {
    **resnet.MODELS,
    **googlenet.MODELS,
    **bn_inception.MODELS,
    **inception_v3.MODELS,
    **vgg.MODELS,
    **alexnet.MODELS,
    **zfnet.MODELS,
    **nin.MODELS,
}
_REGISTERED: dict[str, Callable[..., Model]] = {}
_ALIASES = vgg.ALIASES
_SIZES = ("num_classes", "in_channels", "image_size")


def register(builders: Mapping[str, Callable[..., Model]]) -> None:
    """Let `build` know networks from elsewhere, by their names, which `names` does not list."""
    _REGISTERED.update(builders)


def names() -> list[str]:
    """Every name of a network that is defined here, aliases among them."""
    return [*_BUILDERS, *_ALIASES]


def build(
    name: str, num_classes: int | None = None, in_channels: int = 3, image_size: int | None = None, **variant: Any
) -> Model:
    """The network of that name with freshly drawn weights; `None` means the paper's own classes and image size.

    `variant` are the keywords that the model takes besides, such as `bn=True` or `shortcut="C"`; `variants(name)` has
    them all. The model knows what it is: `model.name`, `num_classes`, `in_channels`, `image_size`, and `model.config`,
    with which `build(**model.config)` makes another of its kind.

    Raises ValueError for an unknown name (with the nearest ones), an unknown keyword or value of a variant, and an
    `image_size` that is too small, with the name of the layer that no longer fits.
    """
    takes = variants(name)
    unknown = [keyword for keyword in variant if keyword not in takes]
    if unknown:
        listed = ", ".join(f"{keyword}={value!r}" for keyword, value in takes.items()) or "no variants"
        raise ValueError(f"{name}: unknown keyword {', '.join(unknown)}; it takes {listed}")
    sizes = dict(zip(_SIZES, (num_classes, in_channels, image_size), strict=True))
    given = {key: value for key, value in sizes.items() if value is not None}
    for key, value in given.items():
        if value < 1:
            raise ValueError(f"{name}: {key} must be at least 1, got {value}")

    arguments = {**defaults(name), **given, **variant}
    name = _ALIASES.get(name, name)
    try:
        model = _builder(name)(**arguments)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    arguments |= {key: getattr(model, key) for key in _SIZES if arguments[key] is None}  # what follows from the others
    model.name, model.config = name, {"name": name, **arguments}
    for key in _SIZES:
        setattr(model, key, arguments[key])
    return model


def defaults(name: str) -> dict[str, Any]:
    """What `build` takes besides a name, with the values that hold if nothing is said: the paper's."""
    return {p.name: p.default for p in inspect.signature(_builder(name)).parameters.values()}


def _builder(name: str) -> Callable[..., Model]:
    known = _ALIASES.get(name, name)
    if builder := _BUILDERS.get(known) or _REGISTERED.get(known):
        return builder
    near = difflib.get_close_matches(name.lower(), names(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(names())}"
    raise ValueError(f"unknown model {name!r}: {hint}")


def variants(name: str) -> dict[str, Any]:
    """The keywords with which a model can be varied, and their defaults: `{"shortcut": "B", "stride_in": "3x3"}`."""
    return {keyword: value for keyword, value in defaults(name).items() if keyword not in _SIZES}


def loss(
    outputs: Tensor | tuple[Tensor, ...], labels: Any, *, label_smoothing: float = 0.0, aux_weight: float = 0.3
) -> Tensor:
    """The mean cross-entropy of what a network returns; of (main, *auxiliary) logits, main + aux_weight · Σ auxiliary.

    0.3 is GoogLeNet's weight for each auxiliary head (arXiv 1409.4842 §5).
    """
    main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    total = ops.cross_entropy(main, labels, label_smoothing=label_smoothing)
    for logits in auxiliary:
        total = total + aux_weight * ops.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return total
