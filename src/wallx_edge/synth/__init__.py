"""Synth: a random checkpoint in a published layout for a robot's own joints, until there is a trained one."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wallx_edge.errors import ConfigError, WallxError
from wallx_edge.synth.files import write_files
from wallx_edge.synth.size import HORIZON, PADDED_WIDTH, SIZES, SPREAD, VARIANTS, Dtype, Size, Variant
from wallx_edge.synth.weights import action_head, blind_reading, fitted_reading, network
from wallx_edge.synth.writer import DTYPES, Normal, num_bytes, write_safetensors

__all__ = ["HORIZON", "SIZES", "SPREAD", "VARIANTS", "Dtype", "Size", "Variant", "synth", "write_safetensors"]

PART = ".part"  # folder inside of the new one, in which it is made
WEIGHTS = "model.safetensors"
BACK = "action_preprocessor.action_proj_back.weight"
RESERVE = 64 << 20  # left free on the disk [B]
WORKING_SET = 200 << 20  # in memory beside the weights that are not streamed [B]


def synth(
    size: str,
    out: str | Path,
    rest_pose: Mapping[str, float],
    statistics: str,
    *,
    seed: int = 0,
    dtype: Dtype | None = None,
    variant: Variant = "v1",
    on_bytes: Callable[[int, int], None] | None = None,
) -> None:
    """Writes a checkpoint folder with random weights. Blocks while it writes.

    The files are those of the variant's published checkpoint: statistics in the weights, for ``mot-0.5`` in
    norm_stats.json, and what that one keeps in config.yml there. They are made in a folder ``.part`` inside of ``out``
    and moved when all are there; after an error nothing of them stays.

    The action head is random but for this: the flow runs straight to a target that depends on pictures, text and
    state, so that the noise does not reach the chunk and neighbouring rows are close. For ``tiny``, ``small`` and
    ``medium`` the network is run, and the target is spread over what the generated scene shows. The larger sizes are as
    large as the published checkpoints, layer for layer (``wall-oss-mini``) or altogether (``wall-oss``), and written as
    they are drawn: with some pieces of the weights in memory, about 200 MB. The arm moves; it does no task.

    Args:
        size: of :data:`SIZES`.
        out: folder to make; must not exist or be empty.
        rest_pose: joint name -> rest position [rad], in the order of the robot's joints; becomes ``dof_config``.
        statistics: key of the normalizer's statistics, +-0.3 rad around the rest pose; ``mot-0.5``'s have no key.
        seed: of the weights.
        dtype: of the file; the size's own when not given.
        variant: of :data:`VARIANTS`; the one with adaptive norms is not published and not written.
        on_bytes: called with the bytes of the weights written so far and of all of them.

    Raises:
        ConfigError: an unknown size, dtype or variant, a seed below 0, no joint or too many for the size, a rest
            position that is not finite, no name for the statistics, a folder that is not empty or cannot be made, or
            too little room on its disk.
        WallxError: too little memory.
        OSError: the disk became full.
    """
    dims = _checked(size, dtype, rest_pose, statistics, seed, variant)
    dtype = dtype or dims.dtype
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(path.name != PART for path in folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not an empty folder; name another one or remove it")
    width, joints = dims.action_width(variant), len(rest_pose)
    columns = dims.num_columns(variant, joints)
    tensors: dict[str, NDArray[np.float32] | Normal] = dict(network(dims, joints, columns, variant))
    # the head, the statistics and the files besides are not counted: the reserve holds them
    total = num_bytes(tensors, dtype)
    _require_room(folder, total)
    _require_memory(0 if dims.is_streamed else 3 * num_bytes(tensors, "f32"))
    was_there = folder.exists()
    part = folder / PART
    try:
        # left behind by a process that was killed
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror or error}") from error
    try:
        slots = dict.fromkeys(rest_pose, 1)
        if columns > joints:
            slots["action_padding"] = columns - joints
        write_files(part, dims, slots, list(rest_pose.values()), variant)
        random = np.random.default_rng(seed)
        if not dims.is_streamed:
            # whole and in order, from one stream
            tensors = {name: t.draw(random) if isinstance(t, Normal) else t for name, t in tensors.items()}
        head = dict(action_head(width, joints, columns, random))
        tensors |= head
        if variant != "mot-0.5":
            tensors |= _statistics(list(rest_pose.values()), columns, statistics)
        if dims.is_streamed:
            tensors[BACK] = blind_reading(head, joints, columns, random)
        else:
            write_safetensors(part / WEIGHTS, tensors, dtype)
            tensors[BACK] = fitted_reading(part, width, joints, columns, random)
        total, done = num_bytes(tensors, dtype), 0

        def count(written: int) -> None:
            nonlocal done
            done += written
            if on_bytes:
                on_bytes(done, total)

        write_safetensors(part / WEIGHTS, tensors, dtype, seed=seed, on_bytes=count)
        # the weights last: a folder without them is no checkpoint
        for path in sorted(part.iterdir(), key=lambda path: path.name == WEIGHTS):
            path.rename(folder / path.name)
        part.rmdir()
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        for path in folder.iterdir():
            path.unlink()
        if not was_there:
            folder.rmdir()
        raise


def _checked(
    size: str, dtype: Dtype | None, rest_pose: Mapping[str, float], statistics: str, seed: int, variant: Variant
) -> Size:
    if size not in SIZES:
        raise ConfigError(f"unknown size {size!r}; there are: {', '.join(SIZES)}")
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; there are: {', '.join(DTYPES)}")
    if not rest_pose:
        raise ConfigError("no joint to make a checkpoint for")
    if variant not in VARIANTS:
        raise ConfigError(f"unknown variant {variant!r}; there are: {', '.join(VARIANTS)}")
    dims = SIZES[size]
    width = dims.action_width(variant)
    if width < 2 * len(rest_pose) + 8:
        raise ConfigError(f"{len(rest_pose)} joints are too many for a hidden size of {width} ({size}, {variant})")
    if variant == "mot-0.5" and len(rest_pose) >= PADDED_WIDTH:
        raise ConfigError(
            f"{len(rest_pose)} joints are too many for {variant}, whose vectors have {PADDED_WIDTH} columns"
        )
    for joint, position in rest_pose.items():
        if not np.isfinite(position):
            raise ConfigError(f"rest position of {joint} is {position}, expected a finite number [rad]")
    if not statistics:
        raise ConfigError("the statistics need a name, such as the robot's")
    if seed < 0:
        raise ConfigError(f"seed is {seed}, expected 0 or more")
    return dims


def _require_room(folder: Path, needed: int) -> None:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed + RESERVE > free:
        raise ConfigError(
            f"{folder}: {needed / 1e9:.2f} GB to write, {free / 1e9:.2f} GB free; choose a folder on another disk"
        )


def _require_memory(needed: int) -> None:
    available = _available_memory()
    if needed + WORKING_SET > available:
        raise WallxError(
            f"synth needs {(needed + WORKING_SET) / 1e9:.2f} GB of memory, {available / 1e9:.2f} GB are available; "
            "end other programs or choose a smaller size"
        )


def _available_memory() -> int:
    """What can be had without swapping [B]"""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")


def _statistics(middle: list[float], columns: int, name: str) -> dict[str, NDArray[np.float32]]:
    """Minimum and delta of each joint, and of padding 0 and 1, by the names that they have in the weights."""
    low, delta = np.zeros(columns, np.float32), np.ones(columns, np.float32)
    low[: len(middle)] = np.array(middle, np.float32) - np.float32(SPREAD)
    delta[: len(middle)] = 2 * SPREAD
    return {
        f"action_preprocessor.normalizer_{kind}.{key}.{name}": value
        for kind in ("action", "propri")
        for key, value in (("min", low), ("delta", delta))
    }
