"""The command `python -m minicnn.data`: list the public data sets, and get them."""

from __future__ import annotations

import sys
from pathlib import Path

from minicnn import _cli
from minicnn.data import download
from minicnn.data.catalogue import PUBLIC, cache_folder
from minicnn.data.errors import DataError


@_cli.command
def main(arguments: list[str] | None = None) -> int:
    parser = _cli.Parser(prog="python -m minicnn.data", description="Public data sets, by name.")
    place = _cli.Parser(add_help=False)
    place.add_argument("--folder", type=Path, default=cache_folder(), help="where they are kept (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", parents=[place], help="what there is, and what is here")
    get = commands.add_parser("get", parents=[place], help="download, verify and keep data sets")
    get.add_argument("names", nargs="+", metavar="NAME", help=", ".join(PUBLIC))
    options = parser.parse_args(arguments)

    if options.command == "list":
        for name, public in PUBLIC.items():
            kept = options.folder / name
            print(f"{name:14} {public.megabytes:4} MB  {public.title}{f'; in {kept}' if kept.is_dir() else ''}")
        return 0
    try:
        for name in options.names:
            print(f"{name}: {download.get(name, options.folder)}", flush=True)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("; run the same command again, it goes on from there") from None
    except OSError as error:  # a full disk, a folder that may not be written
        raise DataError(f"{options.folder}: {error.strerror or error}; choose another place with --folder") from None
    return 0


if __name__ == "__main__":
    sys.exit(main())
