"""Normalizer: between SI and the model's range [-1, 1], from the checkpoint's training statistics."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wallx_edge.errors import CheckpointError, ConfigError

__all__ = ["Kind", "Normalizer"]

Kind = Literal["action", "propri"]


class Normalizer:
    """Maps SI values to the model's range and back, column by column, in float32 like the reference.

    ::

        normalize(x)   = clamp((x - minimum) / delta * 2 - 1, -1, 1)
        unnormalize(x) = (x + 1) / 2 * delta + minimum                  (no clamp, as the reference)

    A column that never moved in training has delta 0: it normalizes as if delta were 1, and unnormalizes to its minimum
    whatever the model says; both as the reference.

    Attributes:
        minimum: the value that becomes -1, SI, float32, read-only   (width,)
        delta: the span that becomes 2, SI, float32, read-only       (width,)
        name: where the statistics come from, for messages.
    """

    def __init__(self, minimum: NDArray[Any], delta: NDArray[Any], name: str) -> None:
        """Checks and keeps the statistics.

        Args:
            minimum: floating point   (width,)
            delta: floating point, each 0 or more   (width,)
            name: where they come from.

        Raises:
            CheckpointError: not one row of numbers each, different widths, not finite, a delta below 0.
        """
        self.name = name
        self.minimum = self._statistic(minimum, "min")
        self.delta = self._statistic(delta, "delta")
        if self.minimum.shape != self.delta.shape:
            raise CheckpointError(
                f"normalizer {name}: min has {self.minimum.size} columns, delta has {self.delta.size}"
            )
        bad = np.flatnonzero(self.delta < 0)
        if bad.size:
            raise CheckpointError(
                f"normalizer {name}: delta[{bad[0]}] is {self.delta[bad[0]]}, expected 0 or more; "
                "see the checkpoint's statistics"
            )

    def filled_up(self, width: int) -> Normalizer:
        """The same with columns of minimum 0 and delta 1 behind its own, as the reference fills up.

        Args:
            width: columns of the result, as many as here or more.
        """
        missing = [(0, width - self.width)]
        return Normalizer(
            np.pad(self.minimum, missing, constant_values=0), np.pad(self.delta, missing, constant_values=1), self.name
        )

    def equals(self, other: Normalizer) -> bool:
        """Whether both map every value to the same."""
        return np.array_equal(self.minimum, other.minimum) and np.array_equal(self.delta, other.delta)

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.minimum.size)

    def normalize(self, values: NDArray[Any], *, is_clamped: bool = True) -> NDArray[np.float32]:
        """SI to the model's range.

        Args:
            values: SI   (..., width)
            is_clamped: to [-1, 1], as the reference; otherwise the inverse of :meth:`unnormalize`.

        Returns:
            float32   (..., width)

        Raises:
            ConfigError: another width, or values that are not finite.
        """
        x = self._values(values, "normalize")
        span = np.where(self.delta == 0, np.float32(1), self.delta)
        scaled = (x - self.minimum) / span * np.float32(2) - np.float32(1)
        return np.asarray(np.clip(scaled, np.float32(-1), np.float32(1)) if is_clamped else scaled, np.float32)

    def unnormalize(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """The model's range to SI; beyond [-1, 1] it leaves the training range, as in the reference.

        Args:
            values: of the model   (..., width)

        Returns:
            SI, float32   (..., width)

        Raises:
            ConfigError: another width, or values that are not finite.
        """
        x = self._values(values, "unnormalize")
        return np.asarray((x + np.float32(1)) / np.float32(2) * self.delta + self.minimum, np.float32)

    def __repr__(self) -> str:
        """Name and width."""
        return f"Normalizer({self.name!r}, width={self.width})"

    def _statistic(self, values: NDArray[Any], what: str) -> NDArray[np.float32]:
        array = np.asarray(values)
        if array.ndim == 2:
            raise CheckpointError(
                f"normalizer {self.name}: {what} has shape {array.shape}: statistics per step are not supported; "
                "give one row for all steps"
            )
        if array.ndim != 1 or array.size == 0 or array.dtype.kind != "f":
            raise CheckpointError(
                f"normalizer {self.name}: {what} is {array.dtype} of shape {array.shape}, expected floats (width,)"
            )
        statistic = array.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(statistic))
        if bad.size:
            raise CheckpointError(
                f"normalizer {self.name}: {what}[{bad[0]}] is {array[bad[0]]}, expected a finite number"
            )
        statistic.flags.writeable = False
        return statistic

    def _values(self, values: NDArray[Any], what: str) -> NDArray[np.float32]:
        array = np.asarray(values)
        if array.ndim == 0 or array.shape[-1] != self.width:
            raise ConfigError(f"{what} with {self.name}: got shape {array.shape}, expected (..., {self.width})")
        if array.dtype.kind not in "fiu":
            raise ConfigError(f"{what} with {self.name}: got {array.dtype}, expected numbers")
        bad = np.argwhere(~np.isfinite(array))
        if bad.size:
            index = tuple(int(i) for i in bad[0])
            raise ConfigError(f"{what} with {self.name}: got {array[index]} at {list(index)}, expected finite numbers")
        return array.astype(np.float32)
