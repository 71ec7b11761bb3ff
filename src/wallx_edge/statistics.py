"""Statistics: finds a checkpoint's training statistics in its files, and one robot's among them."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge._core import Engine
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.normalizer import Kind, Normalizer
from wallx_edge.torch_file import read_torch_tensors

__all__ = ["NORM_STATS", "Source", "Statistics", "inside", "sources"]

NORM_STATS = "norm_stats"  # the name of the one set in norm_stats.json, which has none in the file
_FILE = "norm_stats.json"
_TORCH_FILES: dict[Kind, str] = {"action": "normalizer_action.pth", "propri": "normalizer_propri.pth"}
_JSON_KEYS: dict[Kind, str] = {"action": "action", "propri": "observation.state"}
_KINDS: tuple[Kind, Kind] = ("action", "propri")

Pair = tuple[NDArray[Any], NDArray[Any]]  # minimum and delta, SI   (columns,) each


@dataclass(frozen=True)
class Source:
    """One place of a checkpoint that holds statistics.

    Attributes:
        name: file or files.
        pairs: kind -> name of a set -> minimum and delta, SI, as many columns as the place has.
        can_be_filled_up: whether fewer columns than the model's are in order.
    """

    name: str
    pairs: Mapping[Kind, Mapping[str, Pair]]
    can_be_filled_up: bool = True

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the sets that it has for action and state, sorted."""
        return tuple(sorted(set(self.pairs["action"]) & set(self.pairs["propri"])))

    def normalizer(self, kind: Kind, key: str, width: int) -> Normalizer:
        """One set, filled up at its end to the model's width with minimum 0 and delta 1, as the reference does.

        Raises:
            CheckpointError: another number of columns, or numbers that are no statistics.
        """
        normalizer = Normalizer(*self.pairs[kind][key], f"{kind}.{key} ({self.name})")
        if normalizer.width > width or (normalizer.width < width and not self.can_be_filled_up):
            raise CheckpointError(
                f"normalizer {normalizer.name} has {normalizer.width} columns, the model's vector has {width}"
            )
        return normalizer.filled_up(width)

    def differs(self, key: str, action: Normalizer, state: Normalizer) -> bool:
        """Whether the place holds this set, or one only, with other numbers."""
        name = key if key in self.keys else self.keys[0] if len(self.keys) == 1 else None
        if name is None:
            return False
        try:
            mine = self.normalizer("action", name, action.width), self.normalizer("propri", name, state.width)
        except CheckpointError:  # left over from another model: whoever chooses it is told why it does not fit
            return True
        return not (action.equals(mine[0]) and state.equals(mine[1]))


@dataclass(frozen=True)
class Statistics:
    """The statistics of one robot.

    Attributes:
        action: SI <-> what the model says.
        state: SI <-> what the model is told.
        name: the matched set.
        source: file or files it is from.
        num_action_columns: columns that were there; the rest of ``action`` is filled up.
        num_state_columns: likewise of ``state``.
        differing: other places of the checkpoint that hold this set, or one only, with other numbers; to be reported.
    """

    action: Normalizer
    state: Normalizer
    name: str
    source: str
    num_action_columns: int
    num_state_columns: int
    differing: tuple[str, ...] = ()

    @classmethod
    def of(cls, engine: Engine, directory: str | Path, key: str | None) -> Statistics:
        """:meth:`load` for a checkpoint whose weights are mapped."""
        return cls.load(directory, inside(engine), key, engine.config.action_dim, engine.config.state_dim)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        tensors: Mapping[str, NDArray[Any]],
        key: str | None,
        action_width: int,
        state_width: int,
    ) -> Statistics:
        """Chooses among everything a checkpoint holds. Blocks while it reads.

        Without ``key`` the first source counts, in the reference's order (see :func:`sources`), and it must hold one
        set only. With ``key`` the first source counts that has a set of that name or, failing that, exactly one whose
        name begins with ``key`` and an underscore. A name that nobody has is an error: the reference then takes
        whatever single set there is, which may be another robot's.

        Args:
            directory: the checkpoint's.
            tensors: the checkpoint's ``action_preprocessor.normalizer_*`` tensors by name.
            key: name of a set, such as ``x2_normal``; ``None``: the only one.
            action_width: columns of the model's action vector.
            state_width: columns of the model's state vector.

        Raises:
            ConfigError: no such set, or several and no key; the message lists them.
            CheckpointError: a file is damaged, incomplete, or does not fit the model.
        """
        found = sources(directory, tensors)
        if not found:
            raise ConfigError(
                f"{directory}: the checkpoint has statistics for no robot: no {_FILE}, no "
                f"{' and '.join(_TORCH_FILES.values())}, no normalizer tensors"
            )
        source, name = _choose(Path(directory), found, key)
        action = source.normalizer("action", name, action_width)
        state = source.normalizer("propri", name, state_width)
        counts = [source.pairs[kind][name][0].size for kind in _KINDS]
        differing = tuple(other.name for other in found if other.differs(name, action, state))
        return cls(action, state, name, source.name, counts[0], counts[1], differing)


