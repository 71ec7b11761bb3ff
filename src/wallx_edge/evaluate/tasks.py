"""Tasks: scenes drawn from a seed, what is to be done in them, and when it is done."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from wallx_edge.errors import ConfigError
from wallx_edge.sim.world import BIN_HEIGHT, CAMERAS, PLATE_HEIGHT, Thing, World, WorldSpec

__all__ = ["COLOURS", "TASKS", "VARIANTS", "Goal", "Progress", "Scene", "make_scene"]

COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.82, 0.20, 0.18),
    "green": (0.25, 0.62, 0.30),
    "blue": (0.20, 0.38, 0.78),
    "yellow": (0.93, 0.75, 0.20),
    "violet": (0.55, 0.33, 0.66),
}
GREY = (0.42, 0.43, 0.46)
READY = {"shoulder_lift": -1.2, "elbow_flex": 1.2, "wrist_flex": 0.4, "gripper": -0.5}

# where things may stand: 20 x 25 cm [m]
AREA = ((0.14, 0.34), (-0.125, 0.125))
TURNTABLE = 0.039  # where the arm turns, on the x axis [m]
STEEP = 0.25  # so far from there the tool can stand upright on the table: flat things lie within [m]
CUBE = 0.0125  # half edge [m]
PLATE = 0.045  # radius [m]
REACHED = 0.02  # between tool and thing [m]
REACHED_FOR = 0.5  # [s]
PLACED = 0.03  # from the middle of where it belongs [m]
AT_REST = 0.002  # a thing that moved less in the last REST_FOR rests [m]
REST_FOR = 0.4  # [s]
LIFTED = 0.02  # above where it stood [m]
LET_GO = 0.04  # between tool and the thing's middle, at least: a gripper that holds it is nearer [m]

VARIANTS = ("train", "combination", "area", "distractors", "phrasing", "camera")


@dataclass(frozen=True)
class Goal:
    """One thing that is to be true.

    Attributes:
        kind: ``reach``: the tool is at the thing for a while; ``place``: the thing rests where it
            belongs, and the gripper has left it.
        thing: its name.
        target: plate or bin that it belongs on, or in; empty: ``at``.
        at: where else it belongs [m].
        tolerance: from there, in the plane [m].
        text: the subtask, in words.
    """

    kind: str
    thing: str
    target: str = ""
    at: tuple[float, float] | None = None
    tolerance: float = PLACED
    text: str = ""


@dataclass(frozen=True)
class Scene:
    """One episode's beginning.

    Attributes:
        task: its name.
        variant: of :data:`VARIANTS`.
        world: what stands where.
        instruction: what the operator says.
        goals: in the order in which they are best done.
        time_limit: of the episode [s].
    """

    task: str
    variant: str
    world: WorldSpec
    instruction: str
    goals: tuple[Goal, ...]
    time_limit: float


class Progress:
    """Watches a world for its scene's goals; call it every 50 ms or so."""

    def __init__(self, scene: Scene, world: World) -> None:
        """Nothing is done yet."""
        self._scene = scene
        self._world = world
        self._since: dict[int, float] = {}  # goal -> since when the tool is there [s]
        self._seen: dict[str, list[tuple[float, np.ndarray]]] = {}
        self._is_lifted: set[int] = set()
        self._is_done = [False] * len(scene.goals)

    def see(self, now: float) -> None:
        """Looks at the world.

        Args:
            now: the world's time [s].
        """
        for index, goal in enumerate(self._scene.goals):
            position, _ = self._world.pose(goal.thing)
            if goal.kind == "reach":
                if np.linalg.norm(position - self._world.tool) > REACHED:
                    self._since.pop(index, None)
                elif now - self._since.setdefault(index, now) >= REACHED_FOR:
                    self._is_done[index] = True  # and stays so
                continue
            seen = self._seen.setdefault(goal.thing, [])
            seen.append((now, position))
            while now - seen[0][0] > REST_FOR + 1e-9:
                seen.pop(0)
            half = next(t.half_height for t in self._scene.world.things if t.name == goal.thing)
            if position[2] > half + LIFTED:
                self._is_lifted.add(index)
            is_at_rest = now - seen[0][0] > 0.8 * REST_FOR and all(
                np.linalg.norm(position - before) < AT_REST for _, before in seen
            )
            is_let_go = np.linalg.norm(position - self._world.tool) > LET_GO
            self._is_done[index] = bool(is_at_rest and is_let_go and self._is_there(goal, position, half))

    def _is_there(self, goal: Goal, position: np.ndarray, half: float) -> bool:
        spot = self.spot(goal)
        target = next((t for t in self._scene.world.things if t.name == goal.target), None)
        if target is not None and target.shape == "bin":  # within its walls, however it lies there
            _, yaw = self._world.pose(goal.target)
            turn = np.array([[math.cos(yaw), math.sin(yaw)], [-math.sin(yaw), math.cos(yaw)]])
            within = np.abs(turn @ (position[:2] - spot)) < np.array(target.size[:2])
            return bool(within.all() and position[2] < BIN_HEIGHT + half)
        if np.hypot(*(position[:2] - spot)) > goal.tolerance:
            return False
        # on the table, a plate or a bin's floor, not held above it
        return bool(position[2] < half + PLATE_HEIGHT + 0.008)

    def spot(self, goal: Goal) -> np.ndarray:
        """Where a goal's thing belongs [m]   (2)"""
        if goal.target:
            return self._world.pose(goal.target)[0][:2]
        assert goal.at is not None
        return np.array(goal.at)

    @property
    def done(self) -> tuple[bool, ...]:
        """Of each goal."""
        return tuple(self._is_done)

    @property
    def is_success(self) -> bool:
        """Whether every goal is reached."""
        return all(self._is_done)

    @property
    def share(self) -> float:
        """0..1: half of a goal for a thing that was lifted, all of it for one that is where it belongs."""
        each = [1.0 if done else 0.5 * (i in self._is_lifted) for i, done in enumerate(self._is_done)]
        return sum(each) / len(each)


