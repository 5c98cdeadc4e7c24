"""The command `python -m benchmarks COMMAND`: measure, print one table, and write it to `benchmarks/results/`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import memory, seeds, step, tables, training
from minicnn import device

COMMANDS = {"step": step, "memory": memory, "training": training, "seeds": seeds}
TAKE_ARGUMENTS = ("training", "seeds")  # what follows " -- " goes to minicnn.train
RESULTS = Path(__file__).parent / "results"


def parse(arguments: list[str]) -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--threads", type=int, default=device.threads(), help="on both sides (default: %(default)s)")
    common.add_argument(
        "--out", type=Path, default=RESULTS, metavar="FOLDER", help="for the table (default: benchmarks/results)"
    )
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure, and write a table.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        text = (command.__doc__ or "").strip()
        end = "; options of minicnn.train may follow after ' -- '" if name in TAKE_ARGUMENTS else ""
        command.add_options(commands.add_parser(name, parents=[common], help=text, description=text.rstrip(".") + end))
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:cut])
    options.arguments = arguments[cut + 1 :]
    if options.arguments and options.command not in TAKE_ARGUMENTS:
        raise ValueError(f"{options.command} takes no options of minicnn.train, so nothing may follow after --")
    if options.threads < 1:
        raise ValueError(f"--threads must be at least 1, got {options.threads}")
    return options


def main(arguments: list[str]) -> int:
    try:
        options = parse(arguments)
        table = COMMANDS[options.command].run(options)
        paths = tables.write(table, options.out)
    except KeyboardInterrupt:
        print("interrupted; no table was written", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"\n{table.markdown()}\nwritten to {', '.join(map(str, paths))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
