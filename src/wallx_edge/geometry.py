"""Geometry: rotations as matrices, angles and six numbers, and relative poses made absolute."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge.errors import ConfigError

__all__ = [
    "ROTATIONS",
    "compose_position",
    "compose_rotation",
    "euler_from_matrix",
    "matrix_from_euler",
    "matrix_from_rot6d",
    "rot6d_from_matrix",
]

# below this length a row has no direction left: rounding, not the model, would choose the rotation
_SHORTEST = 1e-6

Floats = NDArray[np.float64]


def matrix_from_euler(angles: NDArray[Any]) -> Floats:
    """Rotation matrices of roll, pitch and yaw: R = Rz(yaw) Ry(pitch) Rx(roll).

    Source: the reference's ``euler_to_matrix_zyx``. Golden cases: ``geom.rot6d``.

    Args:
        angles: roll, pitch, yaw [rad]   (..., 3)

    Returns:
        float64   (..., 3, 3)

    Raises:
        ConfigError: another shape, or values that are not finite.
    """
    roll, pitch, yaw = np.moveaxis(_values(angles, 3, "roll, pitch, yaw"), -1, 0)
    cr, sr, cp, sp, cy, sy = np.cos(roll), np.sin(roll), np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    rows = (
        (cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr),
        (sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr),
        (-sp, cp * sr, cp * cr),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def euler_from_matrix(matrices: NDArray[Any]) -> Floats:
    """Roll, pitch and yaw of rotation matrices, the inverse of :func:`matrix_from_euler`.

    Roll and yaw are in (-pi, pi], pitch is in [-pi/2, pi/2]. At a pitch of +-pi/2 roll and yaw turn about one axis:
    any two with the same matrix may come out. Source: the reference's ``so3_to_euler_zyx``.
    Golden cases: ``geom.euler_back``.

    Args:
        matrices: rotations   (..., 3, 3)

    Returns:
        roll, pitch, yaw [rad], float64   (..., 3)

    Raises:
        ConfigError: another shape, or values that are not finite.
    """
    r = _matrices(matrices)
    roll = np.arctan2(r[..., 2, 1], r[..., 2, 2])
    pitch = np.arcsin(np.clip(-r[..., 2, 0], -1.0, 1.0))
    yaw = np.arctan2(r[..., 1, 0], r[..., 0, 0])
    angles = np.stack([roll, pitch, yaw], axis=-1)
    return np.where(angles <= -np.pi, np.pi, angles)


def rot6d_from_matrix(matrices: NDArray[Any]) -> Floats:
    """Six numbers of rotation matrices: their first two rows (rows, not columns) one behind the other.

    Args:
        matrices: rotations   (..., 3, 3)

    Returns:
        float64   (..., 6)

    Raises:
        ConfigError: another shape, or values that are not finite.
    """
    r = _matrices(matrices)
    return r[..., :2, :].reshape(*r.shape[:-2], 6)


def matrix_from_rot6d(rows: NDArray[Any]) -> Floats:
    """Rotation matrices of six numbers each, made orthogonal by Gram-Schmidt.

    The first row keeps its direction, the second what stands at right angles to it, the third is their cross product.
    Source: the reference's ``so3_to_matrix``; it adds 1e-12 to a length before dividing by it, so that rows without
    direction become zeros there. Here they are refused, and nothing is added.

    Args:
        rows: the first two rows, as a model says them   (..., 6)

    Returns:
        float64   (..., 3, 3)

    Raises:
        ConfigError: another shape, values that are not finite, or rows that are zero or parallel: no rotation follows
            from them.
    """
    values = _values(rows, 6, "rot6D")
    first, second = values[..., :3], values[..., 3:]
    first = _unit(first, "first row", values)
    second = second - np.sum(first * second, axis=-1, keepdims=True) * first
    second = _unit(second, "second row, without its part along the first,", values)
    return np.stack([first, second, np.cross(first, second)], axis=-2)


def compose_position(relative: NDArray[Any], state: NDArray[Any]) -> Floats:
    """Absolute positions of positions relative to a state, in the frame of the robot's base: their sum.

    Args:
        relative: [m]   (..., 3)
        state: position at which the robot was observed [m]   (3,)

    Returns:
        [m], float64   (..., 3)

    Raises:
        ConfigError: another shape, or values that are not finite.
    """
    return _values(relative, 3, "relative position") + _values(state, 3, "position of the state")


def compose_rotation(relative: NDArray[Any], state: NDArray[Any]) -> Floats:
    """Absolute rotations of rotations relative to a state: R_absolute = R_relative R_state.

    Both turn about the axes of the robot's base. Source: the reference's ``compose_state_and_delta_to_abs``.
    Golden cases: ``geom.compose_abs6d``, ``geom.compose_abs_rpy``.

    Args:
        relative: rotations   (..., 3, 3)
        state: rotation at which the robot was observed   (3, 3)

    Returns:
        float64   (..., 3, 3)

    Raises:
        ConfigError: another shape, or values that are not finite.
    """
    return np.asarray(_matrices(relative) @ _matrices(state), np.float64)


def _unit(vectors: Floats, what: str, values: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    bad = np.argwhere(length[..., 0] < _SHORTEST)
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        raise ConfigError(
            f"rot6D at {list(index)} is {np.array2string(values[index], precision=3)}: its {what} has length "
            f"{length[index][0]:.1e}, expected {_SHORTEST:.0e} or more; no rotation follows from it"
        )
    return np.asarray(vectors / length, np.float64)


def _values(values: NDArray[Any], width: int, what: str) -> Floats:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu" or array.ndim == 0 or array.shape[-1] != width:
        raise ConfigError(f"{what}: got {array.dtype} of shape {array.shape}, expected numbers of shape (..., {width})")
    return _finite(array, what)


def _matrices(values: NDArray[Any]) -> Floats:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu" or array.shape[-2:] != (3, 3):
        raise ConfigError(f"rotation: got {array.dtype} of shape {array.shape}, expected numbers of shape (..., 3, 3)")
    return _finite(array, "rotation")


def _finite(array: NDArray[Any], what: str) -> Floats:
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        raise ConfigError(f"{what}: got {array[index]} at {list(index)}, expected finite numbers")
    return array.astype(np.float64)


# ending of a slot -> columns, to a matrix, from a matrix
ROTATIONS: dict[str, tuple[int, Callable[[Floats], Floats], Callable[[Floats], Floats]]] = {
    "_ee_rotation": (3, matrix_from_euler, euler_from_matrix),
    "_ee_rotation_6D": (6, matrix_from_rot6d, rot6d_from_matrix),
}
