"""Train config: what a checkpoint's config.yml says about how it is to be asked."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from wallx_edge._core import Engine, Quantizer
from wallx_edge.errors import CheckpointError

__all__ = ["PADDING", "TrainConfig", "load_engine", "open_quantizer"]

_FILES = ("config.yml", "config.yaml")
MAX_BYTES = 1024 * 1024
PADDING = "action_padding"  # the slot that fills a layout up to the pre-trained width

# key -> where it may stand, the place that counts first; "" is the top. The reference's own order.
_TASK, _DATA, _TOP = "task", "data", ""
_PLACES: dict[str, tuple[str, ...]] = {
    "dof_config": (_TASK, _TOP, _DATA),
    "agent_pos_config": (_TASK, _TOP, _DATA),
    "action_horizon_flow": (_TASK, _TOP, _DATA),
    "action_horizon": (_TASK, _TOP, _DATA),
    "noise_scheduler": (_TASK, _TOP, _DATA),
    "use_state_string_representation": (_TASK, _TOP, _DATA),
    "state_bins": (_TOP, _DATA),
    "max_length": (_TOP, _DATA, "_raw_data"),
    "resolution": (_DATA, _TOP),
    "min_pixels": (_DATA, _TOP),
    "max_pixels": (_DATA, _TOP),
    "image_factor": (_DATA, _TOP),
    "camera_name_mapping": (_DATA, _TOP),
    "key_mappings": (_DATA,),
    "use_embodied_system_prompt_ratio": (_DATA,),
    "use_relative_action": (_DATA, _TOP),
    "predict_action_keys": (_DATA, _TOP),
}
_SECTIONS = (_TASK, _DATA, "_raw_data")


# lists that refer to each other have no end when they are written out
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2


class _Loader(yaml.SafeLoader):
    """The safe loader, which makes plain values only, and tuples as the reference's writer marks them."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuses merged mappings: a few lines of them can ask for more keys than there is memory."""
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "merged mappings (<<) are not read", key.start_mark)


