"""The normalizer equals the reference, and refuses statistics and values that do not fit."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from golden import manifest, tensors
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.normalizer import Kind, Normalizer
from wallx_edge.statistics import sources

ROBOTS = manifest()["normalizer_names_for_norm_test"]
MIN = "action_preprocessor.normalizer_action.min.x2_normal"
DELTA = "action_preprocessor.normalizer_action.delta.x2_normal"


def statistics() -> dict[str, np.ndarray[Any, Any]]:
    """The golden case's statistics, to be changed."""
    return {name: array.copy() for name, array in tensors("model").items() if ".normalizer_" in name}


def normalizer_of(tensors: dict[str, np.ndarray[Any, Any]], kind: Kind, robot: str) -> Normalizer:
    (source,) = sources("no folder", tensors)
    return source.normalizer(kind, robot, 20)


@pytest.mark.parametrize(("row", "robot"), list(enumerate(ROBOTS)))
def test_equals_the_reference(row: int, robot: str) -> None:
    normalizer = normalizer_of(statistics(), "action", robot)
    expected = tensors("expected")
    x = tensors("inputs")["norm.x"][row]
    normalized = normalizer.normalize(x)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized, expected["norm.normalized"][row], rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        normalizer.unnormalize(expected["norm.normalized"][row]),
        expected["norm.roundtrip"][row],
        rtol=0,
        atol=1e-6,
    )
    np.testing.assert_allclose(normalizer.unnormalize(x), expected["norm.unnormalized"][row], rtol=1e-6, atol=1e-6)


def test_the_state_equals_the_reference() -> None:
    normalizer = normalizer_of(statistics(), "propri", manifest()["robot"])
    np.testing.assert_allclose(
        normalizer.normalize(tensors("inputs")["state"]),
        tensors("expected")["proprio.normalized"],
        rtol=0,
        atol=1e-6,
    )


def test_the_final_action_equals_the_reference() -> None:
    normalizer = normalizer_of(statistics(), "action", manifest()["robot"])
    np.testing.assert_allclose(
        normalizer.unnormalize(tensors("expected")["flow.x"][-1]),
        tensors("expected")["flow.action"][0],
        rtol=1e-6,
        atol=1e-6,
    )


def test_clamps_on_the_way_in_only() -> None:
    normalizer = Normalizer(np.array([-1.0]), np.array([2.0]), "test")
    assert normalizer.normalize(np.array([[-5.0], [0.0], [7.0]])).tolist() == [[-1.0], [0.0], [1.0]]
    assert normalizer.unnormalize(np.array([[-5.0], [0.0], [7.0]])).tolist() == [[-5.0], [0.0], [7.0]]


def test_action_and_state_statistics_are_kept_apart() -> None:
    changed = statistics()
    changed["action_preprocessor.normalizer_propri.min.x2_normal"] += 1
    action = normalizer_of(changed, "action", "x2_normal")
    propri = normalizer_of(changed, "propri", "x2_normal")
    assert not np.array_equal(action.minimum, propri.minimum)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (DELTA, -1.0, r"delta\[7\] is -1\.0, expected 0 or more"),
        (DELTA, np.nan, r"delta\[7\] is nan, expected a finite"),
        (MIN, np.inf, r"min\[7\] is inf, expected a finite"),
    ],
)
def test_impossible_statistics_are_refused(name: str, value: float, message: str) -> None:
    changed = statistics()
    changed[name][7] = value
    with pytest.raises(CheckpointError, match=rf"action.x2_normal \(the weights\): {message}"):
        normalizer_of(changed, "action", "x2_normal")


@pytest.mark.parametrize("delta", [0.0, 1e-60])
def test_a_column_that_never_moved_stays_where_it_was(delta: float) -> None:
    """As the reference: told as if it moved by 1, said as the one value that it had."""
    normalizer = Normalizer(np.array([3.0, 0.0]), np.array([delta, 2.0]), "test")
    assert normalizer.normalize(np.array([[3.0, 0.5], [3.25, 0.5], [2.0, 0.5], [9.0, 0.5]])).tolist() == [
        [-1.0, -0.5],
        [-0.5, -0.5],
        [-1.0, -0.5],
        [1.0, -0.5],
    ]
    assert normalizer.unnormalize(np.array([[0.7, 0.0], [-1.0, 0.0]])).tolist() == [[3.0, 1.0], [3.0, 1.0]]


def test_filled_up_columns_are_between_0_and_1() -> None:
    normalizer = Normalizer(np.array([-1.0]), np.array([2.0]), "test").filled_up(3)
    assert normalizer.width == 3
    assert normalizer.normalize(np.array([0.0, 0.0, 1.0])).tolist() == [0.0, -1.0, 1.0]
    assert normalizer.unnormalize(np.array([0.0, -1.0, 1.0])).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("minimum", "delta"),
    [
        (np.zeros((1, 2)), np.ones(2)),
        (np.zeros((20, 26)), np.ones((20, 26))),
        (np.zeros(()), np.ones(())),
        (np.zeros(2), np.ones(3)),
        (np.zeros(0), np.ones(0)),
        (np.zeros(2, np.int64), np.ones(2)),
    ],
)
def test_statistics_of_the_wrong_form_are_refused(minimum: Any, delta: Any) -> None:
    with pytest.raises(CheckpointError, match="normalizer test: "):
        Normalizer(minimum, delta, "test")


@pytest.mark.parametrize("way", ["normalize", "unnormalize"])
def test_values_that_do_not_fit_are_refused(way: str) -> None:
    call = getattr(Normalizer(np.zeros(2), np.ones(2), "test"), way)
    with pytest.raises(ConfigError, match=r"got shape \(3,\), expected \(\.\.\., 2\)"):
        call(np.zeros(3))
    with pytest.raises(ConfigError, match=r"got shape \(\), expected"):
        call(np.float64(1))
    with pytest.raises(ConfigError, match=r"got nan at \[1, 0\], expected finite"):
        call(np.array([[0, 0], [np.nan, 0]]))
    with pytest.raises(ConfigError, match="expected numbers"):
        call(np.array(["a", "b"]))


def test_statistics_cannot_be_changed_afterwards() -> None:
    source = np.zeros(2, np.float32)
    normalizer = Normalizer(source, np.ones(2), "test")
    source[0] = 5
    assert normalizer.minimum.tolist() == [0, 0]
    with pytest.raises(ValueError, match="read-only"):
        normalizer.delta[0] = 9
