"""When the Reasoner is asked again: done, stalled, after a time, or because the operator says so."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest

from wallx_edge.errors import ConfigError
from wallx_edge.session.subtask import Instruction, Progress, Thinking, check_words, subtask_problem
from wallx_edge.session_config import SessionConfig

CONFIG = SessionConfig(reason="subtask", reason_every=5.0, still=0.02, done_chunks=3, stall_after=4.0)
POSE = np.array([0.1, -0.2])
THERE = np.tile(POSE, (4, 1))
AWAY = THERE + np.linspace(0, 0.3, 4)[:, np.newaxis]


def test_chunks_that_ask_for_no_motion_mean_done() -> None:
    progress = Progress(CONFIG)
    assert [progress.see(t, POSE, THERE + 0.019) for t in (0.0, 1.0, 2.0, 3.0)] == ["", "", "done", "done"]
    assert progress.see(4.0, POSE, AWAY) == ""
    assert progress.see(5.0, POSE, THERE) == ""  # counted anew


def test_motion_that_is_asked_for_and_does_not_happen_is_a_stall() -> None:
    progress = Progress(CONFIG)
    assert [progress.see(t, POSE + 0.01 * (t % 2), AWAY) for t in (0.0, 1.0, 3.9)] == ["", "", ""]
    assert progress.see(4.0, POSE, AWAY) == "stalled"
    progress.clear()
    assert progress.see(5.0, POSE, AWAY) == ""


def test_a_joint_that_moves_is_no_stall() -> None:
    progress = Progress(CONFIG)
    for t in np.arange(0, 30, 0.5):
        assert progress.see(float(t), POSE + np.array([0.01 * t, 0.0]), AWAY) == ""


def test_a_wheel_that_is_told_to_turn_is_no_stall_and_not_done() -> None:
    progress = Progress(CONFIG)
    measured = np.array([0.1, np.nan])
    rows = np.tile([0.1, 0.5], (4, 1))
    assert {progress.see(float(t), measured, rows) for t in range(20)} == {""}
    rest = np.tile([0.1, 0.0], (4, 1))
    assert [progress.see(20.0 + t, measured, rest) for t in range(3)][-1] == "done"


def test_the_reasoner_is_asked_first_then_after_a_time() -> None:
    thinking, told = Thinking(CONFIG), Instruction.of_task("tidy up")
    assert thinking.due(10.0, told) == "first"
    thinking.asked(10.0)
    assert thinking.due(14.99, told) is None
    assert thinking.due(15.0, told) == "time"


@pytest.mark.parametrize("cause", ["done", "stalled"])
def test_progress_asks_sooner_but_not_without_end(cause: str) -> None:
    thinking, told = Thinking(CONFIG), Instruction.of_task("tidy up")
    thinking.asked(10.0)
    thinking.wish(cause)  # type: ignore[arg-type]
    assert thinking.due(10.9, told) is None
    assert thinking.due(11.0, told) == cause


def test_the_operators_word_asks_at_once_and_the_operators_subtask_never() -> None:
    thinking, told = Thinking(CONFIG), Instruction.of_task("tidy up")
    thinking.asked(10.0)
    thinking.wish("operator")
    assert thinking.due(10.0, told) == "operator"
    assert thinking.due(10.0, told.with_operator("wait")) is None
    assert Thinking(SessionConfig()).due(10.0, told) is None


def test_every_word_of_the_operator_makes_answers_stale() -> None:
    told = Instruction.of_task("tidy up")
    answered = told.with_answer("grasp the cup")
    assert (answered.subtask, answered.source, answered.epoch) == ("grasp the cup", "reasoner", told.epoch)
    assert told.with_operator("wait").epoch > told.epoch
    back = told.with_operator("wait").with_operator(None)
    assert (back.subtask, back.source) == ("tidy up", "task")
    assert back.epoch > told.with_operator("wait").epoch
    assert answered.with_task("cook").subtask == "cook"


def test_a_subtask_is_one_short_line_of_words() -> None:
    assert subtask_problem("pick up the red block") == ""
    assert subtask_problem("拿起红色方块") == ""
    for text in ("", "  ", "a\nb", "<point>1</point>", "123", "why?", "\ufffd\ufffd a", "word " * 41, "x" * 241):
        assert subtask_problem(text), text


@pytest.mark.parametrize("text", ["", "   ", None, 3, "x" * 2001])
def test_words_are_checked(text: object) -> None:
    with pytest.raises(ConfigError, match="task"):
        check_words(text, "task")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "fast"}, "session.mode is 'fast'"),
        ({"reason": "yes"}, "session.reason is 'yes'"),
        ({"execute_rows": 0}, "execute_rows is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"reason_every": 0.0}, "reason_every is 0"),
        ({"camera_delay": {"face_view": -0.1}}, "camera_delay.face_view is -0.1"),
        ({"state_delay": float("nan")}, "state_delay is nan"),
        ({"done_chunks": 0}, "done_chunks is 0"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(values: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigError, match=message):
        SessionConfig(**values)