def inside(engine: Engine) -> dict[str, NDArray[Any]]:
    """The statistics among a checkpoint's tensors, by their full names."""
    names = [name for name in engine.tensor_names if name.startswith("action_preprocessor.normalizer_")]
    return {name: engine.tensor(name) for name in names}


def sources(directory: str | Path, tensors: Mapping[str, NDArray[Any]]) -> tuple[Source, ...]:
    """Every place of a checkpoint that holds statistics, the one that counts first.

    1. ``norm_stats.json``: 1 % and 99 % quantiles of one data set; minimum = q01, delta = q99 - q01.
    2. ``normalizer_action.pth`` and ``normalizer_propri.pth``: minimum and delta per robot.
    3. ``action_preprocessor.normalizer_*`` tensors in the weights: minimum and delta per robot.

    Args:
        directory: the checkpoint's.
        tensors: the checkpoint's tensors of the third place.

    Raises:
        CheckpointError: a file is damaged or incomplete, or one of the two ``.pth`` files is missing.
    """
    directory = Path(directory)
    found = []
    # a link to nowhere is a damaged checkpoint, not one without the file
    if os.path.lexists(directory / _FILE):
        found.append(_read_json(directory / _FILE))
    if any(os.path.lexists(directory / name) for name in _TORCH_FILES.values()):
        found.append(
            Source(
                ", ".join(_TORCH_FILES.values()),
                {
                    kind: _pairs(read_torch_tensors(directory / name), str(directory / name))
                    for kind, name in _TORCH_FILES.items()
                },
            )
        )
    in_weights = {
        kind: _pairs(
            {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}, prefix
        )
        for kind in _KINDS
        for prefix in (f"action_preprocessor.normalizer_{kind}.",)
    }
    if any(in_weights.values()):
        found.append(Source("the weights", in_weights, can_be_filled_up=False))
    for source in found:
        if not source.keys:
            raise CheckpointError(
                f"{directory}: {source.name}: no robot has statistics for both action "
                f"({', '.join(sorted(source.pairs['action'])) or 'none'}) and state "
                f"({', '.join(sorted(source.pairs['propri'])) or 'none'})"
            )
    return tuple(found)


def _choose(directory: Path, found: tuple[Source, ...], key: str | None) -> tuple[Source, str]:
    if key is None:
        if len(found[0].keys) != 1:
            raise ConfigError(
                f"{directory}: the checkpoint has statistics for {', '.join(found[0].keys)} ({found[0].name}); "
                "name one as policy.statistics"
            )
        return found[0], found[0].keys[0]
    for source in found:
        if key in source.keys:
            return source, key
    for source in found:
        matches = [k for k in source.keys if k.startswith(f"{key}_")]
        if len(matches) == 1:
            return source, matches[0]
        if matches:
            raise ConfigError(
                f"policy.statistics is {key!r}, which {', '.join(matches)} begin with ({source.name} in {directory}); "
                "write the whole name"
            )
    available = "; ".join(f"{source.name}: {', '.join(source.keys)}" for source in found)
    raise ConfigError(f"no statistics for robot {key!r} in the checkpoint {directory}; it has {available}")


def _pairs(tensors: Mapping[str, NDArray[Any]], where: str) -> dict[str, Pair]:
    """``min.KEY`` and ``delta.KEY`` by KEY; other names mean nothing here, as in the reference."""
    halves: dict[str, dict[str, NDArray[Any]]] = {"min": {}, "delta": {}}
    for name, value in tensors.items():
        half, _, key = name.partition(".")
        if half in halves and key:
            halves[half][key] = value
    for half, other in (("min", "delta"), ("delta", "min")):
        alone = sorted(halves[half].keys() - halves[other].keys())
        if alone:
            raise CheckpointError(f"{where}: tensor {other}.{alone[0]} is missing, its other half is there")
    return {key: (halves["min"][key], halves["delta"][key]) for key in halves["min"]}


def _read_json(path: Path) -> Source:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    sets = content.get("norm_stats") if isinstance(content, dict) else None
    if not isinstance(sets, dict):
        raise CheckpointError(f"{path}: norm_stats is missing, expected an object with action and observation.state")
    pairs: dict[Kind, dict[str, Pair]] = {}
    for kind, key in _JSON_KEYS.items():
        entry = sets.get(key)
        if not isinstance(entry, dict):
            raise CheckpointError(f"{path}: norm_stats.{key} is missing, expected q01 and q99")
        low, high = (_row(entry.get(q), f"{path}: norm_stats.{key}.{q}") for q in ("q01", "q99"))
        if low.shape != high.shape:
            raise CheckpointError(f"{path}: norm_stats.{key}: q01 has shape {low.shape}, q99 {high.shape}")
        # the difference of two float32 numbers, as the reference subtracts them
        with np.errstate(all="ignore"):  # whoever uses it refuses what is not finite
            pairs[kind] = {NORM_STATS: (low, high - low)}
    return Source(_FILE, pairs)


def _row(values: object, where: str) -> NDArray[np.float32]:
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        array = np.empty(0)
    if not isinstance(values, list) or array.size == 0 or array.dtype.kind not in "fi":
        raise CheckpointError(f"{where} is {values!r:.60}, expected a row of numbers")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)
