"""Relative: rows that a model says relative to the state, made absolute in the frame of the robot's base, and back."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.geometry import ROTATIONS, compose_position, compose_rotation
from wallx_edge.types import DofLayout, DofSlot

__all__ = ["RelativeActions"]

ENDING = "_relative"
_POSITION = "_ee_cartesian_pos"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Pair:
    """A relative slot of the action and the slot of the state it is relative to."""

    action: DofSlot
    state: DofSlot
    ending: str  # of the slot's name, _relative taken off
    state_ending: str


class RelativeActions:
    """Turns the ``*_relative`` slots of rows into absolute ones; leaves every other column as it is.

    A slot ``follow_left_ee_cartesian_pos_relative`` or ``master_left_...`` is relative to the state's slot
    ``follow_left_ee_cartesian_pos`` or ``master_left_...``, whichever the state has. A rotation may be said as angles
    and told as six numbers, or the other way round.

    Attributes:
        layout: of the absolute rows: the action's layout with ``_relative`` taken off the names.
    """

    def __init__(self, action: DofLayout, state: DofLayout) -> None:
        """Matches every relative slot with a slot of the state.

        Args:
            action: layout of the model's rows.
            state: layout of the model's state.

        Raises:
            CheckpointError: a relative slot that is neither a position nor a rotation, has another width than that
                needs, or no counterpart in the state.
        """
        self._pairs = tuple(_match(slot, state) for slot in action if slot.name.endswith(ENDING))
        names = [slot.name.removesuffix(ENDING) for slot in action]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise CheckpointError(f"dof_config has both {twice} and {twice}{ENDING}; expected one of them")
        self.layout = DofLayout.from_config({n: slot.width for n, slot in zip(names, action, strict=True)})

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the relative slots, in order; empty where every slot is absolute."""
        return tuple(pair.action.name for pair in self._pairs)

    @property
    def sources(self) -> dict[str, str]:
        """Relative slot of the action -> slot of the state that it is relative to."""
        return {pair.action.name: pair.state.name for pair in self._pairs}

    def absolute(self, rows: Floats, state: Floats, used: NDArray[np.bool_] | None = None) -> Floats:
        """Rows relative to a state as absolute rows.

        Positions: p = p_state + p_relative. Rotations: R = R_relative R_state. Source: what the reference does with its
        ``*_relative`` keys; see :mod:`wallx_edge.geometry`.

        Args:
            rows: SI, in the action's layout   (horizon, dof)
            state: SI, in the state's layout, as it was observed   (state_dim,)
            used: columns of the rows that mean something, all by default; slots that do not are left alone   (dof,)

        Returns:
            SI, in :attr:`layout`   (horizon, dof)

        Raises:
            ConfigError: rows or a state from which no rotation follows; the message names the slot.
        """
        return self._changed(_compose, rows, state, used)

    def relative(self, rows: Floats, state: Floats, used: NDArray[np.bool_] | None = None) -> Floats:
        """Absolute rows as a model says them relative to a state: what :meth:`absolute` undoes.

        So a chunk that was relative to an older state can be followed by one that is relative to a newer.

        Args:
            rows: SI, in :attr:`layout`   (horizon, dof)
            state: SI, in the state's layout   (state_dim,)
            used: as for :meth:`absolute`   (dof,)

        Returns:
            SI, in the action's layout   (horizon, dof)

        Raises:
            ConfigError: as :meth:`absolute`.
        """
        return self._changed(_decompose, rows, state, used)

    def _changed(
        self,
        change: Callable[[_Pair, Floats, Floats], Floats],
        rows: Floats,
        state: Floats,
        used: NDArray[np.bool_] | None,
    ) -> Floats:
        out: Floats = np.array(rows, np.float64)
        for pair in self._pairs:
            if used is not None and not used[pair.action.start]:
                continue
            values, now = rows[:, pair.action.columns], state[pair.state.columns]
            try:
                out[:, pair.action.columns] = change(pair, values, now)
            except ConfigError as error:
                raise ConfigError(f"slot {pair.action.name}, with the state's {pair.state.name}: {error}") from error
        return out


def _decompose(pair: _Pair, absolute: Floats, now: Floats) -> Floats:
    if pair.ending == _POSITION:
        return compose_position(absolute, -now)
    _, to_matrix, from_matrix = ROTATIONS[pair.ending]
    _, state_to_matrix, _ = ROTATIONS[pair.state_ending]
    # R_relative = R_absolute R_state^-1
    return from_matrix(to_matrix(absolute) @ np.swapaxes(state_to_matrix(now), -1, -2))


def _compose(pair: _Pair, relative: Floats, now: Floats) -> Floats:
    if pair.ending == _POSITION:
        return compose_position(relative, now)
    _, to_matrix, from_matrix = ROTATIONS[pair.ending]
    _, state_to_matrix, _ = ROTATIONS[pair.state_ending]
    return from_matrix(compose_rotation(to_matrix(relative), state_to_matrix(now)))


def _match(slot: DofSlot, state: DofLayout) -> _Pair:
    name = slot.name.removesuffix(ENDING)
    others: tuple[str, ...] = (_POSITION,)
    if name.endswith(_POSITION):
        ending, width = _POSITION, 3
    else:
        ending = next((e for e in ROTATIONS if name.endswith(e)), "")
        if not ending:
            raise CheckpointError(
                f"dof_config.{slot.name}: only {', '.join((_POSITION, *ROTATIONS))} can be relative to the state"
            )
        width = ROTATIONS[ending][0]
        others = (ending, *(e for e in ROTATIONS if e != ending))
    if slot.width != width:
        raise CheckpointError(f"dof_config.{slot.name} has {slot.width} columns, expected {width}")
    base = name.removesuffix(ending).removeprefix("follow_").removeprefix("master_")
    for other in others:
        for prefix in ("follow_", "master_", ""):
            found = next((s for s in state if s.name == f"{prefix}{base}{other}"), None)
            if found is not None:
                expected = 3 if other == _POSITION else ROTATIONS[other][0]
                if found.width != expected:
                    raise CheckpointError(
                        f"agent_pos_config.{found.name} has {found.width} columns, expected {expected}"
                    )
                return _Pair(slot, found, ending, other)
    raise CheckpointError(
        f"dof_config.{slot.name} is relative to a slot that agent_pos_config does not have "
        f"(follow_{base}{ending}); it has {', '.join(state.names)}"
    )
