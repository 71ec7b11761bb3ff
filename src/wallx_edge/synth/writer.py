"""Writer: tensors to a safetensors file, those that are only drawn piece by piece."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge.synth.size import Dtype

__all__ = ["DTYPES", "Normal", "num_bytes", "write_safetensors"]

DTYPES: dict[Dtype, tuple[str, int]] = {"f32": ("F32", 4), "bf16": ("BF16", 2), "f16": ("F16", 2)}
PIECE = 4 << 20  # weights that one thread draws at a time
LEVELS = 1 << 16  # equally likely values that a streamed weight is one of


@dataclass(frozen=True)
class Normal:
    """Normal weights that are not drawn yet.

    Attributes:
        shape: of the tensor; the first dimension counts the rows.
        gain: what a product with it multiplies a vector's magnitude by, for all rows or each   (rows,); the deviation
            is ``gain / sqrt(columns)``. Rows of a streamed tensor have the largest gain, or none.
    """

    shape: tuple[int, ...]
    gain: float | NDArray[np.float64] = 1.0

    @property
    def columns(self) -> int:
        """Weights of a row."""
        return int(np.prod(self.shape[1:]))

    def draw(self, random: np.random.Generator) -> NDArray[np.float32]:
        """All of it, from one stream."""
        deviation = np.asarray(self.gain / np.sqrt(self.columns), np.float32)
        return random.standard_normal(self.shape, np.float32) * deviation.reshape(-1, *[1] * (len(self.shape) - 1))

    def pieces(self, seed: tuple[int, ...], dtype: Dtype) -> Iterator[Callable[[], NDArray[Any]]]:
        """Runs of whole rows, as they stand in the file; each from a stream of its own, in whatever order.

        A weight is one of :data:`LEVELS` equally likely quantiles, found in a table by 16 random bits: several times
        as fast as drawing it, and no coarser than the bf16 that it becomes.
        """
        gain = np.broadcast_to(self.gain, self.shape[0])
        table = _encode(_quantiles() * np.float32(gain.max() / np.sqrt(self.columns)), dtype)
        step = max(1, PIECE // self.columns)
        for number, first in enumerate(range(0, self.shape[0], step)):
            end = min(first + step, self.shape[0])

            def draw(first: int = first, end: int = end, number: int = number) -> NDArray[Any]:
                random = np.random.Generator(np.random.SFC64(np.random.SeedSequence((*seed, number))))
                bits = np.frombuffer(random.bytes(2 * (end - first) * self.columns), np.uint16)
                weights = table[bits].reshape(end - first, self.columns)
                weights[gain[first:end] == 0] = 0
                return weights

            yield draw


@lru_cache(maxsize=1)
def _quantiles() -> NDArray[np.float32]:
    normal = NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / LEVELS) for i in range(LEVELS)], np.float32)


def num_bytes(tensors: Mapping[str, NDArray[np.float32] | Normal], dtype: Dtype) -> int:
    """Size of the tensors in a file, without its header [B]"""
    return sum(int(np.prod(value.shape)) for value in tensors.values()) * DTYPES[dtype][1]


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, NDArray[np.float32] | Normal],
    dtype: Dtype,
    *,
    seed: int = 0,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    """Writes tensors in the safetensors format, under a temporary name that is then renamed. Blocks.

    In memory are the arrays that were given, and of a :class:`Normal` some pieces.

    Args:
        path: of the file.
        tensors: name -> float32 array, rounded to nearest even for ``bf16`` and ``f16``; or what is to be drawn.
        dtype: of the file.
        seed: of what is drawn.
        on_bytes: called on this thread with the number of bytes just written.

    Raises:
        OSError: a full disk, for one; nothing of the file stays.
    """
    name, width = DTYPES[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for key, value in tensors.items():
        end = offset + int(np.prod(value.shape)) * width
        header[key] = {"dtype": name, "shape": list(value.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = Path(f"{path}.part")
    try:
        with temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for piece in _pieces(tensors, dtype, seed):
                file.write(piece.data)
                if on_bytes:
                    on_bytes(piece.nbytes)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _pieces(tensors: Mapping[str, NDArray[np.float32] | Normal], dtype: Dtype, seed: int) -> Iterator[NDArray[Any]]:
    """What stands in the file, in order; threads draw ahead of it, each one piece and one more."""
    threads = len(os.sched_getaffinity(0))
    ahead: deque[Future[NDArray[Any]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for number, value in enumerate(tensors.values()):
            if isinstance(value, Normal):
                jobs: Iterator[Callable[[], NDArray[Any]]] = value.pieces((seed, number), dtype)
            else:
                jobs = iter([lambda value=value: _encode(np.ascontiguousarray(value, np.float32), dtype)])  # type: ignore[misc]
            for job in jobs:
                ahead.append(pool.submit(job))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _encode(value: NDArray[np.float32], dtype: Dtype) -> NDArray[Any]:
    if dtype == "bf16":
        bits = value.view(np.uint32)
        rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return np.asarray((rounded >> np.uint32(16)).astype("<u2"))
    return value.astype("<f2" if dtype == "f16" else "<f4")