class _NoRoom(Exception):
    """What was put down first left no room: the scene is drawn again."""


class _Draw:
    """A scene's dice."""

    def __init__(self, random: np.random.Generator, variant: str) -> None:
        self.random = random
        self.variant = variant
        self.taken: list[tuple[float, float, float]] = []  # x, y, radius [m]

    def spot(
        self, radius: float, is_held_out: bool | None = False, margin: float = 0.02, reach: float = math.inf
    ) -> tuple[float, float]:
        """A free place for something of this radius; what is to be moved stands in the part that the variant says.

        Args:
            radius: [m]
            is_held_out: in the corner that training never shows; ``None``: anywhere.
            margin: to everything else [m].
            reach: from the arm's turntable at most [m].
        """
        (x_min, x_max), (y_min, y_max) = AREA
        for _ in range(200):
            x, y = self.random.uniform(x_min, x_max), self.random.uniform(y_min, y_max)
            in_corner = x > 0.26 and y > 0.02  # the part of the table that training never shows
            if is_held_out is not None and in_corner != is_held_out:
                continue
            if math.hypot(x - TURNTABLE, y) > reach:
                continue
            if all(math.hypot(x - a, y - b) >= radius + r + margin for a, b, r in self.taken):
                self.taken.append((x, y, radius))
                return (float(x), float(y))
        raise _NoRoom

    def thing_spot(self, radius: float) -> tuple[float, float]:
        return self.spot(radius, self.variant == "area")

    def colours(self, number: int) -> list[str]:
        return [str(c) for c in self.random.permutation(list(COLOURS))[:number]]

    def shape(self, colour: str) -> str:
        """Cube or cylinder; some combinations with a colour are never seen in training."""
        order = list(COLOURS)
        unseen = "cube" if order.index(colour) % 2 else "cylinder"
        if self.variant == "combination":
            return unseen
        return "cylinder" if unseen == "cube" else "cube"

    def phrase(self, seen: tuple[str, ...], unseen: tuple[str, ...]) -> str:
        choice = unseen if self.variant == "phrasing" else seen
        return choice[int(self.random.integers(len(choice)))]

    def yaw(self) -> float:
        return float(self.random.uniform(-math.pi, math.pi))

    def block(self, colour: str, position: tuple[float, float] | None = None) -> Thing:
        kind = self.shape(colour)
        name = f"{colour} {kind}"
        place = position or self.thing_spot(1.5 * CUBE)
        if kind == "cube":
            return Thing(name, "box", (CUBE, CUBE, CUBE), COLOURS[colour], place, self.yaw())
        return Thing(name, "cylinder", (CUBE, CUBE), COLOURS[colour], place, self.yaw())


def _reach(draw: _Draw) -> tuple[list[Thing], str, list[Goal], float]:
    blocks = [draw.block(colour) for colour in draw.colours(3)]
    name = blocks[0].name
    said = draw.phrase(("reach the {}", "move to the {}", "touch the {}"), ("go to the {}", "put the hand at the {}"))
    return blocks, said.format(name), [Goal("reach", name, text=f"reach the {name}")], 8.0


def _pick_place(draw: _Draw) -> tuple[list[Thing], str, list[Goal], float]:
    colours = draw.colours(2)
    plate = Thing("plate", "plate", (PLATE,), GREY, draw.spot(PLATE, None))
    blocks = [draw.block(colour) for colour in colours]
    name = blocks[0].name
    said = draw.phrase(
        ("put the {} on the plate", "place the {} on the plate"),
        ("move the {} to the plate", "the {} goes on the plate"),
    )
    text = f"put the {name} on the plate"
    return [plate, *blocks], said.format(name), [Goal("place", name, "plate", text=text)], 16.0


