"""A program that drives a cart until it is killed: python drive_cart.py PORT; prints its loop's state, line by line."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
import time

import numpy as np

from wallx_edge import _core
from wallx_edge.buses import BusConfig
from wallx_edge.embodiment import Embodiment, JointCalibration, JointLimits, JointMode, JointSpec
from wallx_edge.robot import Robot
from wallx_edge.safe_stop import write_stop_file


def joint(name: str, number: int, mode: JointMode, reach: float) -> JointSpec:
    limits = JointLimits(
        min_position=-reach, max_position=reach, max_velocity=3.0, max_acceleration=30.0, max_jerk=600.0
    )
    return JointSpec(
        name=name,
        id=number,
        model_numbers=[777],
        limits=limits,
        rest_position=0.0,
        gravity_loaded=False,
        mode=mode,
        max_following_error=3.0,
    )


def main(port: str) -> None:
    cart = Embodiment(
        name="cart",
        motor_family="feetech_sts",
        joints=[joint("arm", 1, JointMode.position, 1.5), joint("wheel", 2, JointMode.velocity, 1e6)],
    )
    units = [
        JointCalibration(id=i, drive_mode=0, homing_offset=0, range_min=low, range_max=high)
        for i, low, high in ((1, 743, 3441), (2, 0, 4095))
    ]
    bus = BusConfig(port=port)
    core = _core.make_robot(cart, units, bus.core())
    # a busy computer may be late: only safe-stop is to judge it here
    loop = _core.ControlLoop(core, rate_hz=50, stale_hold_s=5.0, stale_fault_s=10.0)
    robot = Robot(core, loop, write_stop_file(cart, units, bus))
    core.connect()
    loop.start()
    with robot, robot.enabled():
        # an hour straight on at 1 rad/s: only a stop ends it
        begin, start = robot.state()[0], time.monotonic()
        while True:
            t = np.arange(100)[:, np.newaxis] * 0.1
            rows = begin + np.array([0.0, 1.0]) * (time.monotonic() - start + t)
            robot.loop.submit(rows, time.monotonic(), 0.1, robot.loop.generation)
            report = robot.loop.fault_report()
            print(robot.loop.state, report["cause"]["reason"] if report else "", flush=True)
            if report and report["cause"]["reason"] == "bus closed":
                robot.check()
            time.sleep(0.05)


main(sys.argv[1])
