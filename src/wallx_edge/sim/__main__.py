"""``python -m wallx_edge.sim so101``: an emulated robot in a process of its own."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import sys

from wallx_edge.errors import WallxError
from wallx_edge.sim.program import add_arguments, run


def main() -> int:
    """Parses the command line and runs; errors become one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m wallx_edge.sim", description="Emulates a robot on a serial port.")
    add_arguments(parser)
    try:
        return run(parser.parse_args())
    except WallxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
