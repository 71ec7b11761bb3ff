"""Vocabulary of the Python side: what was seen, what was decided, what the numbers of a vector mean."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wallx_edge.errors import CheckpointError, ConfigError

__all__ = ["ActionChunk", "DofLayout", "DofSlot", "Observation", "check_image"]

_Scalar = TypeVar("_Scalar", bound=np.generic)

# the published checkpoints name an arm's slots after who was recorded, the robot or its teacher;
# their grippers have no unit here: each robot recorded its own
_PUBLISHED_PREFIXES = ("follow_", "master_")
_PUBLISHED_UNITS: dict[str, tuple[str | None, ...]] = {
    "_ee_cartesian_pos": ("m", "m", "m"),
    "_ee_cartesian_pos_relative": ("m", "m", "m"),
    "_ee_rotation": ("rad", "rad", "rad"),
    "_ee_rotation_relative": ("rad", "rad", "rad"),
    "_ee_rotation_6D": ("1",) * 6,
    "_ee_rotation_6D_relative": ("1",) * 6,
    "_arm_joint_pos": ("rad",) * 7,
    "head_actions": ("rad", "rad"),
    "head_rotation": ("rad", "rad"),
    "height": ("m",),
    "car_pose": ("m", "m", "rad"),
    "velocity_decomposed": ("m/s", "m/s", "rad/s"),
    "action_padding": (),
}


@dataclass(frozen=True)
class DofSlot:
    """One named slice of a model vector.

    Attributes:
        name: the key in the checkpoint's ``dof_config``.
        start: first column.
        width: number of columns.
        units: one unit per column, ``None`` where it is not known.   (width,)
        is_joint: whether the slot is one joint of a robot, in [rad], named like the joint.
    """

    name: str
    start: int
    width: int
    units: tuple[str | None, ...]
    is_joint: bool

    @property
    def columns(self) -> slice:
        """The slot's columns, to index a vector or the last axis of rows."""
        return slice(self.start, self.start + self.width)


def _slot(name: str, start: int, width: int) -> DofSlot:
    is_published = name.startswith(_PUBLISHED_PREFIXES)
    units: tuple[str | None, ...] = (None,) * width
    for ending, known in _PUBLISHED_UNITS.items():
        if (is_published and ending.startswith("_") and name.endswith(ending)) or name == ending:
            is_published = True
            units = known if len(known) == width else units
    is_joint = width == 1 and not is_published
    return DofSlot(name, start, width, ("rad",) if is_joint else units, is_joint)


@dataclass(frozen=True)
class DofLayout:
    """The ordered, named slices of a model vector.

    The published slots (``follow_*``, ``master_*``, ``head_actions``, ``height``, ``car_pose``, ...) have the
    units of their meaning, where it is known. Any other slot of width 1 is one joint of a robot [rad] and has
    its name; who maps it to a robot refuses a name that the robot does not have. Any other wider slot has no
    known unit.

    Attributes:
        slots: in the vector's order, without gaps.
    """

    slots: tuple[DofSlot, ...]

    @classmethod
    def from_config(cls, dof_config: Mapping[str, int]) -> DofLayout:
        """Lays out a checkpoint's ``dof_config`` or ``agent_pos_config``, in the order it is written.

        Args:
            dof_config: slot name -> number of columns.

        Raises:
            CheckpointError: no slot, or a name or width that is none.
        """
        if not isinstance(dof_config, Mapping) or not dof_config:
            raise CheckpointError(
                f"dof_config is {dof_config!r}; expected slot names with their widths: see the checkpoint's config.json"
            )
        slots: list[DofSlot] = []
        start = 0
        for name, width in dof_config.items():
            if not isinstance(name, str) or not name:
                raise CheckpointError(f"dof_config has the slot name {name!r}; expected a word")
            if isinstance(width, bool) or not isinstance(width, int) or width < 1:
                raise CheckpointError(f"dof_config.{name} is {width!r}; expected a whole number of columns, 1 or more")
            slots.append(_slot(name, start, width))
            start += width
        return cls(tuple(slots))

    @property
    def names(self) -> tuple[str, ...]:
        """Slot names, in order."""
        return tuple(slot.name for slot in self.slots)

    @property
    def slices(self) -> dict[str, slice]:
        """Slot name -> its columns, in order."""
        return {slot.name: slot.columns for slot in self.slots}

    @property
    def width(self) -> int:
        """Number of columns of the vector."""
        return sum(slot.width for slot in self.slots)

    @property
    def units(self) -> tuple[str | None, ...]:
        """Unit of every column, ``None`` where it is not known.   (width,)"""
        return tuple(unit for slot in self.slots for unit in slot.units)

    @property
    def is_joint_space(self) -> bool:
        """Whether every slot is one joint in [rad]."""
        return all(slot.is_joint for slot in self.slots)

    def __iter__(self) -> Iterator[DofSlot]:
        """Over the slots, in order."""
        return iter(self.slots)


