"""Simulation: how many times faster than real time it is in lock-step, by how often both cameras are looked at."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import time

import numpy as np

from wallx_edge.evaluate import make_scene
from wallx_edge.session.lockstep import SteppedRobot
from wallx_edge.sim.so101 import SO101

SECONDS = 4.0  # of simulated time


def times_real_time(rate: float) -> float:
    """Of one process that moves the arm and looks at both cameras at a rate [1/s]."""
    world = SO101.make_world(make_scene("place_by_colour", 0).world)
    with SteppedRobot(world=world) as robot, robot.enabled():
        rows = np.repeat(world.arm_pose[np.newaxis], 100, axis=0)
        rows[:, 0] += 0.3 * np.sin(np.linspace(0, 4 * np.pi, 100))
        robot.play(rows, robot.now, 0.05, robot.loop.generation)
        cameras, begin, due = robot.cameras().values(), robot.now, robot.now
        wall = time.perf_counter()
        while robot.now - begin < SECONDS:
            robot.tick()
            if rate and robot.now >= due:
                due += 1 / rate
                for camera in cameras:
                    camera.read()
        return SECONDS / (time.perf_counter() - wall)


def main() -> None:
    """Measures and prints."""
    for rate in (0, 2, 5, 10, 15, 30):
        print(f"two 224 x 224 pictures {rate:2d} times a second: {times_real_time(rate):5.1f} times real time")


if __name__ == "__main__":
    main()
