"""What `wallx-edge bench session` measures: acting and thinking at once, seams between chunks, and what is shared."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gc
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.bench.loop import loopback_toml
from wallx_edge.bench.seams import measure_seams, seam_summary
from wallx_edge.buses import BusConfig
from wallx_edge.cameras import PatternCamera
from wallx_edge.embodiment import load_embodiment
from wallx_edge.errors import WallxError
from wallx_edge.generation import GenerationConfig, OnText
from wallx_edge.policy import Follow, Policy, PolicyConfig
from wallx_edge.reasoner import Answer, Reasoner
from wallx_edge.robot import Robot, lateness_us
from wallx_edge.scene import pattern
from wallx_edge.session import Session, SessionConfig, SessionStatus
from wallx_edge.synth import synth
from wallx_edge.types import ActionChunk, Observation

__all__ = ["DELAYS", "LIMITS", "bench_session", "problems", "run_for"]

CAMERAS = ("face_view", "wrist_view")
DELAYS = (2, 5, 10)  # of the seams [steps]
CONFIG = PolicyConfig(cameras=CAMERAS, resolution=128, horizon=32)
BUDGET = 200  # tokens of a text
MIN_TEXT_SHARE = 0.35
# figure -> the most that it may be
LIMITS = {
    "chunk_latency_ratio": 1.25,
    "jump_ratio": 0.1,
    "acceleration_ratio": 1.0,
    "holds": 0,
    "pictures_computed_by_reasoner": 0,
}


def bench_session(duration: float = 10.0, on_part: Callable[[], None] | None = None) -> dict[str, Any]:
    """Measures all of it, with a synthetic checkpoint of about 5 million parameters. Blocks some minutes.

    Args:
        duration: of each of the five blocks of the queue's measurement [s].
        on_part: called after every part.

    Returns:
        ``queue``, ``seams``, ``sharing``; ``figures``, and ``kept``: which of their bounds hold.
    """
    tell = on_part or (lambda: None)
    with tempfile.TemporaryDirectory() as folder:
        rest = {joint.name: joint.rest_position for joint in load_embodiment("so101").joints}
        checkpoint = Path(folder) / "checkpoint"
        synth("small", checkpoint, rest, "so101")
        queue = measure_queue(checkpoint, duration)
        tell()
        sharing = measure_sharing(checkpoint)
        tell()
    seams = [measure_seams(mode, delay) for delay in DELAYS for mode in ("latest", "rtc")]
    tell()
    figures = {
        "chunk_latency_ratio": queue["chunk_latency_ratio"],
        "text_rate_share": queue["text_rate_share"],
        "pictures_computed_by_reasoner": sharing["pictures_computed_by_reasoner"],
        **seam_summary(seams),
    }
    kept = {name: bool(figures[name] <= limit) for name, limit in LIMITS.items()}
    kept["text_rate_share"] = figures["text_rate_share"] >= MIN_TEXT_SHARE
    kept["loop_p99_unchanged"] = queue["is_loop_unchanged"]
    return {"queue": queue, "sharing": sharing, "seams": seams, "figures": figures, "kept": kept}


def _look(policy: Policy, t: float) -> Observation:
    images = {role: pattern(t, 320, 240, seed) for seed, role in enumerate(CAMERAS)}
    return Observation(images, policy.middle_state(), "follow the block", t)


class _Talk:
    """Text without a break, on a thread of its own."""

    def __init__(self, reasoner: Reasoner, images: list[Any]) -> None:
        self._reasoner, self._images = reasoner, images
        self._is_over = threading.Event()
        self.count = 0
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="talk")

    def __enter__(self) -> _Talk:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._is_over.is_set():
                config = GenerationConfig(max_tokens=BUDGET)
                self._reasoner.ask(self._images, "what is there?", config, self._heard, resolution=128)
        except BaseException as error:
            self.error = error

    def _heard(self, text: str) -> bool:
        self.count += 1
        return not self._is_over.is_set()


def measure_queue(checkpoint: Path, duration: float) -> dict[str, Any]:
    """Chunks every two times their lone time, text without a break, and the loop beside them: alone and together.

    Each of the blocks with chunks alone, text alone and both runs beside a 200 Hz control loop; blocks with the loop
    alone come before and after; no more than the worst of them is its lateness unchanged.
    """
    policy = Policy.load(checkpoint, CONFIG)
    looks = [_look(policy, 0.1 * i) for i in range(16)]
    reasoner = Reasoner(checkpoint, policy.config, policy.engine)
    images = [looks[0].images[role] for role in CAMERAS]
    with closing(_core.InferenceQueue()) as queue, _loop() as loop:
        policy.queue = reasoner.queue = queue
        for look in looks:
            policy.act(look, deadline=time.monotonic())
        reasoner.ask(images, "what?", GenerationConfig(max_tokens=BUDGET), resolution=128)
        late: dict[str, list[float]] = {}
        num_quiet = 3  # blocks before and after

        def lateness(name: str, run: Callable[[], Any]) -> Any:
            before = loop.lateness_histogram()
            result = run()
            late.setdefault(name, []).append(lateness_us(loop.lateness_histogram() - before, 0.99))
            return result

        def rest() -> None:
            time.sleep(duration)

        lone = statistics.median(_act(policy, looks[i % 16])[0] for i in range(30))

        def chunks() -> list[tuple[float, float]]:
            end, next_at = time.monotonic() + duration, time.monotonic()
            out: list[tuple[float, float]] = []
            while next_at < end:
                time.sleep(max(0.0, next_at - time.monotonic()))
                out.append(_act(policy, looks[len(out) % 16]))
                next_at = max(next_at + 2 * lone, time.monotonic())
            return out

        def talk(beside: Callable[[], Any]) -> tuple[Any, float]:
            with _Talk(reasoner, images) as talking:
                begin, before = time.monotonic(), talking.count
                result = beside()
                return result, (talking.count - before) / (time.monotonic() - begin)

        for _ in range(num_quiet):
            lateness("quiet", rest)
        alone = lateness("chunks", chunks)
        _, text_alone = lateness("text", lambda: talk(lambda: time.sleep(duration)))
        both, text_beside = lateness("both", lambda: talk(chunks))
        for _ in range(num_quiet):
            lateness("quiet", rest)
        counters, slice_s = queue.counters(), queue.slice_s
    alone_s, both_s = (statistics.median(total for total, _ in runs) for runs in (alone, both))
    quiet = late["quiet"]
    return {
        "parameters": _num_parameters(checkpoint),
        "chunk_alone_ms": alone_s * 1e3,
        "chunk_beside_text_ms": both_s * 1e3,
        "chunk_beside_text_p95_ms": float(np.quantile([total for total, _ in both], 0.95)) * 1e3,
        "chunk_alone_p95_ms": float(np.quantile([total for total, _ in alone], 0.95)) * 1e3,
        "chunk_waited_p99_ms": float(np.quantile([waited for _, waited in both], 0.99)) * 1e3,
        "chunk_latency_ratio": both_s / alone_s,
        "chunks": [len(alone), len(both)],
        "text_alone_per_s": text_alone,
        "text_beside_chunks_per_s": text_beside,
        "text_rate_share": text_beside / text_alone,
        "slice_ms": slice_s * 1e3,
        "let_first": counters["let_first"],
        "loop_p99_us": late,
        "is_loop_unchanged": late["both"][0] <= max(quiet),
    }


@contextmanager
def _joints() -> Iterator[_core.Robot]:
    """Six joints without wires, connected."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loopback.toml"
        path.write_text(loopback_toml(6), encoding="utf-8")
        robot = _core.make_robot(load_embodiment(path), [], BusConfig(kind="loopback", port="none").core())
    robot.connect()
    try:
        yield robot
    finally:
        robot.disconnect()


