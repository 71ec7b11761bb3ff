"""An arm's model: the smallest synthetic checkpoint for the so101, and what it looks at."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import numpy as np

from wallx_edge.embodiment import load_embodiment
from wallx_edge.policy import PolicyConfig
from wallx_edge.scene import pattern
from wallx_edge.synth import Dtype, Variant, synth
from wallx_edge.types import Observation

SO101 = load_embodiment("so101")
REST_POSE = {joint.name: joint.rest_position for joint in SO101.joints}
CAMERAS = ("face_view", "wrist_view")
CONFIG = PolicyConfig(cameras=CAMERAS, resolution=128, horizon=16)


def write(folder: Path, size: str = "tiny", *, seed: int = 0, dtype: Dtype = "f32", variant: Variant = "v1") -> Path:
    """Writes the checkpoint."""
    synth(size, folder, REST_POSE, "so101", seed=seed, dtype=dtype, variant=variant)
    return folder


def look(t: float = 0.0) -> Observation:
    """The scene at one time, with the arm at rest."""
    images = {role: pattern(t, 160, 120, seed) for seed, role in enumerate(CAMERAS)}
    return Observation(images, np.array(list(REST_POSE.values())), "follow the block", t)
