"""Computing: what is asked of the engine, and what this machine gives; the two are told apart."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wallx_edge import _core
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.train_config import load_engine, open_quantizer

__all__ = ["DEVICES", "RESERVE", "Computing", "free_memory"]

DEVICES = ("auto", "cpu")
RESERVE = 64 << 20  # of memory and disk that stay free [B]
_ITEM = {"F32": 4, "I32": 4, "BF16": 2, "I8": 1}  # [B]
# precision -> what products multiply; {bf16}: bf16 where the kernels have it
_ARITHMETIC = {
    "fp32": "fp32",
    "bf16": "{bf16}, sums in fp32",
    "fp16": "{bf16} in place of fp16, for which there are no kernels here, sums in fp32",
    "int8": "int8 with sums in int32; {bf16} in attention and at the network's edges",
    "mixed": "feed-forwards and scores int8 with sums in int32; {bf16} elsewhere",
    "w8": "weights int8, widened to {bf16}, sums in fp32",
}
_WEIGHTS = {
    "fp32": "fp32",
    "bf16": "bf16",
    "fp16": "bf16",
    "int8": "int8 with a scale an output, edges bf16",
    "mixed": "feed-forwards and scores int8 with a scale an output, the rest bf16",
    "w8": "int8 with a scale an output, edges bf16",
}


@dataclass(frozen=True)
class Computing:
    """How a checkpoint is to be computed.

    Attributes:
        precision: of :func:`wallx_edge._core.precisions`; when empty as the folder is packed, else fp32.
        device: of :data:`DEVICES`; there are kernels for the processor only.
        threads: that compute, the calling one included; 0: one for each core that this process may use.
        cores: that the others are pinned to, in turn; none: not pinned.
        kernels: of :func:`wallx_edge._core.kernels`; when empty the fastest.
    """

    precision: str = ""
    device: str = "auto"
    threads: int = 0
    cores: tuple[int, ...] = ()
    kernels: str = ""

    def __post_init__(self) -> None:
        known = _core.precisions()
        if self.precision and self.precision not in known:
            raise ConfigError(f"precision is {self.precision!r}, expected one of {', '.join(known)}")
        if self.device not in DEVICES:
            raise ConfigError(f"device is {self.device!r}, expected {' or '.join(DEVICES)}: this version has no other")

    def load(self, directory: str | Path) -> _core.Engine:
        """Loads a checkpoint's weights. Blocks while it reads and, unless the folder is packed so, packs.

        Raises:
            CheckpointError: something is missing, damaged, surplus, or of a variant that does not run.
            ConfigError: not the precision that the folder is packed in; no such threads, cores or kernels; packing
                needs more memory than there is, said before it begins.
        """
        if self.precision not in ("", "fp32"):
            self._require_memory(directory)
        return load_engine(directory, self.precision, self.threads, self.cores, self.kernels)

    def _require_memory(self, directory: str | Path) -> None:
        try:
            quantizer = open_quantizer(directory, self.precision)
        except CheckpointError:  # packed already; what is wrong otherwise is said while loading
            return
        made = (quantizer.tensors(step) for step in range(len(quantizer)) if quantizer.format(step) != "f32")
        needed = RESERVE + sum(_ITEM[dtype] * math.prod(shape) for tensors in made for _, dtype, shape in tensors)
        free = free_memory()
        if needed > free:
            raise ConfigError(
                f"{directory}: packing it as {self.precision} needs {needed / 1e6:.0f} MB of memory, this computer has "
                f"{free / 1e6:.0f} MB available; 'wallx-edge quantize' needs less: pack it once, and load that"
            )

    def report(self, engine: _core.Engine) -> dict[str, dict[str, Any]]:
        """What was asked for and, apart from it, what this machine gives.

        Args:
            engine: of :meth:`load`.
        """
        is_packed = bool(engine.metadata)
        bf16 = "bf16" if engine.is_bf16_native else "bf16 values multiplied as fp32"
        made = "as the folder has them" if is_packed or engine.precision == "fp32" else "packed while loading"
        return {
            "asked": {
                "precision": self.precision or "as the folder says",
                "device": self.device,
                "kernels": self.kernels or "the fastest",
                "threads": self.threads or "one for each core",
            },
            "given": {
                "precision": engine.precision,
                "weights": f"{_WEIGHTS[engine.precision]}; {made}",
                "arithmetic": _ARITHMETIC[engine.precision].format(bf16=bf16),
                "kernels": engine.backend,
                "threads": engine.num_threads,
                "mapped_bytes": engine.mapped_bytes,
                "packed_bytes": engine.packed_bytes + engine.widened_bytes,
            },
        }

    def lines(self, engine: _core.Engine) -> tuple[str, str]:
        """:meth:`report` for people: what was asked, what is given."""
        found = self.report(engine)
        asked, given = found["asked"], found["given"]
        return (
            f"{asked['precision']} on {asked['device']}, kernels {asked['kernels']}, threads {asked['threads']}",
            f"{given['arithmetic']}; weights {given['weights']} ({given['mapped_bytes'] / 1e6:.1f} MB mapped, "
            f"{given['packed_bytes'] / 1e6:.1f} MB made); {given['kernels']}, {given['threads']} threads",
        )


def free_memory() -> int:
    """What this computer could still give to a process [B]."""
    found = _meminfo("MemAvailable")
    for limit, used in (("memory.max", "memory.current"),):
        with contextlib.suppress(OSError, ValueError):
            most = int((Path("/sys/fs/cgroup") / limit).read_text())
            found = min(found, most - int((Path("/sys/fs/cgroup") / used).read_text()))
    return found


def _meminfo(key: str) -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/meminfo has no {key}")
