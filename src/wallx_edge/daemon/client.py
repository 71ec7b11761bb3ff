"""Client: one request to the daemon of a robot, one answer."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from wallx_edge.errors import DeviceError

__all__ = ["tell"]

MAX_ANSWER = 1 << 20  # [bytes]


def tell(path: Path, verb: str, text: str = "", timeout: float = 5.0) -> dict[str, Any]:
    """Sends a request and waits for its answer. Blocks.

    Args:
        path: of the daemon's socket.
        verb: as docs/daemon.md lists them.
        text: of the verb; empty: none.
        timeout: longest wait [s]

    Raises:
        DeviceError: nobody listens there, the answer does not come, or the daemon refuses.
    """
    request = {"verb": verb, **({"text": text} if text else {})}
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(timeout)
            line.connect(str(path))
            line.sendall(json.dumps(request).encode() + b"\n")
            while not answer.endswith(b"\n") and len(answer) < MAX_ANSWER:
                if not (part := line.recv(65536)):
                    break
                answer += part
    except TimeoutError as error:
        raise DeviceError(
            f"no answer from {path} within {timeout:g} s: the daemon is busy or stands; `wallx-edge estop` still works"
        ) from error
    except OSError as error:
        raise DeviceError(
            f"nobody answers on {path}: {error.strerror or error}; no daemon of this user's drives the robot"
        ) from error
    try:
        found: dict[str, Any] = json.loads(answer)
    except ValueError as error:
        raise DeviceError(f"the daemon on {path} broke off its answer: {answer[:80]!r}") from error
    if not found.pop("ok", False):
        raise DeviceError(f"{verb}: {found.get('error', 'refused')}")
    return found