@dataclass(frozen=True, eq=False)
class Observation:
    """What was seen at one instant. Checked when made; its arrays cannot be written through it.

    Attributes:
        images: role -> RGB picture, uint8   (height, width, 3); the pixels are not copied.
        state: what the robot measured, in the order of the model's state layout, SI, float64   (n,)
        instruction: what the robot is to do.
        captured_at: when, CLOCK_MONOTONIC [s].

    Raises:
        ConfigError: a picture or state of the wrong type or shape, or a state or time that is not finite.
    """

    images: Mapping[str, NDArray[np.uint8]]
    state: NDArray[np.float64]
    instruction: str
    captured_at: float

    def __post_init__(self) -> None:
        if not isinstance(self.images, Mapping) or not self.images:
            raise ConfigError(f"observation images: got {_what(self.images)}, expected one picture per camera role")
        images: dict[str, NDArray[np.uint8]] = {}
        for role, image in self.images.items():
            if not isinstance(role, str) or not role:
                raise ConfigError(f"observation images: got the role {role!r}, expected a word such as 'face_view'")
            check_image(image, f"observation image {role!r}")
            images[role] = _read_only(image)
        object.__setattr__(self, "images", MappingProxyType(images))

        state = self.state
        if not isinstance(state, np.ndarray) or state.dtype != np.float64 or state.ndim != 1 or state.size == 0:
            raise ConfigError(f"observation state: got {_what(state)}, expected float64 of shape (n,)")
        _check_finite(state, "observation state", "check the robot's feedback")
        object.__setattr__(self, "state", _read_only(state.copy()))

        if not isinstance(self.instruction, str):
            raise ConfigError(f"observation instruction: got {_what(self.instruction)}, expected text")
        object.__setattr__(self, "captured_at", _seconds(self.captured_at, "observation captured_at"))


@dataclass(frozen=True, eq=False)
class ActionChunk:
    """The rows of one inference. Checked when made; its rows cannot be written.

    Attributes:
        rows: one row per step, DofLayout order, SI, float64   (horizon, dof)
        step: time between rows [s].
        observed_at: ``captured_at`` of the observation behind it, CLOCK_MONOTONIC [s].
        layout: what the columns mean; ``layout.width == dof``.
        outside: share of the model's own values that lay beyond +-1, the range of its statistics [0..1].

    Raises:
        ConfigError: rows of the wrong type, shape or width, or not finite, or a step that is not positive.
    """

    rows: NDArray[np.float64]
    step: float
    observed_at: float
    layout: DofLayout
    outside: float = 0.0

    def __post_init__(self) -> None:
        rows = self.rows
        if not isinstance(rows, np.ndarray) or rows.dtype != np.float64 or rows.ndim != 2 or rows.shape[0] == 0:
            raise ConfigError(f"action chunk rows: got {_what(rows)}, expected float64 of shape (horizon, dof)")
        if rows.shape[1] != self.layout.width:
            raise ConfigError(
                f"action chunk rows: got {rows.shape[1]} columns, expected {self.layout.width} as in "
                f"its layout ({', '.join(self.layout.names)})"
            )
        _check_finite(rows, "action chunk rows", "the chunk must not reach a robot; check checkpoint and normalizer")
        object.__setattr__(self, "rows", _read_only(rows.copy()))
        step = _seconds(self.step, "action chunk step")
        if step <= 0:
            raise ConfigError(f"action chunk step: got {step} s, expected more than 0 s")
        object.__setattr__(self, "step", step)
        object.__setattr__(self, "observed_at", _seconds(self.observed_at, "action chunk observed_at"))

    @property
    def horizon(self) -> int:
        """Number of rows."""
        return int(self.rows.shape[0])


def check_image(image: object, what: str) -> None:
    """Refuses what is not an RGB picture.

    Args:
        image: expected uint8   (height, width, 3)
        what: its name in the message.

    Raises:
        ConfigError: wrong type, shape or number of channels.
    """
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or image.size == 0
    ):
        raise ConfigError(f"{what}: got {_what(image)}, expected uint8 of shape (height, width, 3), RGB")


def _check_finite(array: NDArray[np.float64], what: str, advice: str) -> None:
    bad = np.argwhere(~np.isfinite(array))
    if bad.size:
        index = tuple(int(i) for i in bad[0])
        at = ", ".join(str(i) for i in index)
        raise ConfigError(f"{what}: got {array[index]} at [{at}], expected finite numbers; {advice}")


def _read_only(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    view: NDArray[_Scalar] = array.view()
    view.flags.writeable = False
    return view


def _seconds(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)) or not math.isfinite(value):
        raise ConfigError(f"{what}: got {value!r}, expected seconds, a finite number")
    return float(value)


def _what(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"{type(value).__name__} {value!r:.60}"
