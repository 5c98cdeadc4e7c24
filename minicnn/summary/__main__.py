"""The command `python -m minicnn.summary`: one network layer by layer, several side by side, or layers written down."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from minicnn import _cli, init, models
from minicnn.summary.cost import cost
from minicnn.summary.profile import profile
from minicnn.summary.tables import comparison, costs, table


class Named(NamedTuple):
    """A network as an argument names it: NAME, or NAME{…} with a variant of its own."""

    text: str
    name: str
    variant: dict[str, Any]


def named(text: str) -> Named:
    """For argparse's `type`."""
    name, brace, rest = text.partition("{")
    return Named(text, name.strip(), _cli.variant(brace + rest) if brace else {})


@_cli.command
def main(arguments: list[str] | None = None) -> int:
    parser = _cli.Parser(
        prog="python -m minicnn.summary",
        description="Print each layer's output, parameters and multiply-adds for one image, and the totals; of several "
        "networks what they cost in all, side by side, and by the size of the map.",
    )
    add = parser.add_argument
    add("models", nargs="*", type=named, metavar="MODEL", help="a network's name, perhaps with its variant, such as "
        "'vgg-a{\"bn\": true}'; without any, all names are listed")  # fmt: skip
    add("--variant", type=_cli.variant, default={}, metavar="JSON", help="of all of them, such as '{\"bn\": true}'")
    add("--classes", type=int, help="how many they tell apart (default: the paper's)")
    add("--channels", type=int, default=3, help="of the image")
    add("--image-size", type=int, help="side of the image in pixels (default: the paper's)")
    add("--cost", nargs="+", default=[], metavar="LAYERS", help="compare layers that are written down, such as "
        "'conv 3x3 64->64 x3' and 'conv 7x7/2 3->64, pool 3x3/2'; '|' stands between branches")  # fmt: skip
    add("--size", type=_cli.positive(int), default=56, help="side of the map that those layers see")
    options = parser.parse_args(arguments)
    if options.cost:
        if options.models:
            parser.error("--cost compares layers that are written down; leave the networks' names out")
        compared = {layers: cost(layers, options.size) for layers in options.cost}
        print(f"on a map of {options.size}x{options.size}\n\n{costs(compared)}")
        return 0
    if not options.models:
        print("\n".join(models.names()))
        return 0
    networks = {}
    for network in options.models:
        variant = {**options.variant, **network.variant}
        with init.skipped():
            model = models.build(network.name, options.classes, options.channels, options.image_size, **variant)
        networks[network.text] = profile(model)
    print(comparison(networks) if len(networks) > 1 else table(*networks.values()))
    from kernels.cpu import machine

    print(f"kernels on this machine: {machine.path()}", file=sys.stderr)  # not a part of the table
    return 0


if __name__ == "__main__":
    sys.exit(main())
