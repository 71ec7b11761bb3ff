"""Expert: a scripted policy that knows where everything is; what a trained one is measured against and learns from."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.errors import ConfigError
from wallx_edge.evaluate.tasks import AREA, Goal, Progress, Scene
from wallx_edge.policy import Follow
from wallx_edge.sim.world import BIN_HEIGHT, World
from wallx_edge.types import ActionChunk, DofLayout, Observation

__all__ = ["Expert", "Reach", "reach_of"]

Floats = NDArray[np.float64]
HORIZON, STEP = 32, 0.04  # rows, [s]
SPEED = 1.3  # of the joint that has the longest way [rad/s]
PEAK = 1.9  # of a way's speed, against its mean: 15/8 of minimum jerk, rounded up
SHORTEST = 0.25  # of a way [s]
OPEN, CLOSED = -0.2, -0.95  # of the gripper's joint [rad]
FINGER_DIP = 0.045  # how far the open finger is from the tool's middle [m]
CLEARANCE = 0.004  # between the fixed finger and the thing [m]
ABOVE = 0.065  # over a thing before and after it is gripped [m]
CARRY = 0.085  # height of the tool on the way [m]
WARM_UP = 0.5  # a second first chunk within this begins anew: the one before was the session's warm-up [s]
PATIENCE = 0.8  # after the last way, before what is missing is tried again [s]


@dataclass(frozen=True)
class Reach:
    """The SO-101's links as a plane arm on a turntable.

    Attributes:
        base: axis of the turntable, and height of the shoulder [m]   (x, y, z)
        shoulder: from that axis outward [m]
        links: length of upper arm, forearm, wrist to tool [m], and the angle at which each stands in the zero pose,
            counted up from the horizontal [rad].
        low: limits of the joints [rad]   (5)
        high: [rad]   (5)
    """

    base: tuple[float, float, float]
    shoulder: float
    links: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    low: Floats
    high: Floats

    def joints(self, position: Sequence[float], pitch: float, roll: float = 0.0) -> Floats | None:
        """The pose with the tool at a point; ``None``: out of reach.

        Args:
            position: of the tool [m]   (3)
            pitch: of the tool below the horizontal [rad].
            roll: of the wrist [rad].

        Returns:
            shoulder_pan, shoulder_lift, elbow_flex, wrist_flex, wrist_roll [rad]   (5)
        """
        x, y = position[0] - self.base[0], position[1] - self.base[1]
        (upper, at_upper), (fore, at_fore), (hand, at_hand) = self.links
        out = math.hypot(x, y) - self.shoulder - hand * math.cos(pitch)
        up = position[2] - self.base[2] + hand * math.sin(pitch)
        distance = math.hypot(out, up)
        if not abs(upper - fore) < distance < upper + fore:
            return None
        at_shoulder = math.acos((upper**2 + distance**2 - fore**2) / (2 * upper * distance))
        first = math.atan2(up, out) + at_shoulder  # the elbow is above
        second = math.atan2(up - upper * math.sin(first), out - upper * math.cos(first))
        lift = at_upper - first
        elbow = at_fore - second - lift
        wrist = pitch + at_hand - lift - elbow
        found = np.array([-math.atan2(y, x), lift, elbow, wrist, roll])
        return found if bool(((found >= self.low) & (found <= self.high)).all()) else None

    def over(self, position: Sequence[float], roll: float = 0.0) -> Floats | None:
        """As :meth:`joints`, with the tool as steep as can be; higher where an open finger would dip below it.

        Args:
            position: of the tool [m]   (3)
            roll: of the wrist [rad].
        """
        for pitch in np.radians(np.arange(90, 39, -2.5)):
            dip = FINGER_DIP * abs(math.sin(roll)) * math.cos(float(pitch))
            found = self.joints((position[0], position[1], position[2] + dip), float(pitch), roll)
            if found is not None:
                return found
        return None


def reach_of(world: World, embodiment: _core.Embodiment) -> Reach:
    """An SO-101's links, as its world has them.

    Raises:
        ConfigError: another arm.
    """
    if embodiment.name != "so101":
        raise ConfigError(f"the scripted expert knows the so101's geometry, not {embodiment.name}'s")
    model = world.model
    shoulder, upper, fore, wrist, hand = (
        model.body(name).pos for name in ("shoulder", "upper_arm", "forearm", "wrist", "gripper")
    )
    tool = model.site("tool").pos

    def link(x: float, z: float) -> tuple[float, float]:
        return math.hypot(x, z), math.atan2(z, x)

    limits = [joint.limits for joint in embodiment.joints[:5]]
    return Reach(
        base=(float(shoulder[0]), float(shoulder[1]), float(shoulder[2] + upper[2])),
        shoulder=float(upper[0]),
        links=(link(fore[0], fore[2]), link(wrist[0], wrist[2]), link(hand[0] + tool[0], hand[2] + tool[2])),
        low=np.array([limit.min_position + 0.02 for limit in limits]),
        high=np.array([limit.max_position - 0.02 for limit in limits]),
    )


@dataclass(frozen=True)
class _Settings:
    cameras: tuple[str, ...]
    horizon: int = HORIZON
    step: float = STEP


@dataclass(frozen=True)
class _Way:
    """A straight way in joint space, with soft ends."""

    begin: float
    duration: float
    start: Floats
    end: Floats
    text: str

    def at(self, time: float) -> Floats:
        share = min(max((time - self.begin) / self.duration, 0.0), 1.0)
        # minimum jerk: 10 s^3 - 15 s^4 + 6 s^5 (Flash and Hogan 1985)
        soft = share**3 * (10 - 15 * share + 6 * share**2)
        return self.start + soft * (self.end - self.start)


class Expert:
    """Acts as a policy, by the world's truth instead of pictures.

    It lays ways through the joints from one stage to the next, each from what it knows when the stage begins, and
    begins again with what is not where it belongs. It sees where things are, not whether a grip holds.
    """

    def __init__(self, scene: Scene, world: World, progress: Progress, embodiment: _core.Embodiment) -> None:
        """Knows the scene.

        Args:
            scene: what is to be done.
            world: whose truth it reads.
            progress: what is done already.
            embodiment: of the arm.
        """
        self.config = _Settings(tuple(camera.role for camera in scene.world.cameras))
        names = [joint.name for joint in embodiment.joints]
        self.action_layout = self.state_layout = DofLayout.from_config(dict.fromkeys(names, 1))
        self.statistics = self.statistics_source = "none: a scripted expert"
        self.queue: _core.InferenceQueue | None = None
        self.context: Any = None
        self._scene = scene
        self._world = world
        self._progress = progress
        self._reach = reach_of(world, embodiment)
        self._ways: list[_Way] = []
        self._stages: Iterator[tuple[Floats, float, str]] | None = None
        self._began_at = -math.inf

    @property
    def is_blind(self) -> bool:
        """Whether it guesses instead of knowing."""
        return False

    def place_of(self, goal: Goal) -> tuple[Floats, float, Floats]:
        """Where it believes a goal's thing to be [m] (3,), its turn [rad], and where it belongs [m] (2,)."""
        position, yaw = self._world.pose(goal.thing)
        return position, yaw, position[:2] if goal.kind == "reach" else self._progress.spot(goal)

    def subtask(self, time: float) -> str:
        """What it does at a time [s], in words."""
        for way in reversed(self._ways):
            if way.begin <= time:
                return way.text
        return self._scene.goals[0].text

    def act(
        self,
        observation: Observation,
        noise: NDArray[np.float32] | None = None,
        *,
        follow: Follow | None = None,
        deadline: float | None = None,
    ) -> ActionChunk:
        """One chunk, as :meth:`wallx_edge.policy.Policy.act`; the noise is not used."""
        begin = observation.captured_at
        if follow is None and begin - self._began_at < WARM_UP:
            self._ways, self._stages = [], None
        if not self._ways:
            self._began_at = begin
            self._ways.append(_Way(begin, SHORTEST, observation.state, observation.state, self._scene.goals[0].text))
        times = begin + STEP * np.arange(HORIZON)
        while self._ways[-1].begin + self._ways[-1].duration < times[-1]:
            self._go_on()
        self._ways = [way for way in self._ways if way.begin + way.duration > begin - 2.0] or self._ways[-1:]
        rows = np.stack([self._pose(float(time)) for time in times])
        if follow is not None:
            rows[: follow.num_frozen] = follow.rows[: follow.num_frozen]
        return ActionChunk(rows, STEP, begin, self.action_layout)

    def cancel(self) -> None:
        """It computes at once."""

    def _pose(self, time: float) -> Floats:
        way = next((way for way in reversed(self._ways) if way.begin <= time), self._ways[0])
        return way.at(time)

    def _go_on(self) -> None:
        """One more way behind the last."""
        last = self._ways[-1]
        begin = last.begin + last.duration
        if self._stages is None:
            self._stages = self._plan()
        try:
            end, least, text = next(self._stages)
        except StopIteration:
            self._stages = None
            end, least, text = last.end, PATIENCE, last.text
        duration = max(least, PEAK * float(np.abs(end - last.end)[:5].max()) / SPEED, SHORTEST)
        self._ways.append(_Way(begin, duration, last.end, end, text))

    def _plan(self) -> Iterator[tuple[Floats, float, str]]:
        """Poses, the least time to each, and its words; goes through what is not done yet."""
        for goal, is_done in zip(self._scene.goals, self._progress.done, strict=True):
            if is_done and not self.is_blind:
                continue
            yield from self._reach_for(goal) if goal.kind == "reach" else self._bring(goal)

    def _reach_for(self, goal: Goal) -> Iterator[tuple[Floats, float, str]]:
        position, _, _ = self.place_of(goal)
        for height in (0.05, 0.012):
            pose = self._reach.over((position[0], position[1], position[2] + height))
            if pose is not None:
                yield np.append(pose, CLOSED), 0.0, goal.text
        yield from self._stay(0.7, goal.text)

    def _bring(self, goal: Goal) -> Iterator[tuple[Floats, float, str]]:
        position, yaw, spot = self.place_of(goal)
        thing = next(thing for thing in self._scene.world.things if thing.name == goal.thing)
        # bars are gripped across, cubes at the face that needs the least turn, round things as they come
        fold = {"bar": math.pi, "box": math.pi / 2}.get(thing.shape, 0.0)
        half = thing.size[1] if thing.shape == "bar" else thing.size[0]
        grip_z = max(thing.half_height * (1.15 if thing.shape == "cup" else 1.0), 0.0155)

        def pose(at: Floats, height: float, turn: float | None) -> Floats | None:
            heading = math.atan2(at[1] - self._reach.base[1], at[0] - self._reach.base[0])
            roll = 0.0
            if turn is not None and fold:
                roll = math.remainder(heading - turn, fold)
            # the pads' middle comes over the thing with the fixed finger a little off
            finger = heading + math.pi / 2 - roll
            off = 0.013 - half - CLEARANCE
            x, y = at[0] + off * math.cos(finger), at[1] + off * math.sin(finger)
            return self._reach.over((x, y, height), roll)

        def stages(at: Floats, turn: float | None, heights: Sequence[float], grip: float) -> Iterator[Floats]:
            for height in heights:
                found = pose(at, height, turn)
                if found is not None:
                    yield np.append(found, grip)

        wide = OPEN + (0.2 if half > 0.015 else 0.0)
        text = f"pick up the {goal.thing}"
        for end in stages(position, yaw, (grip_z + ABOVE, grip_z), wide):
            yield end, 0.3, text
        last: Floats | None = None
        for end in stages(position, yaw, (grip_z,), CLOSED):
            yield end, 0.45, text
            last = end
        for end in stages(position, yaw, (CARRY,), CLOSED):
            yield end, 0.3, text
            last = end
        # set down as it was gripped
        into_bin = goal.target == "bin"
        drop = grip_z + (BIN_HEIGHT + 0.02 if into_bin else 0.006)
        if into_bin:  # side by side
            index = self._scene.goals.index(goal)
            spot = spot + 0.024 * np.array([math.cos(2.1 * index), math.sin(2.1 * index)])
        goes_to = np.array([*spot, 0.0])
        wanted = 0.0 if thing.shape == "bar" and goal.at is not None else None
        for end in stages(goes_to, wanted, (max(CARRY, drop + 0.03), drop), CLOSED):
            yield end, 0.3, goal.text
            last = end
        if last is None:
            yield from self._stay(PATIENCE, goal.text)
            return
        yield np.append(last[:5], wide), 0.4, goal.text
        for end in stages(goes_to, wanted, (CARRY + 0.02,), wide):
            yield end, 0.3, goal.text

    def _stay(self, seconds: float, text: str) -> Iterator[tuple[Floats, float, str]]:
        yield self._ways[-1].end, seconds, text


class BlindExpert(Expert):
    """The expert without eyes: it believes that everything lies where the middle of all scenes is."""

    @property
    def is_blind(self) -> bool:
        """It guesses."""
        return True

    def place_of(self, goal: Goal) -> tuple[Floats, float, Floats]:
        """The middle of the area, for the thing as for the place where it belongs; what never moves it knows."""
        (x_min, x_max), (y_min, y_max) = AREA
        middle = np.array([(x_min + x_max) / 2, (y_min + y_max) / 2])
        height = next(thing.half_height for thing in self._scene.world.things if thing.name == goal.thing)
        spot = middle if goal.at is None else np.array(goal.at)
        return np.array([*middle, height]), 0.0, spot