@contextmanager
def _loop() -> Iterator[_core.ControlLoop]:
    """A loop that runs on them."""
    with _joints() as robot:
        loop = _core.ControlLoop(robot, rate_hz=200.0)
        loop.start()
        try:
            yield loop
        finally:
            loop.stop()


def _act(policy: Policy, look: Observation) -> tuple[float, float]:
    """One chunk: its time, and how long its work waited [s]."""
    begin = time.monotonic()
    policy.act(look, deadline=begin)
    return time.monotonic() - begin, policy.waited_s


def _num_parameters(checkpoint: Path) -> int:
    tensors = _core.read_safetensors(str(next(checkpoint.glob("*.safetensors"))))
    return int(sum(tensor.size for tensor in tensors.values()))


def measure_sharing(checkpoint: Path, rounds: int = 5) -> dict[str, Any]:
    """What a subtask of the policy's own observation computes again: pictures, and tokens of its prompt."""
    policy = Policy.load(checkpoint, CONFIG)
    computed, shared, prompt = 0, 0, 0
    for i in range(rounds):
        look = _look(policy, 0.3 * i)
        policy.act(look)
        reasoner = Reasoner(checkpoint, policy.config, policy.engine, policy.context.fork())
        # its prompt is what counts: the first word is enough
        answer = reasoner.subtask(look, GenerationConfig(max_tokens=2), lambda text: False)
        computed += reasoner.context.num_pictures
        shared, prompt = shared + answer.shared_tokens, prompt + answer.prompt_tokens
    return {
        "observations": rounds,
        "pictures_computed_by_policy": policy.context.num_pictures,
        "pictures_computed_by_reasoner": computed,
        "subtask_prompt_tokens": prompt,
        "subtask_tokens_shared": shared,
    }