def _place_by_colour(draw: _Draw) -> tuple[list[Thing], str, list[Goal], float]:
    colours = draw.colours(2)
    plates = [Thing(f"{c} plate", "plate", (PLATE,), COLOURS[c], draw.spot(PLATE, None)) for c in colours]
    block = draw.block(colours[0])
    said = draw.phrase(
        ("put the block on the plate of the same color", "place the block on the plate that has its color"),
        ("move the block to the plate that matches it", "the block goes on the plate of its own color"),
    )
    text = f"put the {block.name} on the {colours[0]} plate"
    return [*plates, block], said, [Goal("place", block.name, f"{colours[0]} plate", text=text)], 16.0


def _collect_waste(draw: _Draw) -> tuple[list[Thing], str, list[Goal], float]:
    side = 1 if draw.random.random() < 0.5 else -1
    spot = (0.20, side * 0.16)
    bin_ = Thing("bin", "bin", (0.05, 0.05), GREY, spot)
    draw.taken.append((*spot, 0.075))
    blocks = [draw.block(colour) for colour in draw.colours(3)]
    said = draw.phrase(
        ("collect the waste into the bin", "put everything into the bin"),
        ("move all the waste into the bin", "everything goes into the bin"),
    )
    goals = [Goal("place", block.name, "bin", text=f"put the {block.name} into the bin") for block in blocks]
    return [bin_, *blocks], said, goals, 45.0


def _set_table(draw: _Draw) -> tuple[list[Thing], str, list[Goal], float]:
    middle = (0.22, 0.0)
    plate = Thing("plate", "plate", (PLATE,), (0.92, 0.92, 0.94), middle)
    draw.taken.append((*middle, PLATE))
    colour = draw.colours(1)[0]
    wanted = {  # where each belongs
        "fork": (middle[0], middle[1] + 0.075),
        "knife": (middle[0], middle[1] - 0.075),
        "cup": (middle[0] + 0.085, middle[1] - 0.045),
        f"{colour} block": middle,
    }
    for x, y in wanted.values():
        draw.taken.append((x, y, 0.02))
    metal = (0.66, 0.68, 0.72)
    things = [
        plate,
        Thing("fork", "bar", (0.028, 0.007, 0.010), metal, draw.spot(0.03, None, reach=STEEP), draw.yaw()),
        Thing(
            "knife", "bar", (0.028, 0.007, 0.010), (0.36, 0.38, 0.42), draw.spot(0.03, None, reach=STEEP), draw.yaw()
        ),
        Thing("cup", "cup", (0.016, 0.022), COLOURS[draw.colours(1)[0]], draw.spot(0.02, None), 0.0),
        Thing(f"{colour} block", "box", (CUBE, CUBE, CUBE), COLOURS[colour], draw.thing_spot(0.02), draw.yaw()),
    ]
    texts = {
        "fork": "put the fork on the left of the plate",
        "knife": "put the knife on the right of the plate",
        "cup": "put the cup behind the plate",
        f"{colour} block": f"put the {colour} block on the plate",
    }
    goals = [Goal("place", name, at=spot, text=texts[name]) for name, spot in wanted.items()]
    said = draw.phrase(("set the table", "set the table for one"), ("put the table in order", "the table is to be set"))
    return things, said, goals, 60.0


TASKS: Mapping[str, Callable[[_Draw], tuple[list[Thing], str, list[Goal], float]]] = {
    "reach": _reach,
    "pick_place": _pick_place,
    "place_by_colour": _place_by_colour,
    "collect_waste": _collect_waste,
    "set_table": _set_table,
}


def make_scene(task: str, seed: int, variant: str = "train") -> Scene:
    """Draws one.

    Args:
        task: of :data:`TASKS`.
        seed: equal seeds give equal scenes.
        variant: ``train``, or what training never shows: ``combination`` of colour and shape, ``area`` of the table,
            ``distractors``, ``phrasing``, ``camera`` that was moved.

    Raises:
        ConfigError: an unknown task or variant, a seed below 0.
    """
    if task not in TASKS:
        raise ConfigError(f"no task {task!r}; there are {', '.join(TASKS)}")
    if variant not in VARIANTS:
        raise ConfigError(f"no variant {variant!r}; there are {', '.join(VARIANTS)}")
    if seed < 0:
        raise ConfigError(f"seed is {seed}, expected 0 or more")
    for attempt in range(1000):
        draw = _Draw(np.random.default_rng([seed, list(TASKS).index(task), attempt]), variant)
        try:
            things, instruction, goals, limit = TASKS[task](draw)
            if variant == "distractors":
                left = [c for c in COLOURS if not any(c in thing.name for thing in things)][:2]
                size = (0.010, 0.010, 0.016)
                things += [
                    Thing(f"{c} brick", "box", size, COLOURS[c], draw.spot(0.02, None), draw.yaw()) for c in left
                ]
        except _NoRoom:
            continue
        break
    else:
        raise AssertionError("a scene of this task has no room on the table")
    cameras = CAMERAS
    if variant == "camera":
        x, y, z = (float(v) for v in np.array(cameras[0].position) + draw.random.uniform(-0.05, 0.05, 3))
        cameras = (replace(cameras[0], position=(x, y, z)), *cameras[1:])
    world = WorldSpec(tuple(things), cameras, READY)
    return Scene(task, variant, world, instruction, tuple(goals), limit)
