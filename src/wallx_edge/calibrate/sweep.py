"""Sweep: follows one joint through an encoder that wraps, and keeps how far it went."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from wallx_edge.errors import CalibrationError

__all__ = ["TICKS_PER_TURN", "Sweep"]

TICKS_PER_TURN = 4096
MAX_STEP = TICKS_PER_TURN // 4  # between two looks; more could be a turn the other way [ticks]


class Sweep:
    """Positions of one joint, unwrapped: a step over the encoder's seam is a small step."""

    def __init__(self, joint: str, first: int) -> None:
        """Begins where the joint stands.

        Args:
            joint: its name, for messages.
            first: what its motor reports [ticks].
        """
        self.joint = joint
        self.position = self.low = self.high = first  # [ticks], unwrapped from the first one
        self.is_wrapped = False  # the seam was crossed
        self._reported = first

    def update(self, reported: int) -> None:
        """One more look.

        Args:
            reported: position [ticks].

        Raises:
            CalibrationError: it is too far from the last one to say which way it went.
        """
        step = (reported - self._reported + TICKS_PER_TURN // 2) % TICKS_PER_TURN - TICKS_PER_TURN // 2
        if abs(step) > MAX_STEP:
            raise CalibrationError(
                f"joint {self.joint!r} went from {self._reported} to {reported} ticks between two looks, more than "
                f"{MAX_STEP} ticks can be told apart; move it more slowly, or check its cable"
            )
        if step != reported - self._reported:
            self.is_wrapped = True
        self._reported = reported
        self.position += step
        self.low = min(self.low, self.position)
        self.high = max(self.high, self.position)

    @property
    def travel(self) -> int:
        """From the lowest to the highest position [ticks]."""
        return self.high - self.low