class _Calm(Policy):
    """Computes as it does, but moves to and fro: what random weights do with their own motions has no bounds."""

    def act(
        self,
        observation: Observation,
        noise: NDArray[np.float32] | None = None,
        *,
        follow: Follow | None = None,
        deadline: float | None = None,
    ) -> ActionChunk:
        """A slow wave; the rows to follow where there are any."""
        chunk = super().act(observation, noise, follow=follow, deadline=deadline)
        wave = 0.2 * np.sin(observation.captured_at + chunk.step * np.arange(chunk.horizon))
        rows = np.repeat(wave[:, np.newaxis], chunk.layout.width, axis=1)
        if follow is not None:
            rows[: follow.num_frozen] = follow.rows[: follow.num_frozen]
        return ActionChunk(rows, chunk.step, chunk.observed_at, chunk.layout)


class _Steady(Reasoner):
    """Thinks as it does, but always says the same: random weights' words lead random weights out of their range."""

    def subtask(
        self, observation: Observation, config: GenerationConfig | None = None, on_text: OnText | None = None
    ) -> Answer:
        """The instruction itself; raises as the Reasoner does."""
        return replace(super().subtask(observation, config, on_text), text=observation.instruction)


def run_for(duration: float, folder: Path, reason_every: float = 0.5) -> dict[str, Any]:
    """A session on joints without wires, in real time, reasoning all the while: memory, frames and threads.

    Args:
        duration: [s]
        folder: for its files.
        reason_every: time between two questions [s].

    Returns:
        resident memory at a fifth of the time and at the end [bytes], decisions by kind, frames that are not accounted
        for, and threads left behind.
    """
    threads = set(threading.enumerate())
    kinds: dict[str, int] = {}
    memory: list[tuple[float, int]] = []

    def count(moment: Any) -> None:
        kinds[moment.decision.kind] = kinds.get(moment.decision.kind, 0) + 1

    def look(status: SessionStatus) -> None:
        if not memory or status.elapsed - memory[-1][0] >= duration / 50:
            gc.collect()
            memory.append((status.elapsed, _resident()))
        robot.loop.drain()

    with ExitStack() as stack:
        core = stack.enter_context(_joints())
        loop = _core.ControlLoop(core, rate_hz=200.0, max_first_step=3.0)
        robot = stack.enter_context(Robot(core, loop, max_first_step=1.5))
        loop.start()
        rest = {joint.name: joint.rest_position for joint in robot.embodiment.joints}
        synth("tiny", folder / "checkpoint", rest, "loopback")
        policy = _Calm.load(folder / "checkpoint", CONFIG)
        cameras = {role: PatternCamera(role, width=320, height=240, seed=i) for i, role in enumerate(CAMERAS)}
        session = Session(
            policy,
            robot,
            cameras,
            "follow the block",
            config=SessionConfig(reason="full", reason_every=reason_every, max_tokens=32),
            reasoner=_Steady(policy.directory, policy.config, policy.engine),
        )
        session.subscribe(count)
        session.run(duration, look)
        status = session.status()
    ended = sum(kinds.get(kind, 0) for kind in ("chunk", "drop", "refuse"))
    settled = [size for at, size in memory if at >= duration / 5]
    if not settled:
        raise WallxError("the session was too short to measure its memory")
    return {
        "seconds": status.elapsed,
        "kinds": kinds,
        "answers": status.answers + status.answers_dropped,
        "memory_at_a_fifth": settled[0],
        "memory_at_the_end": settled[-1],
        "memory_growth": settled[-1] / settled[0] - 1,
        # each inference reads every camera once, and so does the one that warms up
        "frames_missing": status.frames - len(cameras) * (1 + kinds.get("observe", 0)),
        "inferences_missing": kinds.get("observe", 0) - ended,
        "holds": status.holds,
        "threads_left": [thread.name for thread in threading.enumerate() if thread not in threads],
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


MAX_GROWTH = 0.01  # of the memory


def problems(found: dict[str, Any]) -> list[str]:
    """What is wrong with a run of :func:`run_for`; empty: nothing."""
    wrong = []
    if found["memory_growth"] > MAX_GROWTH:
        wrong.append(f"memory grew by {found['memory_growth']:.2%}, at most {MAX_GROWTH:.0%}")
    for key in ("frames_missing", "inferences_missing", "threads_left"):
        if found[key]:
            wrong.append(f"{key}: {found[key]}")
    if not found["answers"] or not found["kinds"].get("chunk"):
        wrong.append(f"it did not act and think: {found['kinds']}")
    return wrong


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
