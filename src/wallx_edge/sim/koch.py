"""Koch v1.1: the emulated follower arm with two Dynamixel XL430-W250 and four XL330-M288."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

from wallx_edge.sim.arm import EmulatedArm

_XL430, _XL330 = 1060, 1200
_EXTENDED_POSITION, _CURRENT_BASED_POSITION = 4, 5

# Masses are near those of the printed arm: links of 0.11 m and 0.10 m with a servo of 18 g in each joint. Pose and
# rest are counted as the SO-101's. shoulder_lift and wrist_flex turn against their encoders: these servos reverse
# themselves.
KOCH = EmulatedArm(
    name="koch",
    family="dynamixel_x",
    unit={
        "shoulder_pan": (1, 0, -85, 743, 3441),
        "shoulder_lift": (2, 1, 312, 909, 3185),
        "elbow_flex": (3, 0, -640, 946, 3150),
        "wrist_flex": (4, 1, 128, 966, 3128),
        "wrist_roll": (5, 0, -131, 700, 3396),
        "gripper": (6, 0, 190, 2034, 3083),
    },
    plant={
        "shoulder_pan": (0.012, 0.0, 0, 0.0, 0.0),
        "shoulder_lift": (0.012, 0.110, -1, math.pi / 2, -1.60),
        "elbow_flex": (0.004, 0.070, -1, -math.pi / 2, 1.629),
        "wrist_flex": (0.002, 0.030, -1, 0.0, 1.31),
        "wrist_roll": (0.0015, 0.0, 0, 0.0, 0.0),
        "gripper": (0.0015, 0.0, 0, 0.0, -0.6),
    },
    stops={"elbow_flex": (-1102, 1062)},
    servos={
        "shoulder_pan": {"model": _XL430, "operating_mode": _EXTENDED_POSITION, "damping": 0.1},
        "shoulder_lift": {"model": _XL430, "operating_mode": _EXTENDED_POSITION, "damping": 0.1},
        "elbow_flex": {"model": _XL330, "operating_mode": _EXTENDED_POSITION, "damping": 0.03, "friction": 0.02},
        "wrist_flex": {"model": _XL330, "operating_mode": _EXTENDED_POSITION, "damping": 0.03, "friction": 0.02},
        "wrist_roll": {"model": _XL330, "operating_mode": _EXTENDED_POSITION, "damping": 0.03, "friction": 0.02},
        "gripper": {"model": _XL330, "operating_mode": _CURRENT_BASED_POSITION, "damping": 0.03, "friction": 0.02},
    },
)
