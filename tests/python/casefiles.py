"""Case files: copies of golden cases and checkpoints in which a test changes one thing."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NAMES = {
    "?": "BOOL",
    "u1": "U8",
    "i1": "I8",
    "i4": "I32",
    "i8": "I64",
    "f2": "F16",
    "f4": "F32",
    "f8": "F64",
}


def linked_copy(source: Path, target: Path) -> Path:
    """A folder of links to what is in another one; a file is replaced, never written through."""
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).symlink_to(file)
    return target


def replace(path: Path, content: bytes | str) -> None:
    """Puts a file in the place of a link."""
    path.unlink(missing_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Writes a safetensors file of arrays of any type."""
    header: dict[str, Any] = {}
    offset = 0
    for name, value in tensors.items():
        dtype = "BOOL" if value.dtype == bool else _NAMES[value.dtype.str[1:]]
        header[name] = {
            "dtype": dtype,
            "shape": list(value.shape),
            "data_offsets": [offset, offset + value.nbytes],
        }
        offset += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(np.ascontiguousarray(value).tobytes() for value in tensors.values())
    replace(path, len(text).to_bytes(8, "little") + text + body)


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a JSON object in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    replace(path, json.dumps(content))
