"""wallx-edge: from a WALL-OSS checkpoint to a moving robot, on the robot's own computer."""
# SPDX-License-Identifier: Apache-2.0

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wallx_edge.generation import GenerationConfig
    from wallx_edge.policy import Policy, PolicyConfig
    from wallx_edge.reasoner import Answer, Reasoner
    from wallx_edge.robot import Robot
    from wallx_edge.robot_config import RobotConfig
    from wallx_edge.session import Session
    from wallx_edge.types import ActionChunk, DofLayout, Observation

__version__ = _version("wallx-edge")
__all__ = [
    "ActionChunk",
    "Answer",
    "DofLayout",
    "GenerationConfig",
    "Observation",
    "Policy",
    "PolicyConfig",
    "Reasoner",
    "Robot",
    "RobotConfig",
    "Session",
    "__version__",
]

_HOME = {
    "ActionChunk": "types",
    "Answer": "reasoner",
    "DofLayout": "types",
    "GenerationConfig": "generation",
    "Observation": "types",
    "Policy": "policy",
    "PolicyConfig": "policy",
    "Reasoner": "reasoner",
    "Robot": "robot",
    "RobotConfig": "robot_config",
    "Session": "session",
}


def __getattr__(name: str) -> object:
    # on first use, so that `wallx-edge sim` does not load the engine's side
    if name not in _HOME:
        raise AttributeError(f"module 'wallx_edge' has no attribute {name!r}")
    return getattr(_import_module(f"wallx_edge.{_HOME[name]}"), name)
