"""Preprocessing: camera pictures to the vision tower's rows, equal to the reference."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.types import check_image

__all__ = ["ImageProcessor", "Pictures", "Resized", "resize_for_model", "smart_resize"]

FACTOR = 28  # side of one language token: 14 pixels per patch, 2 x 2 patches merged   [pixels]
MIN_PIXELS = 4 * FACTOR * FACTOR  # bounds of the second resize, the reference's own
MAX_PIXELS = 16384 * FACTOR * FACTOR
MAX_ASPECT_RATIO = 200
MAX_RESOLUTION = 4096  # of the first resize, whose result is in memory before the second bounds its area  [pixels]

_FILE = "preprocessor_config.json"


class Resized(NamedTuple):
    """Both stages of the reference's resizing, uint8 RGB."""

    stage1: NDArray[np.uint8]  # aspect resize to the camera's resolution   (height1, width1, 3)
    final: NDArray[np.uint8]  # what the model sees, sides multiples of 28  (height, width, 3)


class Pictures(NamedTuple):
    """The vision tower's input for the pictures of one observation, in their order."""

    pixel_values: NDArray[np.float32]  # one row per patch, all pictures in a row   (sum of gh * gw, 1176)
    grids: NDArray[np.int64]  # patches (time, high, wide) of each picture          (pictures, 3)
    counts: tuple[int, ...]  # language tokens of each picture, gh * gw / 4         (pictures,)


def smart_resize(
    height: int, width: int, factor: int = FACTOR, min_pixels: int = MIN_PIXELS, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """The size that Qwen2.5-VL gives a picture: sides multiples of ``factor``, area within the bounds.

    Sides round half to even, as Python does; a picture outside the bounds keeps its aspect ratio.
    Source: ``smart_resize`` of qwen_vl_utils 0.0.11, as the reference calls it.

    Args:
        height: of the picture [pixels]
        width: of the picture [pixels]
        factor: side of one language token [pixels]
        min_pixels: smallest area [pixels]
        max_pixels: largest area [pixels]

    Returns:
        height and width [pixels]

    Raises:
        ConfigError: a side below 1, or one side more than 200 times the other.
    """
    if min(height, width) < 1:
        raise ConfigError(f"picture of {width} x {height} pixels: expected both sides to be 1 or more")
    if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise ConfigError(
            f"picture of {width} x {height} pixels: one side {max(height, width) / min(height, width):.1f} "
            f"times the other, expected {MAX_ASPECT_RATIO} or less; crop it before the model sees it"
        )
    new_height = max(factor, round(height / factor) * factor)
    new_width = max(factor, round(width / factor) * factor)
    if new_height * new_width > max_pixels:
        beta = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / beta / factor) * factor)
        new_width = max(factor, math.floor(width / beta / factor) * factor)
    elif new_height * new_width < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * beta / factor) * factor
        new_width = math.ceil(width * beta / factor) * factor
    return new_height, new_width


def aspect_resize(height: int, width: int, target: int) -> tuple[int, int]:
    """The size after the first resize: the long side becomes ``target``, the short one is truncated.

    A quirk of the reference kept here: a square takes the portrait branch. Golden case: ``pre.*.stage1_u8``.

    Args:
        height: of the picture [pixels]
        width: of the picture [pixels]
        target: long side [pixels], or -1 for no resize.

    Returns:
        height and width [pixels]

    Raises:
        ConfigError: a target that is neither -1 nor 1 to 4096, or a short side that would vanish.
    """
    if target == -1:
        return height, width
    if isinstance(target, bool) or not isinstance(target, int) or not 1 <= target <= MAX_RESOLUTION:
        raise ConfigError(
            f"camera resolution {target!r}: expected the long side, 1 to {MAX_RESOLUTION} px, or -1 for no resize"
        )
    if width > height:
        size = (int(target * height / width), target)
    else:
        size = (target, int(target * width / height))
    if min(size) < 1:
        raise ConfigError(
            f"picture of {width} x {height} pixels: its short side vanishes at resolution {target}; "
            "crop it before the model sees it"
        )
    return size


