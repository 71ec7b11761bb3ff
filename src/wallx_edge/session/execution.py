"""Execution: from a chunk to the rows that the loop plays: sync, latest, ensemble or real-time chunking."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wallx_edge._core import MAX_ROWS
from wallx_edge.policy import Follow
from wallx_edge.session_config import SessionConfig

__all__ = ["Execution", "Late", "Place", "PlannedRows", "PlayedChunk"]

HISTORY = 8  # rows before the seam that a plan begins with, so that the spline's end does not reach the seam
SEAM = 2  # rows after the last one played that must not change: the loop is between the first two of them
HEADROOM = 1  # rows that a chunk may come later than any of the last ones
ENSEMBLE_DECAY = 0.01  # of the weights, from the oldest chunk to the newest; as ACT
DELAYS = 8  # that the estimate looks back at
SLACK = 1e-6  # of a step: rounding


@dataclass(frozen=True, eq=False)
class PlayedChunk:
    """One chunk that was handed to the loop.

    Attributes:
        sequence: number of the plan.
        observed_at: capture time of the oldest thing it was computed from [s].
        arrived_at: when it was handed over [s].
        step: between rows [s].
        rows: joint positions as handed over: they may begin with rows of the chunk before [rad]   (rows, joints)
        start: when the first of them is due [s].
        delay_rows: rows that were played between observation and arrival.
    """

    sequence: int
    observed_at: float
    arrived_at: float
    step: float
    rows: NDArray[np.float64]
    start: float = 0.0
    delay_rows: int = 0


@dataclass(frozen=True, eq=False)
class PlannedRows:
    """Rows on a grid of times.

    Attributes:
        start: when the first is due, on the loop's grid [s].
        step: between rows [s].
        rows: joint positions [rad]   (rows, joints)
        model_rows: the same in the order of the action layout, SI   (rows, dof)
    """

    start: float
    step: float
    rows: NDArray[np.float64]
    model_rows: NDArray[np.float64]

    def due(self, time: float) -> int:
        """The last row that is due; below 0 before the first, and beyond the last as if they went on."""
        return math.floor((time - self.start) / self.step + SLACK)

    def nearest(self, time: float) -> int:
        """The row that is due nearest to a time."""
        return math.floor((time - self.start) / self.step + 0.5)

    def consumed(self, since: float, until: float) -> int:
        """Rows that were played between two times; those that are not there were not."""
        last = len(self.rows) - 1
        return max(0, min(self.due(until), last)) - max(0, min(self.due(since), last))

    @property
    def end(self) -> float:
        """When the last row is due [s]."""
        return self.start + (len(self.rows) - 1) * self.step


@dataclass(frozen=True, eq=False)
class Place:
    """Where a chunk that is being computed will go.

    Attributes:
        plan: in force when it was observed; ``None``: there was none.
        first: row of that plan with which its first row is due.
        num_frozen: rows at its start that are the plan's.
        observed_at: [s]
        estimate: rows that were expected to be played until it arrives.
    """

    plan: PlannedRows | None
    first: int
    num_frozen: int
    observed_at: float
    estimate: int


class Late(Exception):
    """A chunk came too late to be played; the message says how late."""


class Execution:
    """One mode of execution. Pure: it has no clock, no thread, and touches no robot."""

    def __init__(self, config: SessionConfig, horizon: int, step: float) -> None:
        """Begins without rows.

        Args:
            config: mode, rows to play, roll-forward.
            horizon: rows of a chunk.
            step: between them [s].
        """
        self._config = config
        self._mode = config.mode
        self._horizon = horizon
        self._step = step
        self._execute = config.execute_rows if config.execute_rows is not None else max(1, horizon // 2)
        self._delays: list[int] = []
        self._plan: PlannedRows | None = None
        self._next_at = -math.inf
        self._ensemble: list[PlannedRows] = []

    @property
    def plan(self) -> PlannedRows | None:
        """The rows in force."""
        return self._plan

    @property
    def estimate(self) -> int:
        """Rows that the next chunk will take: the most of the last 8 chunks; 1 before the first."""
        return max(self._delays, default=1)

    @property
    def next_at(self) -> float:
        """When the next observation is to be taken [s]."""
        return self._next_at

    def clear(self) -> None:
        """The rows in force are over: a stop, a pause."""
        self._plan = None
        self._ensemble.clear()
        self._next_at = -math.inf

    def hurry(self) -> None:
        """The next observation is to be taken at once."""
        self._next_at = -math.inf

    def place(self, plan: PlannedRows | None, observed_at: float) -> Place:
        """Where a chunk of an observation will go.

        Args:
            plan: in force; :attr:`plan`.
            observed_at: [s]
        """
        estimate = self.estimate
        if plan is None or self._mode in ("sync", "latest"):
            return Place(plan, 0, 0, observed_at, estimate)
        first = max(0, plan.nearest(observed_at))
        if self._config.roll_forward:
            first += estimate
        frozen = 0
        if self._mode == "rtc":
            frozen = SEAM + HEADROOM + (0 if self._config.roll_forward else estimate)
        return Place(plan, first, min(frozen, self._horizon), observed_at, estimate)

    def follow(self, place: Place) -> Follow | None:
        """The rows that a chunk has to follow; ``None``: it is free."""
        if place.plan is None or self._mode != "rtc":
            return None
        # a plan that has ended goes on with its last row: the robot rests there
        left = max(len(place.plan.rows) - place.first, place.num_frozen)
        index = np.minimum(np.arange(min(left, self._horizon)) + place.first, len(place.plan.rows) - 1)
        return Follow(place.plan.model_rows[index], place.num_frozen, self._config.max_guidance)

    def pose_at(self, place: Place) -> NDArray[np.float64] | None:
        """With roll-forward, the joint row that will have been played when the chunk arrives [rad]   (joints,)"""
        if place.plan is None or not self._config.roll_forward or self._mode == "sync":
            return None
        row = place.first if self._mode != "latest" else place.plan.due(place.observed_at) + place.estimate
        pose: NDArray[np.float64] = place.plan.rows[min(max(row, 0), len(place.plan.rows) - 1)]
        return pose

    def arrive(
        self,
        place: Place,
        rows: NDArray[np.float64],
        model_rows: NDArray[np.float64],
        now: float,
        on_grid: float,
    ) -> tuple[PlannedRows, int]:
        """A chunk is there: the rows to hand to the loop, and how many were played meanwhile.

        Args:
            place: of :meth:`place`.
            rows: of the chunk, by joint [rad]   (horizon, joints)
            model_rows: of the chunk, in the action layout's order, SI   (horizon, dof)
            now: [s]
            on_grid: the time of the loop's grid for a first row that no plan came before [s].

        Raises:
            Late: there is nothing left of it to play, or more rows were played than it was told.
        """
        plan = place.plan
        if plan is None:
            delay = max(0, math.floor((now - place.observed_at) / self._step + SLACK))
        else:
            delay = plan.consumed(place.observed_at, now)
        if self._mode != "sync":
            # also of one that is not played: the next one must know
            self._delays = [*self._delays[-DELAYS + 1 :], delay]
        if self._mode == "sync":
            made = PlannedRows(on_grid, self._step, rows[: self._execute], model_rows[: self._execute])
            self._next_at = made.end
        else:
            made, began_at = self._made(place, rows, model_rows, now, on_grid)
            if made.end <= now:
                raise Late(
                    f"all {len(rows)} rows of {self._step:.3g} s were over after {now - place.observed_at:.2f} s: "
                    "inference is slower than the horizon; fewer steps, smaller pictures, more rows or mode sync"
                )
            most = self._horizon - self.estimate - HEADROOM - SEAM
            self._next_at = began_at + max(1, min(self._execute, most)) * self._step
        self._plan = made
        return made, delay

    def _made(
        self,
        place: Place,
        rows: NDArray[np.float64],
        model_rows: NDArray[np.float64],
        now: float,
        on_grid: float,
    ) -> tuple[PlannedRows, float]:
        plan = place.plan
        if self._mode == "latest" or plan is None:
            made = PlannedRows(on_grid, self._step, rows, model_rows)
            if self._mode == "ensemble":
                self._ensemble = [made]
            return made, on_grid
        began_at = plan.start + place.first * self._step
        playing = plan.due(now)
        if self._mode == "ensemble":
            # what is being played stays: the segment that the loop is in ends with the row after the one that is due
            keep = playing + SEAM
            self._ensemble = [one for one in self._ensemble if one.end > now]
            self._ensemble.append(PlannedRows(began_at, self._step, rows, model_rows))
            mean, model_mean, keep = self._mean(plan, keep)
            return self._joined(plan, keep, mean, model_mean, playing), began_at
        last = place.first + place.num_frozen - 1
        is_over = playing >= len(plan.rows) - 1
        if playing + 1 > last and not is_over:
            raise Late(
                f"{playing + SEAM - place.first} rows of the plan in force are fixed by now, the chunk continues "
                f"{place.num_frozen}; the next one will be told more"
            )
        return self._joined(plan, place.first, rows, model_rows, playing), began_at

    def _joined(
        self,
        plan: PlannedRows,
        first: int,
        rows: NDArray[np.float64],
        model_rows: NDArray[np.float64],
        playing: int,
    ) -> PlannedRows:
        """The plan up to its row ``first``, then other rows; of what is over, only what the spline still feels."""
        begin = max(0, min(first, playing) - min(HISTORY, MAX_ROWS - len(rows)))
        begin = max(begin, first + len(rows) - MAX_ROWS)
        index = np.minimum(np.arange(begin, first), len(plan.rows) - 1)
        return PlannedRows(
            plan.start + begin * self._step,
            self._step,
            np.concatenate([plan.rows[index], rows]),
            np.concatenate([plan.model_rows[index], model_rows]),
        )

    def _mean(self, plan: PlannedRows, keep: int) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Each row from ``keep`` on as the mean of all chunks that have it, the oldest with the largest weight."""
        offsets = [round((one.start - plan.start) / self._step) for one in self._ensemble]
        end = max(offset + len(one.rows) for offset, one in zip(offsets, self._ensemble, strict=True))
        keep = min(keep, end - 1)  # at least one row: the last there is
        total, model_total = (np.zeros((end - keep, part.shape[1])) for part in (plan.rows, plan.model_rows))
        weights, count = np.zeros((end - keep, 1)), np.zeros((end - keep, 1))
        for offset, one in zip(offsets, self._ensemble, strict=True):
            low, high = max(offset, keep), offset + len(one.rows)
            to, of = slice(low - keep, max(low, high) - keep), slice(low - offset, max(low, high) - offset)
            weight = np.exp(-ENSEMBLE_DECAY * count[to])
            total[to] += weight * one.rows[of]
            model_total[to] += weight * one.model_rows[of]
            weights[to] += weight
            count[to] += 1
        return total / weights, model_total / weights, keep
