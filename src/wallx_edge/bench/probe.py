"""Probe: the machine's own peaks, measured again and again between whatever is compared to them."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wallx_edge import _core
from wallx_edge.errors import ConfigError

__all__ = ["LEAST", "Probe", "last_cache_bytes"]

LEAST = 0.9  # of cores x clock x width that a sound probe reaches
COMPUTE_S = 0.08  # of a kind of product [s]
READ_S = 0.12
CLOCK_S = 0.02


class Probe:
    """Peaks of some threads, taken one after another.

    Attributes:
        kinds: of products that this processor has an instruction for.
        taken: rate by kind, in the order of taking: operations, for ``read`` bytes per second, for ``clock`` Hz.
    """

    def __init__(self, threads: int, kinds: Sequence[str]) -> None:
        """Finds out which of ``kinds`` there are. Blocks for some hundredths of a second.

        Raises:
            ConfigError: more threads than processors.
        """
        self._threads = threads
        self._found: dict[str, _core.Peak] = {"clock": _core.measure_peak("clock", threads, CLOCK_S)}
        for kind in dict.fromkeys(kinds):
            try:
                self._found[kind] = _core.measure_peak(kind, threads, CLOCK_S)
            except ConfigError:  # an older processor
                continue
        self.kinds = tuple(kind for kind in self._found if kind != "clock")
        self.taken: list[dict[str, float]] = []

    def take(self) -> None:
        """Measures all of them once. Blocks for some tenths of a second."""
        rates = {kind: _core.measure_peak(kind, self._threads, COMPUTE_S)["rate"] for kind in self.kinds}
        rates["read"] = _core.measure_peak("read", self._threads, READ_S)["rate"]
        rates["clock"] = _core.measure_peak("clock", self._threads, CLOCK_S)["rate"]
        self.taken.append(rates)

    def beside(self, index: int) -> dict[str, float]:
        """The faster of the probes before and after what was measured when ``index`` of them had been taken.

        The faster one: a probe that was interrupted must not make a stage look good.
        """
        around = self.taken[max(0, index - 1) : index + 1]
        return {kind: max(rates[kind] for rates in around) for kind in around[0]}

    def summary(self) -> dict[str, dict[str, Any]]:
        """By kind: median, lowest and highest rate, the instruction, and what cores, clock and width promise, if known.

        ``share``: of the median in that promise.
        """
        clock = max(rates["clock"] for rates in self.taken)
        cores = num_cores(self._threads)
        found: dict[str, dict[str, Any]] = {}
        for kind in (*self.kinds, "read", "clock"):
            rates = [rates[kind] for rates in self.taken]
            row: dict[str, Any] = {"median": statistics.median(rates), "lowest": min(rates), "highest": max(rates)}
            if kind in self.kinds:
                row["instruction"] = self._found[kind]["instruction"]
                width = self._found[kind]["width"]
                row["expected"] = cores * clock * width if width else None
                row["share"] = row["median"] / row["expected"] if width else None
            found[kind] = row
        return found


def num_cores(threads: int) -> int:
    """Different cores among the first processors that this process may use: two threads of one share its units."""
    cores = set()
    for cpu in sorted(os.sched_getaffinity(0))[:threads]:
        folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            cores.add(tuple((folder / name).read_text().strip() for name in ("physical_package_id", "core_id")))
        except OSError:  # a system that does not say: every processor is a core
            cores.add((str(cpu), ""))
    return len(cores)


def last_cache_bytes() -> int:
    """Size of the largest cache of a processor [B]; 0: the system does not say."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    units = {"K": 1 << 10, "M": 1 << 20}
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=0)