def resize_for_model(
    image: NDArray[np.uint8],
    target: int,
    *,
    factor: int = FACTOR,
    min_pixels: int = MIN_PIXELS,
    max_pixels: int = MAX_PIXELS,
) -> Resized:
    """The reference's two bicubic resizes, both done by Pillow.

    Args:
        image: uint8 RGB   (height, width, 3)
        target: long side after the first resize [pixels], or -1 for no first resize.
        factor: of :func:`smart_resize`, the second resize.
        min_pixels: of :func:`smart_resize`.
        max_pixels: of :func:`smart_resize`.

    Returns:
        both stages.

    Raises:
        ConfigError: not a picture, or a size that the model cannot take.
    """
    check_image(image, "picture")
    first = aspect_resize(image.shape[0], image.shape[1], target)
    final = smart_resize(*first, factor, min_pixels, max_pixels)
    # pillow's own bicubic with its antialiasing and fixed-point rounding is what the model was trained on
    picture = Image.fromarray(image).resize((first[1], first[0]), Image.Resampling.BICUBIC)
    stage1 = np.asarray(picture)
    return Resized(stage1, np.asarray(picture.resize((final[1], final[0]), Image.Resampling.BICUBIC)))


@dataclass(frozen=True)
class ImageProcessor:
    """What ``preprocessor_config.json`` says: scaling, mean and deviation, patch sizes, area bounds.

    Attributes:
        patch_size: side of a patch [pixels]
        merge_size: patches merged into one language token, per side.
        temporal_patch_size: frames per patch; a still picture is repeated.
        min_pixels: smallest area that the processor leaves as it is [pixels]
        max_pixels: largest area that the processor leaves as it is [pixels]
        rescale_factor: multiplies the bytes.
        image_mean: subtracted after that, RGB.
        image_std: divides after that, RGB.
        ignored: keys of the file that have no effect here, to be reported.
    """

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    min_pixels: int
    max_pixels: int
    rescale_factor: float
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    ignored: tuple[str, ...] = ()

    @classmethod
    def load(cls, folder: str | Path) -> ImageProcessor:
        """Reads ``preprocessor_config.json`` of a checkpoint.

        Args:
            folder: the checkpoint's.

        Raises:
            CheckpointError: no such file, not JSON, a value missing or impossible, or a step switched
                off that the published checkpoints have.
        """
        path = Path(folder) / _FILE
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: not JSON: {error}") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{path}: expected an object, got {type(config).__name__}")
        return cls._from_config(config, path)

    @classmethod
    def _from_config(cls, config: dict[str, Any], path: Path) -> ImageProcessor:
        config = dict(config)
        for key, expected in (
            ("do_resize", True),
            ("do_rescale", True),
            ("do_normalize", True),
            ("resample", 3),
        ):
            got = config.pop(key, expected)
            if got != expected:
                raise CheckpointError(f"{path}: {key} is {got!r}, expected {expected!r}; nothing else is supported")
        # newer writers put the bounds into "size"
        size = config.pop("size", None)
        if isinstance(size, dict):
            config.setdefault("min_pixels", size.get("shortest_edge", size.get("min_pixels")))
            config.setdefault("max_pixels", size.get("longest_edge", size.get("max_pixels")))

        def whole(key: str) -> int:
            value = config.pop(key, None)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise CheckpointError(f"{path}: {key} is {value!r}, expected a whole number, 1 or more")
            return value

        def number(value: object, key: str, *, positive: bool) -> float:
            ok = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not ok or (positive and float(value) <= 0):  # type: ignore[arg-type]
                raise CheckpointError(
                    f"{path}: {key} is {value!r}, expected a finite number{' above 0' if positive else ''}"
                )
            return float(value)  # type: ignore[arg-type]

        def rgb(key: str, *, positive: bool) -> tuple[float, float, float]:
            value = config.pop(key, None)
            if not isinstance(value, list) or len(value) != 3:
                raise CheckpointError(f"{path}: {key} is {value!r}, expected three numbers, RGB")
            red, green, blue = (number(v, f"{key}[{i}]", positive=positive) for i, v in enumerate(value))
            return red, green, blue

        processor = cls(
            patch_size=whole("patch_size"),
            merge_size=whole("merge_size"),
            temporal_patch_size=whole("temporal_patch_size"),
            min_pixels=whole("min_pixels"),
            max_pixels=whole("max_pixels"),
            rescale_factor=number(config.pop("rescale_factor", 1 / 255), "rescale_factor", positive=True),
            image_mean=rgb("image_mean", positive=False),
            image_std=rgb("image_std", positive=True),
            ignored=tuple(sorted(config)),
        )
        if processor.min_pixels > processor.max_pixels:
            raise CheckpointError(
                f"{path}: min_pixels {processor.min_pixels} is more than max_pixels {processor.max_pixels}"
            )
        return processor

    @property
    def factor(self) -> int:
        """Side of one language token [pixels]."""
        return self.patch_size * self.merge_size

    def patches(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """One resized picture as the vision tower's rows.

        The rows stand in merge order (gh/2, gw/2, 2, 2); each row is (RGB, time, 14, 14) flattened, the
        picture being repeated over time. Golden case: ``pre.pixel_values``.

        Args:
            image: the final stage of :func:`resize_for_model`, uint8   (height, width, 3)

        Returns:
            pixel values, float32 (gh * gw, 1176), and the grid (1, gh, gw), int64 (3,)

        Raises:
            ConfigError: not a picture, or of a size that the processor would resize once more.
        """
        check_image(image, "resized picture")
        height, width = image.shape[:2]
        expected = smart_resize(height, width, self.factor, self.min_pixels, self.max_pixels)
        if (height, width) != expected:
            raise ConfigError(
                f"resized picture of {width} x {height} pixels: the checkpoint's processor would make it "
                f"{expected[1]} x {expected[0]} (sides in steps of {self.factor}, {self.min_pixels} to "
                f"{self.max_pixels} pixels); change the camera's resolution or {_FILE}"
            )
        patch, merge = self.patch_size, self.merge_size
        high, wide = height // patch, width // patch
        values = np.stack([self._table[c][image[..., c]] for c in range(3)])
        blocks = values.reshape(3, high // merge, merge, patch, wide // merge, merge, patch)
        rows = blocks.transpose(1, 4, 2, 5, 0, 3, 6)[:, :, :, :, :, np.newaxis]
        still = np.repeat(rows, self.temporal_patch_size, axis=5)
        return still.reshape(high * wide, -1), np.array([1, high, wide], np.int64)

    def num_tokens(self, grid: NDArray[np.int64]) -> int:
        """Language tokens of a picture: gh * gw / 4.

        Args:
            grid: of :meth:`patches`   (3,)
        """
        return int(np.prod(grid)) // self.merge_size**2

    def prepare(
        self,
        images: Sequence[NDArray[np.uint8]],
        targets: Sequence[int],
        *,
        min_pixels: int = MIN_PIXELS,
        max_pixels: int = MAX_PIXELS,
    ) -> Pictures:
        """All pictures of one observation, in the model's camera order: both resizes and the patches.

        Args:
            images: uint8 RGB, each   (height, width, 3)
            targets: long side of each after the first resize [pixels], or -1.
            min_pixels: of :func:`smart_resize`.
            max_pixels: of :func:`smart_resize`.

        Raises:
            ConfigError: no picture, not a picture, or a size that the model cannot take.
        """
        if not images or len(images) != len(targets):
            raise ConfigError(f"got {len(images)} pictures and {len(targets)} resolutions, expected as many, 1 or more")
        each = [
            self.patches(
                resize_for_model(image, target, factor=self.factor, min_pixels=min_pixels, max_pixels=max_pixels).final
            )
            for image, target in zip(images, targets, strict=True)
        ]
        return Pictures(
            pixel_values=np.concatenate([values for values, _ in each]),
            grids=np.stack([grid for _, grid in each]),
            counts=tuple(self.num_tokens(grid) for _, grid in each),
        )

    @property
    def _table(self) -> NDArray[np.float32]:
        # a byte has 256 values: the reference's arithmetic once per value, float64 then float32  (3, 256)
        scaled = (np.arange(256, dtype=np.float64) * self.rescale_factor).astype(np.float32)
        mean = np.array(self.image_mean, np.float32)[:, np.newaxis]
        std = np.array(self.image_std, np.float32)[:, np.newaxis]
        return np.asarray((scaled - mean) / std, np.float32)
