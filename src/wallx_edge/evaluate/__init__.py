"""Evaluation: tasks on a simulated robot, a scripted expert, and what a policy is worth at them."""
# SPDX-License-Identifier: Apache-2.0

from wallx_edge.evaluate.episode import Outcome, run_episode
from wallx_edge.evaluate.tasks import TASKS, VARIANTS, Scene, make_scene

__all__ = ["TASKS", "VARIANTS", "Outcome", "Scene", "make_scene", "run_episode"]
