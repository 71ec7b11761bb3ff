"""Pictures: a picture file as 8-bit RGB, or a word about why not."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wallx_edge.errors import ConfigError

__all__ = ["read_picture"]

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # others start programs, or hardly anyone has them
_MODES = ("RGB", "RGBA", "L", "LA", "P", "1")  # those that become 8-bit RGB without loss


def read_picture(what: str, path: str) -> NDArray[np.uint8]:
    """A picture file as 8-bit RGB, uint8   (height, width, 3)

    Args:
        what: its name in messages.
        path: of the file.

    Raises:
        ConfigError: no such file, not a picture, or of a colour mode that would lose something.
    """
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            if picture.mode not in _MODES:
                raise ConfigError(f"{what}: {path} has the colour mode {picture.mode}, expected 8-bit RGB")
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError as error:
        raise ConfigError(f"{what}: no such file: {path}") from error
    except ConfigError:
        raise
    except Exception as error:  # each format's decoder raises what it likes
        raise ConfigError(f"{what}: {path} is not a picture: {error}") from error
