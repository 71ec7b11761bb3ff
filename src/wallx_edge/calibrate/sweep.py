"""Sweep: follows one joint through an encoder that wraps, and keeps how far it went."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from wallx_edge.errors import CalibrationError

__all__ = ["TICKS_PER_TURN", "Sweep"]

TICKS_PER_TURN = 4096


class Sweep:
    """Positions of one joint, unwrapped: a step over the encoder's seam is a small step."""

    def __init__(self, joint: str, first: int, turn: int = TICKS_PER_TURN, unit: str = "ticks") -> None:
        """Begins where the joint stands.

        Args:
            joint: its name, for messages.
            first: what its motor reports [unit].
            turn: a whole turn [unit].
            unit: in which it reports, for messages.
        """
        self.joint = joint
        self.turn = turn
        self.unit = unit
        self.position = self.low = self.high = first  # unwrapped from the first one
        self.is_wrapped = False  # the seam was crossed
        self._reported = first

    def update(self, reported: int) -> None:
        """One more look.

        Args:
            reported: position [unit].

        Raises:
            CalibrationError: it is too far from the last one to say which way it went.
        """
        step = (reported - self._reported + self.turn // 2) % self.turn - self.turn // 2
        most = self.turn // 4  # more could be a turn the other way
        if abs(step) > most:
            raise CalibrationError(
                f"joint {self.joint!r} went from {self._reported} to {reported} {self.unit} between two looks, more "
                f"than {most} {self.unit} can be told apart; move it more slowly, or check its cable"
            )
        if step != reported - self._reported:
            self.is_wrapped = True
        self._reported = reported
        self.position += step
        self.low = min(self.low, self.position)
        self.high = max(self.high, self.position)

    @property
    def travel(self) -> int:
        """From the lowest to the highest position [unit]."""
        return self.high - self.low
