"""Sessions on a simulated clock: bit-equal runs, seams between chunks, and what happens when inference is late."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arm_model
from wallx_edge.bench.seams import measure_seams
from wallx_edge.bench.two_modes import TwoModes
from wallx_edge.cameras import Camera, Frame, PatternCamera
from wallx_edge.errors import AnswerError, ConfigError, DeviceError, SafetyStop
from wallx_edge.generation import Generated
from wallx_edge.policy import Policy
from wallx_edge.reasoner import Answer
from wallx_edge.session import Decision, Moment, Session, SessionConfig
from wallx_edge.session.lockstep import StepPace, SteppedRobot

STEP = 0.03


@dataclass
class Stage:
    """A session in lock-step and what it said."""

    session: Session
    robot: SteppedRobot
    moments: list[Moment] = field(default_factory=list)
    at: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def run(self, duration: float) -> bool:
        begin = self.robot.now

        def tick(status: object) -> None:
            while self.at and self.robot.now - begin >= self.at[0][0]:
                self.at.pop(0)[1]()

        is_over = self.session.run(duration, tick)
        self.robot.rest()
        return is_over

    def decisions(self, *kinds: str) -> list[Decision]:
        return [m.decision for m in self.moments if m.decision.kind in kinds]


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    with ExitStack() as stack:

        def make(
            policy: Any = None,
            delays: Sequence[int] = (3,),
            cameras: dict[str, Camera] | None = None,
            reasoner: Any = None,
            horizon: int = 50,
            **config: Any,
        ) -> Stage:
            robot = stack.enter_context(SteppedRobot(max_first_step=3.0))
            policy = policy or TwoModes(arm_model.REST_POSE, horizon=horizon, step=STEP)
            roles = policy.config.cameras
            cameras = cameras or {
                role: PatternCamera(role, width=64, height=48, seed=i, clock=lambda: robot.now)
                for i, role in enumerate(roles)
            }
            pace = StepPace(robot, [d * STEP for d in delays])
            session = Session(
                policy, robot, cameras, "follow", config=SessionConfig(**config), reasoner=reasoner, pace=pace
            )
            made = Stage(session, robot)
            session.subscribe(made.moments.append)
            return made

        yield make


class Words:
    """A Reasoner that says what it is told to say."""

    def __init__(self, *said: str | Exception) -> None:
        self.said = list(said)
        self.asked: list[str] = []
        self.queue = None
        self.context: Any = None

    def _answer(self, question: str) -> Answer:
        self.asked.append(question)
        text = self.said.pop(0) if len(self.said) > 1 else self.said[0]
        if isinstance(text, Exception):
            raise type(text)(str(text))  # its traceback must not outlive the test
        generated = Generated(np.arange(3), text, "stop", "", 0.1, 0.1)
        return Answer(text, text, generated, 10, 8, 0.1, ())

    def subtask(self, observation: Any, config: Any = None, on_text: Any = None) -> Answer:
        return self._answer(observation.instruction)

    def reason(self, images: Any, goal: str, config: Any = None, on_text: Any = None, resolution: int = -1) -> Answer:
        return self._answer(goal)

    def ask(self, images: Any, question: str, config: Any = None, on_text: Any = None, resolution: int = -1) -> Answer:
        return self._answer(question)

    def cancel(self) -> None:
        pass


class Fork:
    def fork(self) -> object:
        return self


class Acts(TwoModes):
    """An analytic policy that a Reasoner can look at; remembers what it was told."""

    def __init__(self, **options: Any) -> None:
        super().__init__(arm_model.REST_POSE, step=STEP, **options)
        self.context = Fork()
        self.told: list[str] = []

    def act(self, observation: Any, noise: Any = None, **options: Any) -> Any:
        self.told.append(observation.instruction)
        return super().act(observation, noise, **options)


@pytest.mark.parametrize("mode", ["sync", "latest", "ensemble", "rtc"])
def test_two_runs_of_one_seed_are_bit_equal(stage: Callable[..., Stage], tiny_checkpoint: Path, mode: str) -> None:
    """The real engine, a Reasoner, irregular delays, the real driver and the emulated servos."""

    def one() -> tuple[dict[str, Any], list[dict[str, Any]], list[Any], bytes]:
        policy = Policy.load(tiny_checkpoint, replace(arm_model.CONFIG, step=STEP))
        made = stage(policy, (2, 5, 3), mode=mode, reason="subtask", reason_every=0.8, max_tokens=6)
        assert made.run(2.5)
        registers = b"".join(made.robot.emulator.registers(i) for i in range(1, 7))
        decisions = [m.decision.as_json() for m in made.moments]
        return made.robot.loop.drain(65536), decisions, [c.rows for c in made.session.chunks], registers  # type: ignore[return-value]

    first, second = one(), one()
    assert first[1] == second[1]
    assert len(first[2]) == len(second[2]) > 3
    assert all(np.array_equal(a, b) for a, b in zip(first[2], second[2], strict=True))
    assert first[3] == second[3]
    for key, column in first[0].items():
        np.testing.assert_array_equal(column, second[0][key], err_msg=key)


@pytest.mark.parametrize("delay", [2, 5, 10])
def test_seams_of_real_time_chunking_are_smooth(delay: int) -> None:
    rtc, latest = measure_seams("rtc", delay), measure_seams("latest", delay)
    assert rtc["seams"] >= 8 and latest["seams"] >= 8
    assert latest["jump_rad"] > 0.1  # the field has two modes, and chunks that do not listen fall into either
    assert rtc["jump_rad"] <= 0.1 * latest["jump_rad"]
    assert rtc["acceleration_at_seams"] <= rtc["acceleration_inside"]
    assert rtc["holds"] == 0


@pytest.mark.parametrize("mode", ["latest", "ensemble", "rtc"])
@pytest.mark.parametrize("delays", [(1,), (10,), (20,), (2, 15, 4)])
def test_never_holds_while_inference_is_faster_than_the_horizon(
    stage: Callable[..., Stage], mode: str, delays: tuple[int, ...]
) -> None:
    made = stage(delays=delays, mode=mode)
    assert made.run(6.0)
    holds = made.decisions("hold")
    # the one at the end, when the last chunk was played
    assert [h.why for h in holds if h.time < made.decisions("start")[0].time + 6.0] == []


def test_the_delay_is_the_rows_that_were_played_and_warm_up_does_not_count(stage: Callable[..., Stage]) -> None:
    made = stage(delays=(7,))
    made.run(4.0)
    chunks = made.decisions("chunk")
    assert {c.delay_rows for c in chunks[1:]} <= {7, 8}  # 7 steps and the tick that notices it
    assert made.session.status().delay_rows_max <= 8
    frames = made.session.status()
    # one warm-up, and every inference since: none is missing
    assert frames.frames == 1 + len(made.decisions("observe"))
    ended = made.decisions("chunk", "drop", "refuse")
    assert len(made.decisions("observe")) == len(ended)
    assert frames.frames_used == len(chunks)


def test_rows_that_are_played_meanwhile_are_continued_exactly(stage: Callable[..., Stage]) -> None:
    made = stage(delays=(6,), mode="rtc")
    made.run(4.0)
    chunks = made.session.chunks
    assert len(chunks) > 3
    for before, after in pairwise(chunks):
        offset = round((after.start - before.start) / STEP)
        assert after.start == pytest.approx(before.start + offset * STEP, abs=1e-9)
        playing = int((after.arrived_at - before.start) / STEP + 1e-6)
        fixed = np.arange(offset, playing + 2)  # up to the end of the segment that the loop is in
        np.testing.assert_array_equal(after.rows[fixed - offset], before.rows[fixed])


def test_a_chunk_that_takes_longer_than_expected_is_dropped_and_the_next_one_fits(
    stage: Callable[..., Stage],
) -> None:
    made = stage(delays=(2, 2, 2, 12), mode="rtc")
    made.run(5.0)
    drops = made.decisions("drop")
    assert len(drops) == 1
    assert "the next one will be told more" in drops[0].why
    assert made.decisions("hold")[0].time > drops[0].time + 1.0  # the rows in force played on


@pytest.mark.parametrize("mode", ["latest", "rtc"])
def test_inference_slower_than_the_horizon_holds_and_then_stops(stage: Callable[..., Stage], mode: str) -> None:
    made = stage(delays=(20,), horizon=16, mode=mode)
    with pytest.raises(SafetyStop, match=r"too late.*slower than the horizon"):
        made.run(60.0)
    made.robot.rest()
    assert made.robot.loop.state == "hold"
    assert len(made.decisions("drop")) == 5
    assert made.session.status().state == "failed"


def test_in_sync_slow_inference_rests_between_chunks(stage: Callable[..., Stage]) -> None:
    made = stage(delays=(20,), horizon=16, mode="sync")
    assert made.run(5.0)
    assert len(made.session.chunks) >= 3
    assert made.decisions("drop") == []
    assert len(made.decisions("hold")) >= 3


def test_a_pause_kills_what_was_begun_before_it(stage: Callable[..., Stage]) -> None:
    made = stage(delays=(10,))
    made.at = [(0.9, made.session.pause), (2.0, made.session.resume)]
    made.run(4.0)
    paused, resumed = made.decisions("pause")[0], made.decisions("resume")[0]
    assert not [c for c in made.decisions("chunk", "observe") if paused.time < c.time < resumed.time]
    assert any("before a stop" in d.why for d in made.decisions("drop"))
    assert [c for c in made.decisions("chunk") if c.time > resumed.time]


def test_another_task_in_mid_chunk_drops_what_is_computed_and_keeps_what_is_played(
    stage: Callable[..., Stage],
) -> None:
    policy = Acts()
    made = stage(policy, delays=(8,))
    made.at = [(0.9, lambda: made.session.set_task("another"))]
    made.run(3.0)
    told = made.decisions("task")[0]
    assert told.task == "another"
    after = [m.decision.kind for m in made.moments if m.decision.time >= told.time]
    assert [kind for kind in after if kind in ("drop", "observe", "chunk")][:3] == ["drop", "observe", "chunk"]
    assert policy.told[-1] == "another"
    assert [h for h in made.decisions("hold") if h.time < told.time + 1.5] == []


def test_the_reasoners_subtask_takes_force_at_a_chunks_boundary(stage: Callable[..., Stage]) -> None:
    policy = Acts()
    made = stage(policy, delays=(4,), reasoner=Words("grasp the cup", "lift it"), reason="subtask", reason_every=1.0)
    made.run(4.0)
    said = made.decisions("subtask")
    assert [d.subtask for d in said] == ["grasp the cup", "lift it"]
    assert list(dict.fromkeys(policy.told)) == ["follow", "grasp the cup", "lift it"]
    # the chunk under way was played, not dropped
    assert made.decisions("drop") == []
    assert made.session.status().subtask_from == "reasoner"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "empty"),
        (AnswerError("subtask: no end within 64 tokens"), "no end"),
        (AnswerError("subtask: the model wrote nothing"), "nothing"),
        ("go\nand go", "more than one line"),
        ("<box>(1,2)</box>", "markers"),
        ("12 34 !!", "no word"),
        ("what should I do?", "question"),
        (" ".join(["on"] * 41), "longer than"),
    ],
)
def test_what_is_no_subtask_is_not_taken(stage: Callable[..., Stage], said: str | Exception, why: str) -> None:
    policy = Acts()
    made = stage(policy, reasoner=Words(said), reason="subtask")
    made.run(2.0)
    assert set(policy.told) == {"follow"}
    answers = made.decisions("answer")
    assert answers and all("not taken" in a.why and why in a.why for a in answers)
    assert made.session.status().answers == 0
    assert made.session.status().answers_dropped == len(answers)


def test_the_operators_subtask_overrides_the_reasoner_and_a_stale_answer_is_dropped(
    stage: Callable[..., Stage],
) -> None:
    policy, words = Acts(), Words("grasp the cup")
    made = stage(policy, reasoner=words, reason="subtask", reason_every=1.0)
    # the Reasoner takes half a second, and the operator speaks meanwhile
    made.at = [(0.25, lambda: made.session.set_subtask("wait")), (3.0, lambda: made.session.set_subtask(None))]
    made.run(5.0)
    assert "stale" in made.decisions("answer")[0].why
    override, back = (d.time for d in made.decisions("subtask")[:2])
    assert not [d for d in made.decisions("reason") if override < d.time < back]
    assert next(d.why for d in made.decisions("reason") if d.time >= back) == "for a subtask: operator"
    assert list(dict.fromkeys(policy.told)) == ["follow", "wait", "grasp the cup"]


def test_an_answer_about_old_pictures_is_dropped(stage: Callable[..., Stage]) -> None:
    made = stage(Acts(), reasoner=Words("grasp"), reason="subtask", max_answer_age=0.1)
    made.run(2.0)
    assert all("pictures are" in a.why for a in made.decisions("answer"))
    assert made.decisions("subtask") == []


def test_reasoning_comes_before_the_subtask_when_it_is_wanted(stage: Callable[..., Stage]) -> None:
    words = Words("the cup is left of me", "reach left")
    made = stage(Acts(), reasoner=words, reason="full", reason_every=60.0)
    made.run(2.0)
    assert made.session.status().reasoning == "the cup is left of me"
    assert made.session.status().subtask == "reach left"


def test_a_question_is_answered_while_the_robot_acts_and_while_it_is_paused(stage: Callable[..., Stage]) -> None:
    words = Words("a cup")
    made = stage(Acts(), reasoner=words)
    answers: list[str] = []
    threads: list[threading.Thread] = []

    def ask() -> None:
        thread = threading.Thread(target=lambda: answers.append(made.session.ask("what is there?")))
        threads.append(thread)
        thread.start()
        while not made.session._thoughts.has_questions and thread.is_alive():  # type: ignore[union-attr]
            pass

    made.at = [(0.5, ask), (2.0, made.session.pause), (2.5, ask), (4.0, made.session.resume)]
    made.run(6.0)
    for thread in threads:
        thread.join()
    assert answers == ["a cup", "a cup"]
    assert words.asked == ["what is there?"] * 2
    with pytest.raises(ConfigError, match="stopped"):
        made.session.ask("and now?")


class Frozen(Camera):
    """Shows one picture with fresh times."""

    def __init__(self, clock: Callable[[], float], lag: float = 0.0, since: float = 0.0) -> None:
        self.name = "face_view"
        self._clock, self._lag, self._since = clock, lag, since
        self._begin: float | None = None

    def read(self) -> Frame:
        now = self._clock()
        self._begin = self._begin if self._begin is not None else now
        shown = min(now - self._begin, self._since)
        return Frame(np.full((48, 64, 3), int(shown * 100) % 256, np.uint8), now - self._lag)

    def close(self) -> None:
        pass


def test_a_camera_that_freezes_ends_the_session_with_a_hold(stage: Callable[..., Stage]) -> None:
    now: list[Callable[[], float]] = []
    made = stage(cameras={"face_view": Frozen(lambda: now[0](), since=2.0)}, delays=(2,))
    now.append(lambda: made.robot.now)
    with pytest.raises(DeviceError, match=r"very same picture .* \(session.frozen_after"):
        made.run(30.0)
    made.robot.rest()
    assert made.robot.loop.state == "hold"
    assert 2.0 < made.robot.now - made.decisions("start")[0].time < 7.0


def test_a_still_picture_is_allowed_where_it_is_wanted(stage: Callable[..., Stage]) -> None:
    now: list[Callable[[], float]] = []
    made = stage(cameras={"face_view": Frozen(lambda: now[0]())}, frozen_after=0.0)
    now.append(lambda: made.robot.now)
    assert made.run(4.0)


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_camera_that_lags_counts_as_delay(stage: Callable[..., Stage], calibrated: bool) -> None:
    """Whether its time stamps tell it, or the calibration does."""
    now: list[Callable[[], float]] = []
    camera = Frozen(lambda: now[0](), lag=0.0 if calibrated else 0.3, since=60.0)
    delays = {"face_view": 0.3} if calibrated else {}
    made = stage(cameras={"face_view": camera}, delays=(2,), camera_delay=delays)
    now.append(lambda: made.robot.now)
    assert made.run(4.0)
    assert {c.delay_rows for c in made.decisions("chunk")[2:]} <= {12, 13}  # 0.3 s are 10 rows
    assert [h for h in made.decisions("hold") if h.time < made.decisions("start")[0].time + 4.0] == []


def test_rolled_forward_the_policy_is_told_the_pose_at_arrival(stage: Callable[..., Stage]) -> None:
    states: list[np.ndarray] = []

    class Told(Acts):
        def act(self, observation: Any, noise: Any = None, **options: Any) -> Any:
            states.append(observation.state)
            return super().act(observation, noise, **options)

    made = stage(Told(), delays=(6,), roll_forward=True)
    made.run(3.0)
    chunks = made.session.chunks
    for before, state in zip(chunks[1:], states[3:], strict=False):
        assert any(np.array_equal(state, row) for row in before.rows)
    assert made.decisions("drop") == []


def test_stops_when_it_is_told_and_holds(stage: Callable[..., Stage]) -> None:
    made = stage()
    made.at = [(1.0, made.session.stop)]
    assert not made.run(60.0)
    assert made.robot.loop.state == "hold"
    assert made.decisions("stop")
    with pytest.raises(ConfigError, match="once"):
        made.session.run()


def test_what_a_subscriber_raises_ends_the_session_with_a_hold(stage: Callable[..., Stage]) -> None:
    made = stage()

    def fail(moment: Moment) -> None:
        if moment.decision.kind == "chunk":
            raise OSError("the disk is full")

    made.session.subscribe(fail)
    with pytest.raises(OSError, match="full"):
        made.run(5.0)
    made.robot.rest()
    assert made.robot.loop.state in ("hold", "calibrated")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"execute_rows": 51}, "horizon 50"),
        ({"camera_delay": {"other": 0.1}}, "does not look at"),
        ({"reason": "subtask"}, "no Reasoner"),
    ],
)
def test_a_session_that_does_not_fit_is_refused(
    stage: Callable[..., Stage], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        stage(**config)


def test_a_binding_names_what_was_matched(stage: Callable[..., Stage]) -> None:
    binding = stage().session.binding
    parts = [row.part for row in binding.rows]
    assert parts.count("joint") == 6
    for part in ("camera", "statistics", "width", "step", "execution"):
        assert part in parts
    assert binding.as_json()[0] == {"part": "camera", "model": "face_view", "robot": "face_view"}


def test_rows_closer_than_two_periods_are_refused() -> None:
    with SteppedRobot(rate_hz=50.0) as robot:
        with pytest.raises(ConfigError, match="two periods"):
            Session(
                TwoModes(arm_model.REST_POSE, step=0.03),
                robot,
                {"face_view": PatternCamera("face_view", width=64, height=48)},
                "follow",
            )
