"""wallx-edge: from a WALL-OSS checkpoint to a moving robot, on the robot's own computer."""
# SPDX-License-Identifier: Apache-2.0

from importlib.metadata import version as _version

__version__ = _version("wallx-edge")
