"""Video: frames to an mp4 file."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge.errors import ConfigError
from wallx_edge.extras import require

__all__ = ["Video", "encoder"]

# what each FFmpeg build may have, the one that every player knows first
ENCODERS = ("libx264", "libopenh264", "mpeg4")


def encoder() -> str:
    """The one that videos are written with.

    Raises:
        ConfigError: PyAV is not installed, or has none of :data:`ENCODERS`.
    """
    av = require("av", "video", "a video")
    found = next((name for name in ENCODERS if name in av.codecs_available), "")
    if not found:
        raise ConfigError(f"this PyAV can write none of {', '.join(ENCODERS)}; reinstall wallx-edge[video]")
    return found


class Video:
    """Writes one file; a context manager that completes it."""

    def __init__(self, path: Path, fps: int, keyframe_every: int = 0) -> None:
        """Opens nothing before the first frame.

        Args:
            path: of the mp4; replaced.
            fps: frames a second.
            keyframe_every: frames from which decoding can begin; 0: as the encoder likes.

        Raises:
            ConfigError: PyAV is not installed, or has no encoder of :data:`ENCODERS`.
        """
        self._encoder = encoder()
        self._av = require("av", "video", "a video")
        self._path, self._fps, self._keyframe_every = path, fps, keyframe_every
        self._container: Any = None
        self._stream: Any = None
        self.num_frames = 0

    def add(self, image: NDArray[np.uint8]) -> None:
        """One more frame: RGB, the same even size for all   (height, width, 3)

        Raises:
            OSError: the file cannot be written.
        """
        if self._container is None:
            self._container = self._av.open(str(self._path), "w", format="mp4")
            self._stream = self._container.add_stream(self._encoder, rate=Fraction(self._fps))
            self._stream.height, self._stream.width = image.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            if self._keyframe_every:
                self._stream.codec_context.gop_size = self._keyframe_every
            if self._encoder == "libx264":
                self._stream.options = {"crf": "21", "preset": "veryfast"}
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts = self.num_frames
        frame.time_base = Fraction(1, self._fps)
        self._container.mux(self._stream.encode(frame))
        self.num_frames += 1

    def close(self) -> None:
        """Completes the file; may be called again."""
        if self._container is None:
            return
        self._container.mux(self._stream.encode())
        self._container.close()
        self._container = None

    def __enter__(self) -> Video:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Completes the file."""
        self.close()
