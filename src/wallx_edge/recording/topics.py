"""Topics: the channels of a recording, their schemas, and the messages they carry."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wallx_edge import _core

if TYPE_CHECKING:
    from wallx_edge._core import LoopColumns

__all__ = [
    "CAMERA",
    "CHUNK",
    "DECISION",
    "FAULT",
    "LOOP",
    "OBSERVATION",
    "encode",
    "loop_messages",
    "nanoseconds",
    "picture",
    "schema",
]

LOOP, OBSERVATION, CHUNK, DECISION, FAULT = "/loop", "/observation", "/chunk", "/decision", "/fault"
CAMERA = "/camera/"  # and the role
JPEG_QUALITY = 85

_NUMBER, _TEXT, _INTEGER = {"type": "number"}, {"type": "string"}, {"type": "integer"}
_VECTOR = {"type": "array", "items": {"type": ["number", "null"]}}
_BITS = {"type": "array", "items": _INTEGER}
_TIME = {"type": "object", "properties": {"sec": _INTEGER, "nsec": _INTEGER}}

# topic -> name of the schema, properties; times are CLOCK_MONOTONIC [s]; a vector has an entry per joint, null: none
_SCHEMAS: dict[str, tuple[str, dict[str, Any]]] = {
    LOOP: (
        "wallx_edge.Tick",
        {
            "tick": _INTEGER,
            "time": {**_NUMBER, "description": "place of the tick on the grid [s]"},
            "lateness_us": {**_NUMBER, "description": "of the thread [us]"},
            "state": _TEXT,
            "reason": {**_TEXT, "description": "why it holds or faults"},
            "requests": {**_INTEGER, "description": "1 enable, 2 hold, 4 resume, 8 reset, 16 e-stop, 32 release"},
            "plan_sequence": {**_INTEGER, "description": "of the chunk in force, 0: none"},
            "row": {**_INTEGER, "description": "of the chunk, the last that was due, -1: none"},
            "read_code": {**_INTEGER, "description": "0: every joint answered"},
            "send_code": {**_INTEGER, "description": "0: sent"},
            "target": {**_VECTOR, "description": "the chunk's way [rad]"},
            "command": {"oneOf": [_VECTOR, {"type": "null"}], "description": "sent, after the limiter [rad]"},
            "measured": {**_VECTOR, "description": "[rad]"},
            "sample_age": {**_VECTOR, "description": "of the measurement [s]"},
            "torque_share": {**_VECTOR, "description": "torque limit in force [0..1]"},
            "reasons": {**_BITS, "description": "what the limiter did, bits"},
            "drive_error": {**_BITS, "description": "bits of the motor family"},
            "stage": {**_TEXT, "description": "of a hil run"},
        },
    ),
    OBSERVATION: (
        "wallx_edge.Observation",
        {
            "captured_at": {**_NUMBER, "description": "of the oldest thing in it [s]"},
            "instruction": _TEXT,
            "state": {**_VECTOR, "description": "in the model's order, SI"},
            "cameras": {"type": "array", "items": _TEXT, "description": "roles; pictures stand under /camera/<role>"},
        },
    ),
    CHUNK: (
        "wallx_edge.Chunk",
        {
            "sequence": {**_INTEGER, "description": "of the plan; 0: dropped"},
            "observed_at": {**_NUMBER, "description": "[s]"},
            "arrived_at": {**_NUMBER, "description": "handed to the loop [s]"},
            "start": {**_NUMBER, "description": "first row is due [s]"},
            "step": {**_NUMBER, "description": "between rows [s]"},
            "rows": {"type": "array", "items": _VECTOR, "description": "(rows, joints) [rad]"},
        },
    ),
    DECISION: ("wallx_edge.Decision", {"time": {**_NUMBER, "description": "[s]"}, "what": _TEXT}),
    FAULT: (
        "wallx_edge.Fault",
        {"time": {**_NUMBER, "description": "[s]"}, "message": _TEXT, "reason": _TEXT, "joint": _INTEGER},
    ),
    # the layout of foxglove.CompressedImage, which viewers show
    CAMERA: (
        "foxglove.CompressedImage",
        {
            "timestamp": _TIME,
            "frame_id": _TEXT,
            "format": _TEXT,
            "data": {"type": "string", "contentEncoding": "base64"},
        },
    ),
}


def schema(topic: str) -> tuple[str, str]:
    """Name and JSON Schema of a topic's messages."""
    name, properties = _SCHEMAS[CAMERA if topic.startswith(CAMERA) else topic]
    return name, json.dumps({"title": name, "type": "object", "properties": properties})


def nanoseconds(seconds: float) -> int:
    """A time as MCAP has it."""
    return max(0, round(seconds * 1e9))


def encode(content: dict[str, Any]) -> bytes:
    """JSON; numbers keep every bit.

    Raises:
        ValueError: a number that is not finite.
    """
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def picture(role: str, image: NDArray[np.uint8], captured_at: float) -> bytes:
    """A picture as JPEG.

    Args:
        role: of the camera.
        image: RGB   (height, width, 3)
        captured_at: [s]
    """
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY)
    seconds, rest = divmod(nanoseconds(captured_at), 10**9)
    return encode(
        {
            "timestamp": {"sec": seconds, "nsec": rest},
            "frame_id": role,
            "format": "jpeg",
            "data": base64.b64encode(file.getbuffer()).decode(),
        }
    )


_SCALARS = ("tick", "time", "lateness_us", "requests", "plan_sequence", "row", "read_code", "send_code")
_VECTORS = ("target", "command", "measured", "sample_age", "torque_share")


def loop_messages(columns: LoopColumns, stage: str = "") -> Iterator[tuple[int, bytes]]:
    """Log time and content of a message per record of the loop, oldest first.

    Args:
        columns: what the loop's ``drain`` gave.
        stage: of a hil run.
    """
    values: dict[str, Any] = {key: columns[key].tolist() for key in _SCALARS}  # type: ignore[literal-required]
    values |= {key: _vectors(columns[key]) for key in _VECTORS}  # type: ignore[literal-required]
    values |= {"reasons": columns["reasons"].tolist(), "drive_error": columns["drive_error"].tolist()}
    states, reasons, has_command = columns["state"], columns["reason"], columns["has_command"]
    for i in range(columns["tick"].size):
        record = {key: value[i] for key, value in values.items()}
        record["state"] = _core.LOOP_STATES[states[i]]
        record["reason"] = _core.LOOP_REASONS[reasons[i]]
        if not has_command[i]:
            record["command"] = None
        if stage:
            record["stage"] = stage
        yield nanoseconds(record["time"]), encode(record)


def _vectors(values: NDArray[Any]) -> Sequence[Sequence[float | None]]:
    """Rows as lists; what is not finite is None."""
    rows: list[list[float | None]] = values.tolist()
    for i, j in np.argwhere(~np.isfinite(values)):
        rows[i][j] = None
    return rows
