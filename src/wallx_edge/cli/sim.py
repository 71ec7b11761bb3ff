"""wallx-edge sim: an emulated robot behind a serial port."""
# SPDX-License-Identifier: Apache-2.0

from wallx_edge.sim import add_arguments, run

__all__ = ["add_arguments", "run"]
