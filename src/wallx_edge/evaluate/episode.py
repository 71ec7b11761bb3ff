"""Episode: one scene, one policy, one session in lock-step; the same seed gives the same bits."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge.cameras import Camera, Frame
from wallx_edge.embodiment import load_embodiment
from wallx_edge.errors import SafetyStop
from wallx_edge.evaluate.expert import BlindExpert, Expert
from wallx_edge.evaluate.tasks import Progress, Scene
from wallx_edge.session import Session, SessionConfig, SessionStatus
from wallx_edge.session.lockstep import StepPace, SteppedRobot
from wallx_edge.sim.so101 import SO101
from wallx_edge.sim.world import World

__all__ = ["Episode", "Look", "Outcome", "run_episode"]

POLICY_DELAY = 0.1  # that an inference takes, of simulated time [s]


@dataclass(frozen=True)
class Outcome:
    """What came of an episode.

    Attributes:
        task: its name.
        variant: of the scene.
        seed: of the scene.
        is_success: whether every goal was reached.
        progress: 0..1.
        time: until success, or the time limit [s].
        chunks: handed to the loop.
        refused: chunks that must not reach the robot.
        holds: of the loop.
        limited: ticks in which the limiter had any reason.
        ticks: of the loop.
        jerk: root mean square over joints and ticks of the commands' third difference [rad/s^3].
        seam: largest step between neighbouring rows at a boundary of two chunks, beyond the largest inside [rad].
        error: why it ended early; empty: it did not.
        commands: checksum of every command's bits: equal for equal runs.
    """

    task: str
    variant: str
    seed: int
    is_success: bool
    progress: float
    time: float
    chunks: int
    refused: int
    holds: int
    limited: int
    ticks: int
    jerk: float
    seam: float
    error: str
    commands: int

    def as_json(self) -> dict[str, Any]:
        """All of it, in JSON's types."""
        return asdict(self)


@dataclass
class Episode:
    """What an onlooker of a running episode sees.

    Attributes:
        scene: it began with.
        world: as it is.
        robot: the arm.
        policy: what acts.
        session: that runs it.
        progress: so far.
    """

    scene: Scene
    world: World
    robot: SteppedRobot
    policy: Any
    session: Session
    progress: Progress


class _Black(Camera):
    """A camera with its lid on."""

    def __init__(self, camera: Camera) -> None:
        self.name = camera.name
        self._camera = camera

    def read(self) -> Frame:
        frame = self._camera.read()
        return frame._replace(image=np.zeros_like(frame.image))

    def close(self) -> None:
        self._camera.close()


Look = Callable[[Episode, float], None]
MakePolicy = Callable[[Scene, World, Progress], Any]


def run_episode(
    scene: Scene,
    seed: int,
    policy: str | MakePolicy = "expert",
    config: SessionConfig | None = None,
    look: Look | None = None,
    is_blanked: bool = False,
) -> Outcome:
    """Runs one to its end. Blocks.

    Args:
        scene: of :func:`make_scene`.
        seed: of the scene, for the outcome.
        policy: ``expert``, ``blind``, or what makes one of scene, world and progress.
        config: of the session.
        look: called every 50 ms of simulated time, with that time [s].
        is_blanked: whether its pictures are black: what it does without them it knows by heart.

    Raises:
        ConfigError: the policy does not fit the arm.
    """
    world = SO101.make_world(scene.world)
    progress = Progress(scene, world)
    embodiment = load_embodiment("so101")
    if callable(policy):
        acting = policy(scene, world, progress)
    else:
        acting = {"expert": Expert, "blind": BlindExpert}[policy](scene, world, progress, embodiment)
    # the arm waits without torque while the loop connects; what it sags meanwhile is not the policy's
    robot = SteppedRobot(world=world, max_first_step=1.5)
    with robot:
        cameras = robot.cameras()
        pace = StepPace(robot, [POLICY_DELAY])
        session = Session(
            acting,
            robot,
            {role: _Black(camera) for role, camera in cameras.items()} if is_blanked else cameras,
            scene.instruction,
            config=config or SessionConfig(frozen_after=0),
            pace=pace,
        )
        episode = Episode(scene, world, robot, acting, session, progress)
        begin = robot.now
        ended_at = scene.time_limit
        parts: list[Any] = []

        def tick(status: SessionStatus) -> None:
            nonlocal ended_at
            parts.append(robot.loop.drain())
            now = robot.now - begin
            progress.see(now)
            if look is not None:
                look(episode, robot.now)
            if progress.is_success:
                ended_at = now
                session.stop()

        error = ""
        try:
            session.run(scene.time_limit, tick)
        except SafetyStop as stop:
            error = str(stop)
        parts.append(robot.loop.drain())
        status = session.status()
        chunks = session.chunks
    columns = {key: np.concatenate([part[key] for part in parts]) for key in ("has_command", "command", "is_exact")}
    sent = columns["has_command"].astype(bool)
    commands: NDArray[np.float64] = columns["command"][sent]
    third = np.diff(commands, 3, axis=0) / robot.loop.period_s**3 if len(commands) > 3 else np.zeros((1, 1))
    return Outcome(
        task=scene.task,
        variant=scene.variant,
        seed=seed,
        is_success=progress.is_success,
        progress=round(progress.share, 6),
        time=round(ended_at, 6),
        chunks=status.chunks,
        refused=status.refused,
        holds=status.holds,
        limited=int((~columns["is_exact"][sent].astype(bool)).sum()),
        ticks=int(sent.sum()),
        jerk=float(np.sqrt(np.mean(third**2))),
        seam=_seam(chunks),
        error=error,
        commands=zlib.crc32(commands.tobytes()),
    )


def _seam(chunks: list[Any]) -> float:
    """How much farther than inside the chunks the rows jump where one takes over from another [rad]."""
    worst = 0.0
    for before, after in pairwise(chunks):
        inside = float(np.abs(np.diff(before.rows, axis=0)).max(initial=0.0))
        at = round((after.start - before.start) / before.step)
        if not 0 <= at < len(before.rows):
            continue
        shared = min(len(before.rows) - at, len(after.rows))
        parted = np.flatnonzero(np.abs(before.rows[at : at + shared] - after.rows[:shared]).max(axis=1) > 0)
        if parted.size and parted[0] > 0:
            first = parted[0]
            worst = max(worst, float(np.abs(after.rows[first] - after.rows[first - 1]).max()) - inside)
    return max(0.0, worst)
