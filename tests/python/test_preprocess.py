"""Preprocessing equals the reference's pictures byte for byte, and refuses what the reference cannot see."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden import CASE1, manifest, tensors
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.preprocess import ImageProcessor, aspect_resize, resize_for_model, smart_resize

CAMERAS = manifest()["camera_order"]


@pytest.mark.parametrize("row", manifest()["smart_resize"]["rows"], ids=lambda r: f"{r['h']}x{r['w']}@{r['target']}")
def test_sizes_equal_the_reference(row: dict[str, Any]) -> None:
    stage1 = aspect_resize(row["h"], row["w"], row["target"])
    final = smart_resize(*stage1)
    assert list(stage1) == row["stage1"]
    assert list(final) == row["final"]
    assert final[0] * final[1] // 28**2 == row["tokens"]


@pytest.mark.parametrize("camera", CAMERAS)
def test_both_resizes_equal_the_reference_byte_for_byte(camera: str) -> None:
    resized = resize_for_model(tensors("inputs")[f"image.{camera}"], manifest()["resolution"][camera])
    np.testing.assert_array_equal(resized.stage1, tensors("expected")[f"pre.{camera}.stage1_u8"])
    np.testing.assert_array_equal(resized.final, tensors("expected")[f"pre.{camera}.final_u8"])


def test_patches_equal_the_reference() -> None:
    processor = ImageProcessor.load(CASE1)
    images = [tensors("inputs")[f"image.{camera}"] for camera in CAMERAS]
    pictures = processor.prepare(images, [manifest()["resolution"][camera] for camera in CAMERAS])
    expected = tensors("expected")["pre.pixel_values"]
    assert pictures.pixel_values.dtype == np.float32
    assert pictures.pixel_values.shape == expected.shape
    # the same float32 operations as the reference's: no tolerance
    np.testing.assert_array_equal(pictures.pixel_values, expected)
    np.testing.assert_array_equal(pictures.grids, tensors("expected")["pre.image_grid_thw"])
    assert pictures.counts == (24, 20, 20)


def test_patch_rows_stand_in_merge_order() -> None:
    # every patch has its own red: its place in the picture, 4 patches high and 6 wide
    image = np.zeros((56, 84, 3), np.uint8)
    image[..., 0] = np.kron(np.arange(24).reshape(4, 6), np.ones((14, 14), np.uint8))
    processor = ImageProcessor.load(CASE1)
    values, grid = processor.patches(image)
    red = values.reshape(24, 3, 2, 14, 14)[:, 0]
    assert grid.tolist() == [1, 4, 6]
    assert np.all(red == red[:, :1, :1, :1])
    np.testing.assert_array_equal(
        np.round((red[:, 0, 0, 0] * processor.image_std[0] + processor.image_mean[0]) * 255),
        [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, 12, 13, 18, 19, 14, 15, 20, 21, 16, 17, 22, 23],
    )


def test_a_square_takes_the_portrait_branch() -> None:
    assert aspect_resize(101, 101, 77) == (77, 77)
    assert aspect_resize(101, 100, 77) == (77, 76)
    assert aspect_resize(100, 101, 77) == (76, 77)


def test_large_pictures_shrink_into_the_bound() -> None:
    height, width = smart_resize(6000, 8000)
    assert height * width <= 16384 * 784
    assert (height % 28, width % 28) == (0, 0)
    assert (height, width) == (3080, 4116)


@pytest.mark.parametrize(
    ("shape", "target", "message"),
    [
        ((1, 201), -1, "aspect|times the other"),
        ((1, 300), 256, "short side vanishes"),
        ((300, 1), 256, "short side vanishes"),
        ((100, 100), 0, "camera resolution 0"),
        ((100, 100), -2, "camera resolution -2"),
        ((100, 100), 4097, "camera resolution 4097.*1 to 4096 px"),
        ((100, 100), 10**9, "camera resolution 1000000000"),
        ((100, 100), 25.5, r"camera resolution 25\.5"),
        ((100, 100), True, "camera resolution True"),
    ],
)
def test_impossible_sizes_are_refused(shape: tuple[int, int], target: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resize_for_model(np.zeros((*shape, 3), np.uint8), target)


def test_aspect_ratio_200_is_the_last_one_allowed() -> None:
    assert smart_resize(10, 2000) == (28, 1988)
    with pytest.raises(ConfigError, match=r"2001 x 10 pixels.*200\.1.*200 or less"):
        smart_resize(10, 2001)
    with pytest.raises(ConfigError, match="0 x 10"):
        smart_resize(10, 0)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10, 3), np.float32),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((3, 10, 10), np.uint8),
        np.zeros((10, 10), np.uint8),
        np.zeros((0, 10, 3), np.uint8),
        "picture.png",
    ],
)
def test_what_is_no_picture_is_refused(image: Any) -> None:
    with pytest.raises(ConfigError, match=r"picture: got .*, expected uint8 of shape \(height, width, 3\)"):
        resize_for_model(image, 256)


def test_a_picture_the_processor_would_resize_again_is_refused() -> None:
    processor = ImageProcessor.load(CASE1)
    with pytest.raises(ConfigError, match=r"57 x 56 pixels: the checkpoint's processor would make it 56 x 56"):
        processor.patches(np.zeros((56, 57, 3), np.uint8))


def test_a_processor_with_narrower_bounds_than_the_second_resize_is_refused(tmp_path: Path) -> None:
    processor = load_with(tmp_path, max_pixels=56 * 56)
    with pytest.raises(ConfigError, match=r"84 x 56 pixels.*56 x 28.*3136 pixels"):
        processor.patches(np.zeros((56, 84, 3), np.uint8))


def test_as_many_resolutions_as_pictures() -> None:
    processor = ImageProcessor.load(CASE1)
    with pytest.raises(ConfigError, match="0 pictures and 0 resolutions"):
        processor.prepare([], [])
    with pytest.raises(ConfigError, match="1 pictures and 2 resolutions"):
        processor.prepare([np.zeros((56, 56, 3), np.uint8)], [256, 256])


def test_bounds_may_stand_in_size(tmp_path: Path) -> None:
    config = json.loads((CASE1 / "preprocessor_config.json").read_text())
    config["size"] = {"shortest_edge": config.pop("min_pixels"), "longest_edge": config.pop("max_pixels")}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    assert ImageProcessor.load(tmp_path) == ImageProcessor.load(CASE1)


def test_keys_without_effect_are_reported() -> None:
    assert ImageProcessor.load(CASE1).ignored == ("do_convert_rgb", "image_processor_type")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 0}, "patch_size is 0"),
        ({"merge_size": None}, "merge_size is None"),
        ({"min_pixels": True}, "min_pixels is True"),
        ({"min_pixels": 99999999}, "min_pixels 99999999 is more than max_pixels"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is"),
        ({"image_std": [0.5, 0.5, 0]}, r"image_std\[2\] is 0, expected a finite number above 0"),
        ({"image_std": [0.5, float("nan"), 1]}, r"image_std\[1\] is nan"),
        ({"rescale_factor": "1/255"}, "rescale_factor is '1/255'"),
        ({"do_resize": False}, "do_resize is False, expected True"),
        ({"resample": 2}, "resample is 2, expected 3"),
    ],
)
def test_an_impossible_configuration_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_with(tmp_path, **change)


def test_a_missing_or_damaged_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: cannot be read: No such file"):
        ImageProcessor.load(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        ImageProcessor.load(tmp_path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="not JSON"):
        ImageProcessor.load(tmp_path)
    path.write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="not JSON"):
        ImageProcessor.load(tmp_path)
    path.write_text("[]")
    with pytest.raises(CheckpointError, match="expected an object, got list"):
        ImageProcessor.load(tmp_path)


def load_with(folder: Path, **change: object) -> ImageProcessor:
    """The golden case's processor with some values changed; None takes one out."""
    shutil.copy(CASE1 / "preprocessor_config.json", folder)
    path = folder / "preprocessor_config.json"
    path.chmod(0o644)
    config = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return ImageProcessor.load(folder)
