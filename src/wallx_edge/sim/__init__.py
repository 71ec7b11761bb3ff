"""Emulated robots that speak real bytes: an arm to step in lock-step, or a process behind a serial port.

The emulated servos share no code with the drivers; they are what the drivers are tested against. The format
of the log is told in README.md beside this file.
"""
# SPDX-License-Identifier: Apache-2.0

from wallx_edge._emulator import FAULTS, ArmEmulator, CanArmEmulator, Fault, MotorSetup, ServoSetup
from wallx_edge.sim.filming import Filming, MirroredWorld
from wallx_edge.sim.log import StateTrace, read_log, state_trace
from wallx_edge.sim.process import SimProcess
from wallx_edge.sim.program import add_arguments, run
from wallx_edge.sim.so101 import make_arm
from wallx_edge.sim.world import CameraSpec, Thing, World, WorldSpec

__all__ = [
    "FAULTS",
    "ArmEmulator",
    "CameraSpec",
    "CanArmEmulator",
    "Fault",
    "Filming",
    "MirroredWorld",
    "MotorSetup",
    "ServoSetup",
    "SimProcess",
    "StateTrace",
    "Thing",
    "World",
    "WorldSpec",
    "add_arguments",
    "make_arm",
    "read_log",
    "run",
    "state_trace",
]
