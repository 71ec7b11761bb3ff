"""Kinematics: how exact and how fast it is on the SO-101's model; what docs/kinematics.md quotes."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import statistics
import time

import numpy as np

from wallx_edge.embodiment import load_embodiment, share_path
from wallx_edge.kinematics import POSITION, ROTATION, Kinematics, load_model

POSES, CHUNKS = 10_000, 200


def main() -> None:
    """Measures and prints."""
    joints = load_embodiment("so101").joints[:5]
    low, high = [j.limits.min_position for j in joints], [j.limits.max_position for j in joints]
    path = share_path() / "drivers" / "embodiments" / "so101" / "so101.xml"
    arm = Kinematics(load_model(path), [j.name for j in joints], "tool", low, high, path.name)
    random = np.random.default_rng(0)

    times = []
    part = np.linspace(0, 1, 32)[:, np.newaxis]
    for _ in range(CHUNKS):
        a, b = random.uniform(0.6 * arm.low, 0.6 * arm.high, (2, 5))
        rows = a + 0.3 * (b - a) * part**2 * (3 - 2 * part)
        positions, rotations = arm.forward(rows)
        begin = time.perf_counter()
        arm.track(positions, rotations, rows[0])
        times.append(1e3 * (time.perf_counter() - begin))
    print(f"a chunk of 32 rows: median {statistics.median(times):.2f} ms, slowest of {CHUNKS} {max(times):.2f} ms")

    rows = random.uniform(arm.low, arm.high, (POSES, 5))
    positions, rotations = arm.forward(rows)
    errors = np.empty((POSES, 2))
    for i in range(POSES):
        found = arm.inverse(positions[i], rotations[i], np.zeros(5))
        errors[i] = found.position_error[0], found.rotation_error[0]
    met = (errors[:, 0] <= POSITION) & (errors[:, 1] <= ROTATION)
    print(
        f"{POSES} random poses from the zero pose: {int(met.sum())} met within 0.1 mm and 0.1 degree; of these at most "
        f"{errors[met, 0].max() * 1e3:.4f} mm and {np.degrees(errors[met, 1].max()):.4f} degrees"
    )


if __name__ == "__main__":
    main()
