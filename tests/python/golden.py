"""Golden cases for tests: a strict reader of safetensors in plain numpy, and the case folders."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
CASE1 = ROOT / "tests" / "golden" / "case1_flow_v1"
CASES = tuple(sorted(path.parent for path in (ROOT / "tests" / "golden").glob("*/manifest.json")))

_DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "I32": "<i4",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
}


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Reads every tensor of a file; anything unusual in it is a ValueError that says what."""
    data = path.read_bytes()
    if len(data) < 8:
        raise ValueError(f"{path}: {len(data)} bytes, expected a header")
    size = int.from_bytes(data[:8], "little")
    if size > len(data) - 8:
        raise ValueError(f"{path}: header of {size} bytes in a file of {len(data)}")
    header = json.loads(data[8 : 8 + size], object_pairs_hook=_no_duplicates)
    body = memoryview(data)[8 + size :]
    tensors: dict[str, NDArray[Any]] = {}
    covered = 0
    entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
    for name, entry in sorted(entries, key=lambda item: item[1]["data_offsets"]):
        if set(entry) != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"{path}: {name} has the fields {sorted(entry)}")
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        begin, end = entry["data_offsets"]
        if begin != covered:
            raise ValueError(f"{path}: {name} begins at {begin}, expected {covered}: a gap or an overlap")
        if end - begin != math.prod(entry["shape"]) * dtype.itemsize or end > len(body):
            raise ValueError(f"{path}: {name} has {end - begin} bytes for {entry['dtype']} {entry['shape']}")
        tensors[name] = np.frombuffer(body[begin:end], dtype).reshape(entry["shape"])
        covered = end
    if covered != len(body):
        raise ValueError(f"{path}: {len(body) - covered} bytes behind the last tensor")
    return tensors


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(f"duplicate names in {names}")
    return dict(pairs)


@cache
def tensors(name: str) -> dict[str, NDArray[Any]]:
    """Tensors of one file of case 1: ``inputs``, ``expected`` or ``model``."""
    return read_safetensors(CASE1 / f"{name}.safetensors")


@cache
def manifest() -> dict[str, Any]:
    """Manifest of case 1."""
    content = json.loads((CASE1 / "manifest.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content
