"""`python -m tipstaff build [FOLDER]`"""

import argparse
import sys

from .build import BuildError, build


def main():
    parser = argparse.ArgumentParser(prog="python -m tipstaff")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="make a component of a policy: build/NAME.wasm")
    command.add_argument("folder", nargs="?", default=".", help="folder with pyproject.toml and policy.py")
    arguments = parser.parse_args()
    try:
        print(build(arguments.folder))
    except BuildError as error:
        sys.exit(f"tipstaff: {error}")


main()
