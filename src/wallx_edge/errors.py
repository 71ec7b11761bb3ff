"""The error tree.

::

    WallxError
     +-- ConfigError (ValueError)     a setting, argument or configuration file is wrong
     +-- CheckpointError              a checkpoint is missing, damaged, or not what was expected
     +-- AnswerError                  what the model wrote does not decode; nothing was computed from it
     +-- DeviceError                  a camera, motor or computer device failed
     +-- BusError                     the line to the motors failed or is taken
     |    +-- BusTimeout (TimeoutError)   a motor did not answer in time
     +-- CalibrationError             a calibration is missing or does not fit the robot
     +-- SafetyStop                   the loop stopped the robot; ``records``: last states and commands

Every message says what is wrong, the value, the bound, and where to fix it.
"""
# SPDX-License-Identifier: Apache-2.0

from wallx_edge._core import (
    BusError,
    BusTimeout,
    CalibrationError,
    CheckpointError,
    ConfigError,
    DeviceError,
    SafetyStop,
    WallxError,
)

__all__ = [
    "AnswerError",
    "BusError",
    "BusTimeout",
    "CalibrationError",
    "CheckpointError",
    "ConfigError",
    "DeviceError",
    "SafetyStop",
    "WallxError",
]


class AnswerError(WallxError):
    """What the model wrote does not decode; nothing was computed from it."""
