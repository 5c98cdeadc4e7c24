"""The command `python -m benchmarks COMMAND`: measure, print the tables, and write them to `benchmarks/results/`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import accuracy, cuda_model, memory, ops, scaling, seeds, start, step, tables, training
from minicnn import _cli, device

COMMANDS = {
    "step": step,
    "ops": ops,
    "scaling": scaling,
    "accuracy": accuracy,
    "memory": memory,
    "start": start,
    "seeds": seeds,
    "training": training,
    "cuda-model": cuda_model,
}
TRAIN = (accuracy, start, seeds, training)  # what follows after -- goes to minicnn.train


def parse(arguments: list[str]) -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--threads", type=_cli.threads, default=device.threads(), help="of each side")
    common.add_argument("--out", type=Path, default=Path("benchmarks", "results"), help="folder for the table")
    parser = _cli.Parser(prog="python -m benchmarks", description="Measure, and write a table.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        text = str(command.__doc__)
        end = " Options of minicnn.train may follow after --." if command in TRAIN else ""
        command.add_options(commands.add_parser(name, parents=[common], help=text, description=text + end))
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:cut])
    options.arguments = arguments[cut + 1 :]
    if options.arguments and COMMANDS[options.command] not in TRAIN:
        parser.error(f"{options.command} takes no options of minicnn.train, so nothing may follow after --")
    return options


@_cli.command
def main(arguments: list[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    result = COMMANDS[options.command].run(options)
    for table in [result] if isinstance(result, tables.Table) else result:  # each is written as soon as it is there
        paths = tables.write(table, options.out)
        print(f"\n{table.markdown()}\nwritten to {', '.join(map(str, paths))}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
