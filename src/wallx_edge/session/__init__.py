"""Session: a policy, a robot and a Reasoner, each at its own pace: when to infer, on what, with which subtask."""
# SPDX-License-Identifier: Apache-2.0

from wallx_edge.session.acting import refusal
from wallx_edge.session.binding import Binding, BindingRow
from wallx_edge.session.decision import KINDS, Decision, Moment
from wallx_edge.session.execution import PlayedChunk
from wallx_edge.session.session import Session
from wallx_edge.session.status import SessionStatus
from wallx_edge.session_config import SessionConfig

__all__ = [
    "KINDS",
    "Binding",
    "BindingRow",
    "Decision",
    "Moment",
    "PlayedChunk",
    "Session",
    "SessionConfig",
    "SessionStatus",
    "refusal",
]
