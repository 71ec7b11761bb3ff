"""Recorded: what a session decides, told to a recorder, which never waits."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from wallx_edge.recording import Recorder
from wallx_edge.session.decision import Moment

__all__ = ["tell_recorder"]


def tell_recorder(recorder: Recorder, moment: Moment) -> None:
    """Keeps a decision, and what came with it. Does not wait."""
    decision = moment.decision
    recorder.decision(decision.as_json())
    if moment.observation is not None:
        recorder.observation(moment.observation)
    if moment.rows is not None:
        recorder.chunk(
            decision.sequence or 0,
            moment.rows,
            moment.start,
            moment.step,
            decision.observed_at if decision.observed_at is not None else moment.start,
            decision.time,
        )
