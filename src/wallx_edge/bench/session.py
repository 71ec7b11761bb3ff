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
from pathlib import Path
from typing import Any

import numpy as np

from wallx_edge import _core, demo
from wallx_edge.bench.loop import loopback_toml
from wallx_edge.bench.seams import measure_seams, seam_summary
from wallx_edge.buses import BusConfig
from wallx_edge.embodiment import load_embodiment
from wallx_edge.errors import WallxError
from wallx_edge.generation import GenerationConfig
from wallx_edge.policy import Policy, PolicyConfig
from wallx_edge.reasoner import Reasoner
from wallx_edge.robot import Robot, lateness_us
from wallx_edge.scene import pattern
from wallx_edge.session import Session, SessionConfig, SessionStatus
from wallx_edge.sim import SimProcess
from wallx_edge.synth import synth
from wallx_edge.types import Observation

__all__ = ["DELAYS", "LIMITS", "bench_session", "run_for"]

CAMERAS = ("face_view", "wrist_view")
DELAYS = (2, 5, 10)  # of the seams [steps]
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


def a_policy(checkpoint: Path) -> Policy:
    """As the bench asks it."""
    return Policy.load(checkpoint, PolicyConfig(cameras=CAMERAS, resolution=128, horizon=32))


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
    alone come before and after, and their spread is what its lateness may change by.
    """
    policy = a_policy(checkpoint)
    looks = [_look(policy, 0.1 * i) for i in range(16)]
    reasoner = Reasoner(checkpoint, policy.config, policy.engine)
    images = [looks[0].images[role] for role in CAMERAS]
    with closing(_core.InferenceQueue()) as queue, _loop() as loop:
        policy.queue = reasoner.queue = queue
        for look in looks:
            policy.act(look, deadline=time.monotonic())
        reasoner.ask(images, "what?", GenerationConfig(max_tokens=BUDGET), resolution=128)
        late: dict[str, list[float]] = {}

        def lateness(name: str, run: Callable[[], Any]) -> Any:
            before = loop.lateness_histogram()
            result = run()
            late.setdefault(name, []).append(lateness_us(loop.lateness_histogram() - before, 0.99))
            return result

        def rest() -> None:
            time.sleep(duration / 2)

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

        for _ in range(3):
            lateness("quiet", rest)
        alone = lateness("chunks", chunks)
        _, text_alone = lateness("text", lambda: talk(lambda: time.sleep(duration)))
        both, text_beside = lateness("both", lambda: talk(chunks))
        for _ in range(3):
            lateness("quiet", rest)
        counters, slice_s = queue.counters(), queue.slice_s
    alone_s, both_s = (statistics.median(total for total, _ in runs) for runs in (alone, both))
    quiet = late["quiet"]
    spread = max(quiet) - min(quiet)
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
        "is_loop_unchanged": late["both"][0] <= max(quiet) + spread,
    }


@contextmanager
def _loop() -> Iterator[_core.ControlLoop]:
    """A 200 Hz loop of six joints without wires."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loopback.toml"
        path.write_text(loopback_toml(6), encoding="utf-8")
        robot = _core.make_robot(load_embodiment(path), [], BusConfig(kind="loopback", port="none").core())
    robot.connect()
    loop = _core.ControlLoop(robot, rate_hz=200.0)
    loop.start()
    try:
        yield loop
    finally:
        loop.stop()
        robot.disconnect()


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
    policy = a_policy(checkpoint)
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


def run_for(duration: float, folder: Path, reason_every: float = 0.5) -> dict[str, Any]:
    """A session on an emulated arm in real time, reasoning all the while: memory, frames and threads.

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
        stack.enter_context(SimProcess("so101", link=folder / "port"))
        config = demo.prepare(folder, folder / "port")
        policy = Policy.load(config.checkpoint, config.policy)
        cameras = stack.enter_context(config.open_cameras())
        robot = stack.enter_context(Robot.connect(config))
        session = Session(
            policy,
            robot,
            cameras,
            "follow the block",
            config=SessionConfig(reason="full", reason_every=reason_every, max_tokens=32),
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


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
