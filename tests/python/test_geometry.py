"""Geometry equals the reference, keeps rotations rotations, and refuses what is none."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from golden import CASES, read_safetensors
from wallx_edge.errors import ConfigError
from wallx_edge.geometry import (
    compose_position,
    compose_rotation,
    euler_from_matrix,
    matrix_from_euler,
    matrix_from_rot6d,
    rot6d_from_matrix,
)

WITH_GEOMETRY = [case for case in CASES if "geom.euler_f64" in read_safetensors(case / "inputs.safetensors")]
RANDOM = np.random.default_rng(6)
ANGLES = RANDOM.uniform(-1, 1, (2000, 3)) * np.array([np.pi, np.pi / 2, np.pi])
TURNS = matrix_from_euler(ANGLES)


def close(a: NDArray[Any], b: NDArray[Any], atol: float = 5e-12) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def is_rotation(r: NDArray[Any]) -> None:
    close(r @ np.swapaxes(r, -1, -2), np.broadcast_to(np.eye(3), r.shape))
    close(np.linalg.det(r), np.ones(r.shape[:-2]))


@pytest.mark.parametrize("case", WITH_GEOMETRY, ids=lambda c: c.name)
def test_equals_the_reference(case: Path) -> None:
    inputs, expected = read_safetensors(case / "inputs.safetensors"), read_safetensors(case / "expected.safetensors")
    relative = matrix_from_euler(inputs["geom.euler_f64"])
    close(rot6d_from_matrix(relative), expected["geom.rot6d_f64"])
    again = matrix_from_rot6d(expected["geom.rot6d_f64"])
    close(euler_from_matrix(again), expected["geom.euler_back_f64"])
    absolute = compose_rotation(again, matrix_from_rot6d(inputs["geom.state_rot6d_f64"]))
    close(rot6d_from_matrix(absolute), expected["geom.compose_abs6d_f64"])
    absolute = compose_rotation(relative, matrix_from_euler(inputs["geom.state_rpy_f64"]))
    close(euler_from_matrix(absolute), expected["geom.compose_abs_rpy_f64"])


def test_three_cases_have_geometry() -> None:
    assert len(WITH_GEOMETRY) == 3


def test_angles_there_and_back() -> None:
    is_rotation(TURNS)
    close(euler_from_matrix(TURNS), ANGLES, 1e-7)


def test_six_numbers_there_and_back() -> None:
    close(matrix_from_rot6d(rot6d_from_matrix(TURNS)), TURNS)
    rows = rot6d_from_matrix(TURNS)
    close(rows[:, :3], TURNS[:, 0])
    close(rows[:, 3:], TURNS[:, 1])


def test_scale_and_lean_of_the_rows_do_not_matter() -> None:
    rows = rot6d_from_matrix(TURNS)
    leaning = rows.copy()
    leaning[:, :3] *= RANDOM.uniform(0.01, 100, (2000, 1))
    leaning[:, 3:] = leaning[:, 3:] * RANDOM.uniform(0.01, 100, (2000, 1)) + rows[:, :3] * 0.7
    close(matrix_from_rot6d(leaning), TURNS, 1e-9)


def test_any_six_numbers_become_a_rotation() -> None:
    is_rotation(matrix_from_rot6d(RANDOM.standard_normal((2000, 6))))


def test_angles_are_canonical() -> None:
    wild = RANDOM.uniform(-20, 20, (2000, 3))
    angles = euler_from_matrix(matrix_from_euler(wild))
    assert (angles > -np.pi).all()
    assert (angles <= np.pi).all()
    assert (np.abs(angles[:, 1]) <= np.pi / 2).all()
    close(matrix_from_euler(angles), matrix_from_euler(wild), 1e-7)
    half_turn = np.diag([-1.0, -1.0, 1.0])
    half_turn[1, 0] = -0.0
    assert euler_from_matrix(half_turn)[2] == np.pi


@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2])
def test_where_two_axes_are_one_the_rotation_is_kept(pitch: float) -> None:
    angles = np.stack([ANGLES[:, 0], np.full(2000, pitch), ANGLES[:, 2]], axis=-1)
    matrices = matrix_from_euler(angles)
    back = euler_from_matrix(matrices)
    assert np.isfinite(back).all()
    # which roll and yaw come out is rounding's choice; their turn is not
    close(matrix_from_euler(back)[:, 2], matrices[:, 2], 1e-7)


def test_known_turns() -> None:
    quarter = matrix_from_euler(np.array([0.0, 0.0, np.pi / 2]))
    close(quarter @ [1, 0, 0], np.array([0, 1, 0]))
    close(matrix_from_euler(np.array([np.pi / 2, 0.0, 0.0])) @ [0, 1, 0], np.array([0, 0, 1]))
    close(matrix_from_euler(np.array([0.0, np.pi / 2, 0.0])) @ [0, 0, 1], np.array([1, 0, 0]))


def test_a_relative_turn_is_about_the_axes_of_the_base() -> None:
    """An arm that looks along y and turns about the base's z by a quarter looks along -x."""
    state = matrix_from_euler(np.array([0.3, -0.2, np.pi / 2]))
    turn = matrix_from_euler(np.array([0.0, 0.0, np.pi / 2]))
    absolute = compose_rotation(turn, state)
    close(absolute, turn @ state)
    assert np.abs(absolute - state @ turn).max() > 0.1


def test_nothing_relative_is_the_state() -> None:
    state = TURNS[7]
    close(compose_rotation(np.broadcast_to(np.eye(3), (5, 3, 3)), state), np.broadcast_to(state, (5, 3, 3)))
    close(compose_position(np.zeros((5, 3)), np.array([1.0, 2, 3])), np.tile([1.0, 2, 3], (5, 1)))
    close(compose_position(np.array([[1.0, 0, 0]]), np.array([1.0, 2, 3])), np.array([[2.0, 2, 3]]))


@pytest.mark.parametrize(
    "rows",
    [[0, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0], [1, 0, 0, 5, 0, 0], [1, 2, 3, -2, -4, -6], [1e-8, 0, 0, 0, 1, 0]],
)
def test_no_rotation_follows_from_rows_without_direction(rows: list[float]) -> None:
    values = np.array([[1.0, 0, 0, 0, 1, 0], rows])
    with pytest.raises(ConfigError, match=r"rot6D at \[1\] is .* has length"):
        matrix_from_rot6d(values)
    with pytest.raises(ConfigError, match=r"rot6D at \[\] is .* has length"):
        matrix_from_rot6d(values[1])


@pytest.mark.parametrize("function", [matrix_from_euler, matrix_from_rot6d, euler_from_matrix, rot6d_from_matrix])
@pytest.mark.parametrize("values", [np.zeros(4), np.zeros((3, 2)), np.zeros(()), np.array(["a", "b", "c"])])
def test_another_shape_is_refused(function: Callable[[Any], Any], values: NDArray[Any]) -> None:
    with pytest.raises(ConfigError, match="expected numbers of shape"):
        function(values)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    for function, values in (
        (matrix_from_euler, np.zeros((2, 3))),
        (matrix_from_rot6d, np.ones((2, 6))),
        (euler_from_matrix, np.zeros((2, 3, 3))),
        (lambda v: compose_position(v, np.zeros(3)), np.zeros((2, 3))),
    ):
        values[(1,) * values.ndim] = bad
        with pytest.raises(ConfigError, match=r"expected finite numbers"):
            function(values)
