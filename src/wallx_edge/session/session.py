"""Session: observes, infers, hands rows over, thinks and watches; nothing in it waits for anything slower."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from wallx_edge.action_map import RowsRefused
from wallx_edge.cameras import Camera
from wallx_edge.errors import AnswerError, ConfigError, SafetyStop
from wallx_edge.policy import Policy
from wallx_edge.reasoner import Reasoner
from wallx_edge.session.account import Account
from wallx_edge.session.acting import MAX_REFUSALS, Actor, Inferred, refusal
from wallx_edge.session.binding import Binding
from wallx_edge.session.decision import Kind, Moment
from wallx_edge.session.execution import Execution, Late, PlayedChunk
from wallx_edge.session.pace import Outcome, Pace, RealTime
from wallx_edge.session.parts import ActingPolicy, DrivenRobot, Thinker
from wallx_edge.session.status import SessionStatus
from wallx_edge.session.subtask import Cause, Instruction, Progress, Thinking, check_words
from wallx_edge.session.thinking import Question, Thought, Thoughts
from wallx_edge.session_config import SessionConfig
from wallx_edge.types import ActionChunk, Observation

__all__ = ["Session"]

TICK = 0.05  # between looks at the loop, at the latest [s]


class Session:
    """One policy, one robot, one task; every method may be called from any thread.

    The thread that calls :meth:`run` decides; policy and Reasoner compute on threads of their own, in one
    :class:`wallx_edge._core.InferenceQueue`; the control loop waits for none of them.

    Attributes:
        binding: how model, robot and cameras were matched.
        config: as given.
    """

    def __init__(
        self,
        policy: ActingPolicy,
        robot: DrivenRobot,
        cameras: Mapping[str, Camera],
        task: str,
        *,
        config: SessionConfig | None = None,
        reasoner: Thinker | None = None,
        pace: Pace | None = None,
    ) -> None:
        """Matches policy, robot and cameras.

        Args:
            policy: what decides.
            robot: connected.
            cameras: open, by role.
            task: the instruction.
            config: how to act and think.
            reasoner: what says subtasks and answers; made from the policy's weights when not given.
            pace: of the session; real time by default.

        Raises:
            ConfigError: they do not fit; the message names both sides.
        """
        self.config = config or SessionConfig()
        self.binding = Binding.of(policy, robot, cameras, self.config)
        self._policy = policy
        self._robot = robot
        self._pace = pace or RealTime()
        if reasoner is None and isinstance(policy, Policy):
            reasoner = Reasoner(policy.directory, policy.config, policy.engine, policy.context)
        if reasoner is None and self.config.reason != "off":
            raise ConfigError(f"session.reason is {self.config.reason!r}, but there is no Reasoner")
        self._reasoner = reasoner
        self._actor = Actor(policy, robot, cameras, self.binding.map, self.config)
        settings = policy.config
        self._num_cameras = len(cameras)
        self._execution = Execution(self.config, settings.horizon, settings.step)
        self._desk = self._pace.desk("policy")
        self._thoughts = Thoughts(reasoner, self._pace.desk("reasoner"), self.config) if reasoner else None
        self._progress = Progress(self.config)
        self._thinking = Thinking(self.config)

        self._account = Account(check_words(task, "task"), self.config)
        self._requests: deque[Callable[[float], None]] = deque()
        self._has_run = False
        self._is_stopped = False
        self._is_paused = False
        self._loop_state = ""
        self._seen: Observation | None = None  # the newest, whose pictures the policy's context holds
        self._num_refused = self._num_late = 0  # in a row
        self._was_cancelled = False  # the inference under way, by the operator's words
        self._is_observing = False  # the desk observes only, for a question during a pause

    # what any thread may ask for

    def observe(self) -> Observation:
        """What cameras and robot say now. Blocks until each camera has a frame.

        Raises:
            DeviceError: a camera has stopped, or shows the same picture for too long.
            SafetyStop: the loop has stopped the robot.
        """
        return self._actor.observe(self._account.instruction.subtask)[0]

    def infer(self) -> tuple[ActionChunk, NDArray[np.float64]]:
        """One observation, one chunk, and its joint rows [rad] (horizon, joints); moves nothing. Before :meth:`run`.

        Raises:
            RowsRefused: the chunk cannot be played; otherwise as :meth:`run`.
        """
        inferred = self._actor.infer(self._account.instruction, self._execution, None)
        if inferred.problem:
            raise RowsRefused(inferred.problem)
        return inferred.chunk, inferred.rows

    def stop(self) -> None:
        """Brakes at once, and :meth:`run` ends soon; also from a signal handler."""
        self._is_stopped = True
        if self._account.is_live:
            self._robot.loop.hold()
        self._pace.wake()

    def pause(self) -> None:
        """Brakes along the limits and keeps the last command until :meth:`resume`. Nothing is inferred meanwhile."""
        if self._account.is_live:
            self._robot.loop.hold()
        self._request(self._pause)

    def resume(self) -> None:
        """Goes on from a fresh observation; chunks from before the pause are dead."""
        self._request(self._resume)

    def set_task(self, task: str) -> None:
        """Another instruction. An inference under way is cancelled; the rows in force play on until a chunk is there.

        Raises:
            ConfigError: no words.
        """
        words = check_words(task, "task")
        self._request(lambda now: self._instruct(now, "task", self._account.instruction.with_task(words)))

    def set_subtask(self, subtask: str | None) -> None:
        """The operator's subtask, which overrides everything; ``None``: the Reasoner's turn, it is asked at once.

        Raises:
            ConfigError: no words.
        """
        words = None if subtask is None else check_words(subtask, "subtask")
        self._request(lambda now: self._instruct(now, "subtask", self._account.instruction.with_operator(words)))

    def ask(self, question: str, timeout: float = 30.0) -> str:
        """An answer about the newest pictures. Blocks until it is there; the robot goes on acting.

        Raises:
            AnswerError: the model wrote nothing, or not in time, or the session ended.
            ConfigError: no words, no Reasoner, or the session is not running.
        """
        words = check_words(question, "question")
        thoughts = self._thoughts
        if thoughts is None:
            raise ConfigError("ask: this session has no Reasoner")
        if not self._account.is_live:
            raise ConfigError(f"ask: the session is {self._account.state}, not running")
        answer: Future[str] = Future()
        thoughts.put(Question(words, answer))
        self._pace.wake()
        try:
            return answer.result(timeout)
        except FutureTimeout:
            answer.cancel()
            raise AnswerError(f"no answer within {timeout:g} s") from None

    def subscribe(self, callback: Callable[[Moment], None]) -> Callable[[], None]:
        """Calls ``callback`` with every moment, on the session's thread, which it must not block.

        What it raises ends the session.

        Returns:
            what ends the subscription.
        """
        return self._account.subscribe(callback)

    @property
    def chunks(self) -> list[PlayedChunk]:
        """What was handed to the loop, oldest first; the newest 4096."""
        return self._account.chunks

    def status(self) -> SessionStatus:
        """What a display shows. Does not block."""
        return self._account.status(self._pace.now(), self._robot.loop, self._actor.num_frames)

    # the run

    def run(self, duration: float | None = None, on_tick: Callable[[SessionStatus], None] | None = None) -> bool:
        """Acts until the time is over, then plays the last chunk to its end, where it rests. Blocks.

        The first inference, which sizes buffers and touches weights, is done before the motors are enabled and counts
        for nothing. When this returns or raises, the robot holds and every thread of the session has ended.

        Args:
            duration: how long to ask for new chunks [s]; without it, until :meth:`stop`.
            on_tick: called about every 50 ms on this thread.

        Returns:
            whether the time was used up; False when :meth:`stop` ended it, which brakes at once.

        Raises:
            SafetyStop: the loop stopped the robot, or 5 chunks in a row were refused or too late.
            DeviceError: a camera stopped or froze.
            ConfigError, WallxError: the policy failed.
        """
        if self._has_run:
            raise ConfigError("a session runs once; make another one")
        self._has_run = True
        self._account.set(state="starting")
        queue = self._pace.queue()
        try:
            self._policy.queue = queue
            if self._reasoner is not None:
                self._reasoner.queue = queue
            self._actor.infer(self._account.instruction, self._execution, None)  # warm
            if self._is_stopped:
                self._account.set(state="stopped")
                return False
            with self._robot.enabled():
                try:
                    self._act(duration, on_tick)
                finally:
                    was_stopped, self._is_stopped = self._is_stopped, True
                    # brake before waiting: the policy may still be computing
                    self._robot.loop.hold()
        except BaseException:
            self._account.set(state="failed")
            raise
        finally:
            self._end(queue)
        self._account.set(state="stopped")
        return not was_stopped

    def _end(self, queue: Any) -> None:
        if queue is not None:
            queue.close()
        self._policy.cancel()
        self._desk.close()
        if self._thoughts is not None:
            self._thoughts.close()
        self._policy.queue = None
        if self._reasoner is not None:
            self._reasoner.queue = None

    def _act(self, duration: float | None, on_tick: Callable[[SessionStatus], None] | None) -> None:
        now = self._pace.now()
        self.begin(now)
        deadline = None if duration is None else now + duration
        next_look = now
        while not self._is_stopped:
            now = self._pace.now()
            wake_at = self.advance(now, deadline)
            if self.is_over(now, deadline):
                break
            if on_tick is not None and now >= next_look:
                next_look = now + TICK
                on_tick(self.status())
            self._pace.wait(min(wake_at, next_look, now + TICK) - self._pace.now())
        if self._is_stopped:
            self._account.tell(self._pace.now(), "stop", "the operator stopped it")

    def begin(self, now: float) -> None:
        """The motors are enabled: from here on :meth:`advance` decides. Called by :meth:`run`."""
        self._account.begin(now, self._robot.loop.counters()["holds"])
        self._loop_state = self._robot.loop.state
        self._account.set(state="running")
        self._account.tell(now, "start", f"mode {self.config.mode}, reason {self.config.reason}")

    def advance(self, now: float, deadline: float | None = None) -> float:
        """Takes what has come and begins what is due; never waits. Called by :meth:`run`, or in lock-step.

        Args:
            now: [s]
            deadline: after it no inference begins [s].

        Returns:
            when it wants to be called again, at the latest [s].
        """
        self._look(now)
        while self._requests:
            self._requests.popleft()(now)
        outcome = self._desk.take(now)
        if outcome is not None:
            self._is_observing = False
            self._take(now, outcome)
        if self._thoughts is not None:
            thought = self._thoughts.take(now)
            if thought is not None:
                self._consider(now, thought)
        is_due = now >= self._execution.next_at
        if not self._is_paused and not self._desk.is_busy:
            # while the policy's context is nobody's
            self._think(now)
            if is_due and (deadline is None or now < deadline):
                self._infer(now)
        elif self._is_paused and not self._desk.is_busy:
            self._look_for_questions(now)
        # what is due and was not begun waits for something that wakes
        next_at = self._execution.next_at
        return next_at if next_at > now and not self._desk.is_busy and not self._is_paused else now + TICK

    def is_over(self, now: float, deadline: float | None) -> bool:
        """Whether the time is used up and the last chunk was played to its end, where the robot rests."""
        if deadline is None or now < deadline or self._desk.is_busy or self._is_paused:
            return False
        record = self._robot.loop.snapshot()
        last = self._account.newest
        if last is None:
            return True
        rests_at = last.start + len(last.rows) * last.step + self._robot.loop.max_stop_time_s + 1.0
        # a hold for another reason, such as a lost answer, goes on by itself
        return now > max(rests_at, deadline) or (
            record is not None
            and record["state"] == "hold"
            and record["plan_sequence"] == last.sequence
            and record["cause"]["reason"] in ("plan exhausted", "no plan")
        )

    # steps of advance()

    def _look(self, now: float) -> None:
        self._robot.check()
        record = self._robot.loop.snapshot()
        if record is None or record["state"] == self._loop_state:
            return
        self._loop_state = record["state"]
        if record["state"] == "hold":
            self._account.tell(now, "hold", record["cause"]["reason"], sequence=record["plan_sequence"] or None)

    def _infer(self, now: float) -> None:
        instruction, plan = self._account.instruction, self._execution.plan
        if plan is not None and self._loop_state in ("calibrated", "armed"):
            plan = None
        self._account.tell(now, "observe", "the next chunk is due" if plan is not None else "no rows are in force")
        self._desk.begin(lambda: self._actor.infer(instruction, self._execution, plan), now)

    def _take(self, now: float, outcome: Outcome) -> None:
        """A chunk, or why there is none."""
        if outcome.error is not None:
            # the operator's words cancel what was begun before them
            if self._was_cancelled:
                self._was_cancelled = False
                self._drop(now, "the instruction changed", None)
                return
            raise outcome.error
        if isinstance(outcome.result, Observation):
            self._seen = outcome.result
            return
        inferred = cast(Inferred, outcome.result)
        self._was_cancelled = False
        self._seen = inferred.observation
        if inferred.instruction.epoch != self._account.instruction.epoch:
            self._drop(now, "the instruction changed", inferred)
            return
        why = inferred.problem or refusal(
            inferred.chunk,
            inferred.rows,
            inferred.measured,
            self._robot.joint_names,
            self._robot.max_first_step,
        )
        if why:
            self._num_refused += 1
            self._account.add(refused=1)
            self._account.tell(now, "refuse", f"refused: {why}", inferred.observation.captured_at)
            if self._num_refused == MAX_REFUSALS:
                raise SafetyStop(f"{MAX_REFUSALS} chunks in a row were refused; the last one: {why}")
            self._execution.hurry()
            return
        self._num_refused = 0
        self._play(now, inferred)

    def _play(self, now: float, inferred: Inferred) -> None:
        observed_at = inferred.observation.captured_at
        start = now if self.config.mode == "sync" else observed_at
        if self._is_paused or inferred.generation != self._robot.loop.generation:
            self._drop(now, "from before a stop", inferred)
            self._execution.clear()
            return
        try:
            made, delay = self._execution.arrive(
                inferred.place, inferred.rows, inferred.chunk.rows, now, self._robot.loop.on_grid(start)
            )
        except Late as late:
            self._num_late += 1
            self._drop(now, str(late), inferred)
            if self._num_late == MAX_REFUSALS:
                raise SafetyStop(f"{MAX_REFUSALS} chunks in a row came too late; the last one: {late}") from None
            self._execution.hurry()
            return
        self._num_late = 0
        sequence = self._robot.play(made.rows, made.start, made.step, inferred.generation)
        if sequence == 0:
            self._drop(now, "from before a stop", inferred)
            self._execution.clear()
            return
        played = PlayedChunk(sequence, observed_at, now, made.step, made.rows, made.start, delay)
        self._account.played(now, played, delay, self._num_cameras)
        self._account.tell(
            now,
            "chunk",
            f"{len(made.rows)} rows, {inferred.place.num_frozen} of them continued",
            observed_at,
            delay_rows=delay,
            sequence=sequence,
            observation=inferred.observation,
            rows=made.rows,
            start=made.start,
            step=made.step,
        )
        seen = self._progress.see(now, inferred.measured, inferred.rows)
        if seen:
            self._thinking.wish(seen)

    def _drop(self, now: float, why: str, inferred: Inferred | None) -> None:
        self._account.add(dropped=1)
        self._account.tell(now, "drop", why, inferred.observation.captured_at if inferred else None)

    def _think(self, now: float) -> None:
        """Asks the Reasoner when it is due, about what the policy has just seen."""
        if self._thoughts is None or self._seen is None or self._thoughts.is_busy:
            return
        cause: Cause | None = None
        if not self._thoughts.has_questions:
            cause = self._thinking.due(now, self._account.instruction)
            if cause is None:
                return
            self._thinking.asked(now)
        self._begin_thought(now, cause)

    def _look_for_questions(self, now: float) -> None:
        """During a pause questions are answered about fresh pictures; nothing is inferred."""
        if self._thoughts is None or self._thoughts.is_busy or not self._thoughts.has_questions:
            return
        if self._seen is None or now - self._seen.captured_at > TICK * 10:
            instruction = self._account.instruction.subtask
            self._is_observing = True
            self._desk.begin(lambda: self._actor.observe(instruction)[0], now)
            return
        self._begin_thought(now, None)

    def _begin_thought(self, now: float, cause: Cause | None) -> None:
        assert self._thoughts is not None and self._seen is not None
        settings = self._policy.config
        resolution = getattr(settings, "resolution", {}).get(settings.cameras[0], -1)
        pictures = {role: self._seen.images[role] for role in settings.cameras}
        thought = self._thoughts.begin(
            self._policy.context.fork(),
            replace(self._seen, images=pictures),
            self._account.instruction,
            resolution,
            now,
        )
        self._account.set(reason_state="thinking")
        asked = thought.question.text if thought.question is not None else ""
        why = f"for a subtask: {cause}" if cause else "the operator asks"
        self._account.tell(now, "reason", why, thought.observed_at, text=asked)

    def _consider(self, now: float, thought: Thought) -> None:
        """What the Reasoner said: a subtask for the next observation, or nothing."""
        self._account.set(reason_state="off" if self.config.reason == "off" else "idle")
        age = now - thought.observed_at
        why = thought.problem
        if not why and thought.kind == "subtask":
            if thought.instruction.epoch != self._account.instruction.epoch:
                why = "stale: the operator has spoken since"
            elif age > self.config.max_answer_age:
                why = f"stale: its pictures are {age:.1f} s old, at most {self.config.max_answer_age:g} s"
        self._account.answered(now, thought, not why)
        words = "\n".join(filter(None, (thought.reasoning, thought.text)))
        self._account.tell(now, "answer", f"not taken: {why}" if why else thought.kind, thought.observed_at, text=words)
        if why or thought.kind == "ask" or thought.text == self._account.instruction.subtask:
            return
        self._account.instruct(self._account.instruction.with_answer(thought.text))
        self._progress.clear()
        self._account.tell(now, "subtask", "the Reasoner's", thought.observed_at)

    # the operator

    def _request(self, change: Callable[[float], None]) -> None:
        if self._has_run:
            self._requests.append(change)
            self._pace.wake()
        else:
            change(self._pace.now())

    def _instruct(self, now: float, kind: Kind, instruction: Instruction) -> None:
        self._account.instruct(instruction)
        self._progress.clear()
        self._thinking.wish("operator" if kind == "subtask" else "first")
        if self._desk.is_busy and not self._is_observing:
            self._was_cancelled = True
            self._policy.cancel()
        if self._thoughts is not None and self._thoughts.is_busy:
            self._thoughts.cancel()
        if self.config.mode != "sync":
            self._execution.hurry()
        self._account.tell(now, kind, "the operator's")

    def _pause(self, now: float) -> None:
        if self._is_paused:
            return
        self._is_paused = True
        self._robot.loop.hold()
        self._execution.clear()
        self._account.set(state="paused")
        self._account.tell(now, "pause", "the operator's")

    def _resume(self, now: float) -> None:
        if not self._is_paused:
            return
        self._is_paused = False
        self._execution.clear()
        self._progress.clear()
        self._robot.loop.resume()
        self._account.set(state="running")
        self._account.tell(now, "resume", "the operator's")
