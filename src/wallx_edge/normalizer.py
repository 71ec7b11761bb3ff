"""Normalizer: between SI and the model's range [-1, 1], from the checkpoint's training statistics."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wallx_edge.errors import CheckpointError, ConfigError

__all__ = ["Normalizer"]

Kind = Literal["action", "propri"]


def _prefix(kind: Kind, statistic: str) -> str:
    return f"action_preprocessor.normalizer_{kind}.{statistic}."


class Normalizer:
    """Maps SI values to the model's range and back, column by column, in float32 like the reference.

    ::

        normalize(x)   = clamp((x - minimum) / delta * 2 - 1, -1, 1)
        unnormalize(x) = (x + 1) / 2 * delta + minimum                  (no clamp, as the reference)

    Attributes:
        minimum: the value that becomes -1, SI, float32, read-only   (width,)
        delta: the span that becomes 2, SI, float32, read-only       (width,)
        name: where the statistics come from, for messages.
    """

    def __init__(self, minimum: NDArray[Any], delta: NDArray[Any], name: str) -> None:
        """Checks and keeps the statistics.

        Args:
            minimum: floating point   (width,)
            delta: floating point, each more than 0   (width,)
            name: where they come from.

        Raises:
            CheckpointError: not one row of numbers each, different widths, not finite, a delta not above 0.
        """
        self.name = name
        self.minimum = self._statistic(minimum, "min")
        self.delta = self._statistic(delta, "delta")
        if self.minimum.shape != self.delta.shape:
            raise CheckpointError(
                f"normalizer {name}: min has {self.minimum.size} columns, delta has {self.delta.size}"
            )
        bad = np.flatnonzero(self.delta <= 0)
        if bad.size:
            raise CheckpointError(
                f"normalizer {name}: delta[{bad[0]}] is {self.delta[bad[0]]}, expected more than 0; "
                "a column that never moved in training needs delta 1 in the checkpoint's statistics"
            )

    @classmethod
    def from_statistics(cls, tensors: Mapping[str, NDArray[Any]], kind: Kind, key: str, width: int) -> Normalizer:
        """Takes one robot's statistics from a checkpoint's tensors.

        Args:
            tensors: tensor name -> array; only
                ``action_preprocessor.normalizer_{kind}.{min,delta}.{key}`` are read.
            kind: ``action`` for what the model says, ``propri`` for what it is told of the state.
            key: the robot's name in the checkpoint, for example ``x2_normal``.
            width: number of columns of the model's vector; nothing is padded to it.

        Raises:
            ConfigError: the checkpoint has no statistics for ``key``; the message lists those it has.
            CheckpointError: they are incomplete, of another width, not finite, or a delta is not positive.
        """
        available = cls.keys(tensors, kind)
        if key not in available:
            raise ConfigError(
                f"no {kind} statistics for robot {key!r} in the checkpoint; it has: {', '.join(available) or 'none'}"
            )
        statistics: list[NDArray[Any]] = []
        for statistic in ("min", "delta"):
            tensor = _prefix(kind, statistic) + key
            if tensor not in tensors:
                raise CheckpointError(f"tensor {tensor} is missing, its other half is there")
            if tensors[tensor].shape != (width,):
                raise CheckpointError(
                    f"tensor {tensor} has shape {tuple(tensors[tensor].shape)}, expected ({width},) as in config.json"
                )
            statistics.append(tensors[tensor])
        return cls(statistics[0], statistics[1], f"{kind}.{key}")

    @staticmethod
    def keys(tensors: Mapping[str, NDArray[Any]], kind: Kind) -> tuple[str, ...]:
        """The robots that a checkpoint has any ``kind`` statistics for, sorted."""
        prefixes = (_prefix(kind, "min"), _prefix(kind, "delta"))
        return tuple(sorted({name[len(p) :] for name in tensors for p in prefixes if name.startswith(p)}))

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.minimum.size)

    def normalize(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """SI to the model's range.

        Args:
            values: SI   (..., width)

        Returns:
            within [-1, 1], float32   (..., width)

        Raises:
            ConfigError: another width, or values that are not finite.
        """
        x = self._values(values, "normalize")
        scaled = (x - self.minimum) / self.delta * np.float32(2) - np.float32(1)
        return np.asarray(np.clip(scaled, np.float32(-1), np.float32(1)), np.float32)

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
