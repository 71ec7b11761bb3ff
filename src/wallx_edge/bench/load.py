"""What `wallx-edge bench load` measures: peak memory while a checkpoint is loaded, by type of file."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

from wallx_edge import _core
from wallx_edge.embodiment import load_embodiment
from wallx_edge.synth import Dtype, synth

__all__ = ["bench_load", "peak_mb"]


def bench_load(size: str = "medium") -> list[dict[str, Any]]:
    """Loads a synthetic checkpoint in a fresh process per file type and reports its peak resident memory.

    Args:
        size: of :data:`wallx_edge.synth.SIZES`.

    Returns:
        per type: weights in fp32 [MB], growth of the peak while loading and touching every weight [MB], their ratio.
    """
    rows: list[dict[str, Any]] = []
    dtypes: tuple[Dtype, ...] = ("f32", "bf16", "f16")
    joints = {joint.name: joint.rest_position for joint in load_embodiment("so101").joints}
    spawn = multiprocessing.get_context("spawn")
    for dtype in dtypes:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "checkpoint"
            synth(size, checkpoint, joints, "so101", dtype=dtype)
            receiver, sender = spawn.Pipe(duplex=False)
            child = spawn.Process(target=_load, args=(str(checkpoint), sender))
            child.start()
            sender.close()
            row = receiver.recv()
            child.join()
            receiver.close()
        rows.append({"dtype": dtype, **row, "ratio": row["growth_mb"] / row["fp32_mb"]})
    return rows


def _load(checkpoint: str, sender: Any) -> None:
    before = peak_mb()
    begin = time.perf_counter()
    engine = _core.Engine.load(checkpoint)
    seconds = time.perf_counter() - begin
    if engine.mapped_bytes:
        # what is mapped becomes resident when it is read, tensor by tensor; the copies are small and freed
        for name in engine.tensor_names:
            engine.tensor(name)
    sender.send(
        {
            "fp32_mb": (engine.mapped_bytes + engine.widened_bytes) / 1e6,
            "growth_mb": peak_mb() - before,
            "load_s": seconds,
        }
    )
    sender.close()


def peak_mb() -> float:
    """Peak resident memory of this process, file pages included [MB]"""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("/proc/self/status has no VmHWM")
