"""SO-101: the emulated arm with six Feetech servos."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

from wallx_edge.sim.arm import EmulatedArm

# Masses and lengths are near those of the printed arm: 0.10 kg on each of upper arm, forearm and wrist,
# 0.08 kg of gripper, links of 0.116 m and 0.135 m. In the middle the upper arm stands upright and the forearm
# points forward. At rest the folded arm leans on itself and stays there without torque.
SO101 = EmulatedArm(
    name="so101",
    family="feetech_sts",
    unit={
        "shoulder_pan": (1, 0, -85, 743, 3441),
        "shoulder_lift": (2, 0, 312, 909, 3185),
        "elbow_flex": (3, 0, -640, 946, 3150),
        "wrist_flex": (4, 0, 128, 966, 3128),
        "wrist_roll": (5, 0, -1310, 0, 4095),
        "gripper": (6, 0, 1190, 2034, 3483),
    },
    plant={
        "shoulder_pan": (0.038, 0.0, 0, 0.0, 0.0),
        "shoulder_lift": (0.040, 0.387, -1, math.pi / 2, -1.60),
        "elbow_flex": (0.034, 0.317, -1, -math.pi / 2, 1.629),
        "wrist_flex": (0.029, 0.124, -1, 0.0, 1.31),
        "wrist_roll": (0.028, 0.0, 0, 0.0, 0.0),
        "gripper": (0.028, 0.0, 0, 0.0, -1.0),
    },
    stops={"elbow_flex": (-1102, 1062), "wrist_roll": (-1789, 1852)},
    servos={"gripper": {"max_torque": 500, "protection_current": 250, "overload_threshold": 25}},
)

JOINT_NAMES = SO101.joint_names
default_calibration = SO101.default_calibration
write_calibration = SO101.write_calibration
read_calibration = SO101.read_calibration
servo_setups = SO101.servo_setups
make_arm = SO101.make_arm
