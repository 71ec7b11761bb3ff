"""A hand at the emulated arm: stands in for the person whom a calibration asks to move its joints."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Mapping

from wallx_edge.sim import SimProcess


class Hand:
    """Stands in for the person: drags the emulated joints to both stops, one end after the other."""

    def __init__(
        self,
        sim: SimProcess,
        ids: Mapping[str, int],
        reach: float = 1.0,
        resolution: int = 1,
        zeros: Mapping[str, float] | None = None,
    ) -> None:
        self.sim = sim
        self.ids = ids
        self.resolution = resolution  # of what it sees, that may flicker
        self.zeros = zeros or {}  # share of the travel at which a joint is placed
        self.reach = reach  # share of the travel that is swept
        self.said: list[str] = []
        self.tasks: list[str] = []
        self.before: Callable[[str], None] = lambda task: None
        self.joints: Mapping[str, str] = {}
        self._targets: list[dict[str, float]] = []
        self._still = 0
        self._last: Mapping[str, tuple[int, int, int]] = {}

    def tell(self, text: str) -> None:
        self.said.append(text)

    def confirm(self, question: str) -> bool:
        self.said.append(question)
        return True

    def begin(self, task: str, joints: Mapping[str, str]) -> None:
        self.tasks.append(task)
        self.before(task)
        self.joints = joints
        shares = (0.5,) if task == "middle" else (0.0, self.reach, 0.5)
        self._targets = [dict.fromkeys(joints, share) for share in shares]
        if task == "zero":
            self._targets = [{joint: self.zeros[joint] for joint in joints}]
        self._move()

    def _move(self) -> None:
        for joint, share in self._targets.pop(0).items():
            self.sim.send(f"hand {self.ids[joint]} {share}")
        self._still = 0

    def is_done(self, ranges: Mapping[str, tuple[int, int, int]]) -> bool:
        moved = any(abs(ranges[j][1] - self._last.get(j, (0, -999, 0))[1]) > self.resolution for j in ranges)
        self._last = dict(ranges)
        self._still = 0 if moved else self._still + 1
        if self._still < 30:
            return False
        if self._targets:
            self._move()
            return False
        return True