def _tuple(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> list[Any]:
    return list(loader.construct_sequence(node))


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


@dataclass(frozen=True)
class TrainConfig:
    """The part of config.yml that inference needs. ``None``: the file does not say.

    Attributes:
        path: of the file; ``None`` where the checkpoint has none.
        dof: slots of the action vector, name -> columns; ``action_padding`` is moved to the end, as the reference does.
        agent_pos: slots of the state vector, likewise.
        horizon: rows of a chunk.
        time_scale: the flow's last time point.
        is_state_text: whether the state is text in the prompt.
        state_bins: into how many bins the range [-1, 1] of a state's text is cut.
        max_length: tokens of a prompt and its actions.
        resolution: camera role -> long side of a picture after the first resize [px], -1: as it is.
        min_pixels: smallest area after the second resize [px].
        max_pixels: largest area after the second resize [px].
        image_factor: the second resize makes sides multiples of this [px].
        camera_labels: camera role -> what the prompt calls it.
        cameras: roles in the model's order.
        has_embodied_prologue: whether the prompt begins with the robot's description.
        is_relative: whether the training data were made relative to the state.
        predicted: names of the slots that the model was trained to predict.
        ignored: keys of the file that have no effect here, to be reported.
    """

    path: Path | None = None
    dof: Mapping[str, int] | None = None
    agent_pos: Mapping[str, int] | None = None
    horizon: int | None = None
    time_scale: float | None = None
    is_state_text: bool | None = None
    state_bins: int | None = None
    max_length: int | None = None
    resolution: Mapping[str, int] | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    image_factor: int | None = None
    camera_labels: Mapping[str, str] | None = None
    cameras: tuple[str, ...] | None = None
    has_embodied_prologue: bool = False
    is_relative: bool | None = None
    predicted: tuple[str, ...] | None = None
    ignored: tuple[str, ...] = ()

    @classmethod
    def load(cls, directory: str | Path) -> TrainConfig:
        """Reads ``config.yml`` or ``config.yaml`` of a checkpoint; one without either says nothing. Blocks.

        Nothing in the file is executed: it may hold numbers, texts, lists and mappings only.

        Args:
            directory: the checkpoint's.

        Raises:
            CheckpointError: not YAML, larger than 1 MiB, something other than plain values, or a value that is
                impossible; the message names the key.
        """
        for name in _FILES:
            path = Path(directory) / name
            if os.path.lexists(path):  # a link to nowhere is a damaged checkpoint, not one without the file
                return cls._from(_Values(path, _read(path)))
        return cls()

    @classmethod
    def _from(cls, values: _Values) -> TrainConfig:
        horizon = values.whole("action_horizon_flow", 1)
        scheduler = values.mapping("noise_scheduler")
        cameras = values.inner("key_mappings", "camera")
        ratio = values.number(values.get("use_embodied_system_prompt_ratio"), "use_embodied_system_prompt_ratio")
        return cls(
            path=values.path,
            dof=values.slots("dof_config"),
            agent_pos=values.slots("agent_pos_config"),
            horizon=values.whole("action_horizon", 1) if horizon is None else horizon,
            time_scale=None if scheduler is None else values.number(scheduler.get("s"), "noise_scheduler.s"),
            is_state_text=values.flag("use_state_string_representation"),
            state_bins=values.whole("state_bins", 2),
            max_length=values.whole("max_length", 1),
            resolution=values.resolution(),
            min_pixels=values.whole("min_pixels", 1),
            max_pixels=values.whole("max_pixels", 1),
            image_factor=values.whole("image_factor", 1),
            camera_labels=values.texts(values.mapping("camera_name_mapping"), "camera_name_mapping"),
            # two cameras of a data set may stand for one of the model's
            cameras=None if cameras is None else tuple(dict.fromkeys(cameras.values())) or None,
            has_embodied_prologue=ratio is not None and ratio > 0,
            is_relative=values.flag("use_relative_action"),
            predicted=values.names("predict_action_keys"),
            ignored=values.ignored(),
        )

    def as_json(self) -> dict[str, Any]:
        """What the file says, for ``inspect``."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        said["path"] = None if self.path is None else self.path.name
        return {key: dict(v) if isinstance(v, Mapping) else v for key, v in said.items() if v is not None}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path}: {path.stat().st_size} bytes, expected {MAX_BYTES} at most")
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise CheckpointError(f"{path}: not YAML of plain values: {text or type(error).__name__:.300}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a mapping of keys, got {type(content).__name__}")
    return content


def load_engine(
    directory: str | Path, precision: str = "", threads: int = 0, cores: Sequence[int] = (), kernels: str = ""
) -> Engine:
    """Loads a checkpoint's weights, with what its config.yml says of the network. Blocks while it reads and packs.

    wall-oss-0.5 has the slots of its vectors, and how it is told the state, in config.yml; config.yml wins.

    Args:
        directory: with config.json, model*.safetensors and, where the checkpoint has one, config.yml.
        precision: of :func:`wallx_edge._core.precisions`; when empty as the folder is packed, else fp32.
        threads: that compute, the calling one included; 0: one for each core that this process may use.
        cores: that the others are pinned to, in turn; none: not pinned.
        kernels: of :func:`wallx_edge._core.kernels`; when empty the fastest.

    Raises:
        CheckpointError: something is missing, damaged, surplus, or of a variant that does not run.
        ConfigError: an unknown precision, or not the one that the folder is packed in; no such threads, cores, kernels.
    """
    train = TrainConfig.load(directory)
    dof, agent_pos = (list((slots or {}).items()) for slots in (train.dof, train.agent_pos))
    return Engine.load(str(directory), dof, agent_pos, train.is_state_text, precision, threads, list(cores), kernels)


def open_quantizer(directory: str | Path, precision: str, wide: Sequence[str] = ()) -> Quantizer:
    """What a checkpoint becomes in a precision, of which only headers are read.

    Args:
        directory: as for :func:`load_engine`.
        precision: of :func:`wallx_edge._core.precisions`.
        wide: patterns, as of a shell, of layers that stay bf16.

    Raises:
        CheckpointError: something is missing, damaged, surplus, or packed already.
    """
    train = TrainConfig.load(directory)
    dof, agent_pos = (list((slots or {}).items()) for slots in (train.dof, train.agent_pos))
    return Quantizer(str(directory), dof, agent_pos, train.is_state_text, precision, list(wide))


class _Values:
    """The file's content, and messages that point at a key."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path = path
        self._top = content

    def _fail(self, key: str, value: object, expected: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {key} is {_SHORT.repr(value):.80}, expected {expected}")

    def _section(self, name: str) -> Mapping[str, Any]:
        section = self._top.get(name) if name else self._top
        if section is None:
            return {}
        if not isinstance(section, dict):
            raise self._fail(name, section, "a mapping of keys")
        return section

    def get(self, key: str) -> Any:
        """The value that counts, or ``None``."""
        for place in _PLACES[key]:
            value = self._section(place).get(key)
            if value is not None:
                return value
        return None

    def whole(self, key: str, low: int) -> int | None:
        value = self.get(key)
        if value is not None and (type(value) is not int or not low <= value < 2**31):
            raise self._fail(key, value, f"a whole number, {low} or more")
        return value

    def flag(self, key: str) -> bool | None:
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._fail(key, value, "true or false")
        return value

    def number(self, value: Any, key: str) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
            raise self._fail(key, value, "a number, 0 or more")
        return float(value)

    def mapping(self, key: str) -> Mapping[str, Any] | None:
        value = self.get(key)
        if value is not None and (not isinstance(value, dict) or not all(isinstance(k, str) for k in value)):
            raise self._fail(key, value, "a mapping of names")
        return value

    def texts(self, value: Mapping[str, Any] | None, key: str) -> Mapping[str, str] | None:
        if value is not None and not all(isinstance(text, str) and text for text in value.values()):
            raise self._fail(key, value, "a text for each name")
        return value

    def inner(self, key: str, part: str) -> Mapping[str, str] | None:
        outer = self.mapping(key)
        value = None if outer is None else outer.get(part)
        if value is not None and not isinstance(value, dict):
            raise self._fail(f"{key}.{part}", value, "a mapping of names")
        return self.texts(value, f"{key}.{part}")

    def names(self, key: str) -> tuple[str, ...] | None:
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(v, str) for v in value):
            raise self._fail(key, value, "a list of names")
        return tuple(value)

    def slots(self, key: str) -> Mapping[str, int] | None:
        value = self.mapping(key)
        if value is None:
            return None
        for name, width in value.items():
            if type(width) is not int or not 1 <= width <= 4096:
                raise self._fail(f"{key}.{name}", width, "a number of columns, 1 or more")
        if not value:
            raise self._fail(key, value, "slot names with their widths")
        return dict(sorted(value.items(), key=lambda item: item[0] == PADDING))

    def resolution(self) -> Mapping[str, int] | None:
        value = self.mapping("resolution")
        for role, side in (value or {}).items():
            if type(side) is not int or not (side == -1 or 1 <= side <= 4096):
                raise self._fail(f"resolution.{role}", side, "the long side, 1 to 4096 px, or -1 for no resize")
        return value or None

    def ignored(self) -> tuple[str, ...]:
        """Keys that nothing above reads, by section."""
        found = []
        for section in ("", *_SECTIONS):
            for key in self._section(section):
                if section == "" and key in _SECTIONS:
                    continue
                if section not in _PLACES.get(key, ()):
                    found.append(f"{section}.{key}" if section else str(key))
        return tuple(sorted(found))
