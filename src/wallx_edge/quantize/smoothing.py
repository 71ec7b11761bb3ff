"""Smoothing: scales that even out a layer's inputs, folded into what makes the inputs and into its weights."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.computing import free_memory
from wallx_edge.errors import ConfigError
from wallx_edge.policy import Policy, PolicyConfig
from wallx_edge.quantize.observations import read_observations, synthetic
from wallx_edge.quantize.quality import first_statistics, fp32_bytes
from wallx_edge.quantize.recipe import Smoothing
from wallx_edge.train_config import TrainConfig
from wallx_edge.types import Observation

__all__ = ["observe", "smooth"]

Maxima = Mapping[str, NDArray[np.float32]]
_SCALED = ("int8", "w8")


def observe(source: Path, observations: Path | None, statistics: str | None, count: int, seed: int = 1) -> _core.Engine:
    """Lets a checkpoint answer observations in fp32 and keeps the largest inputs of its layers. Blocks.

    Args:
        source: the checkpoint.
        observations: a file as :func:`wallx_edge.quantize.observations.read_observations` says; synthetic ones if not.
        statistics: of the checkpoint; the only ones or, where there are several, the first.
        count: of synthetic observations.
        seed: of these; another one than the report's.

    Returns:
        an engine with :attr:`wallx_edge._core.Engine.input_maxima`.

    Raises:
        ConfigError: an observation does not fit the checkpoint, or its weights in fp32 need more memory than there is,
            said before they are loaded.
    """
    needed, free = fp32_bytes(source), free_memory()
    if needed > free:
        raise ConfigError(
            f"{source}: smoothing observes the network in fp32, which needs {needed / 1e6:.0f} MB of memory; this "
            f"computer has {free / 1e6:.0f} MB available: choose a recipe without smoothing"
        )
    train = TrainConfig.load(source)
    dof, agent_pos = (list((slots or {}).items()) for slots in (train.dof, train.agent_pos))
    engine = _core.Engine.load(str(source), dof, agent_pos, train.is_state_text, "fp32", does_observe=True)
    policy = Policy(source, PolicyConfig(statistics=statistics or first_statistics(source, engine)), engine)
    seen: Sequence[Observation]
    seen = synthetic(policy, count, seed) if observations is None else read_observations(observations, policy)
    for observation in seen:
        policy.act(observation)
    return engine


def smooth(quantizer: _core.Quantizer, engine: _core.Engine, smoothing: Smoothing) -> int:
    """Sets the quantizer's scales. A layer that a recipe keeps 16-bit, and one behind an adaptive norm, has none.

    Args:
        quantizer: whose layers.
        engine: of :func:`observe`.
        smoothing: of the recipe.

    Returns:
        number of layers whose inputs are scaled.
    """
    formats = {quantizer.name(step): quantizer.format(step) for step in range(len(quantizer))}
    maxima = engine.input_maxima
    weights = _Weights(engine)
    scaled = 0
    norms: dict[str, list[str]] = {}
    for name, kind in formats.items():
        if kind not in _SCALED:
            continue
        what = _kind(name)
        if what not in smoothing.layers:
            continue
        if what.endswith("down"):
            inputs = maxima.get(f"{name}.weight")
            makes = name.replace("down_proj", "gate_up_proj")
            if inputs is None or makes not in formats:
                continue
            scale = _scale(inputs, weights.largest(name), smoothing.alpha)
            quantizer.scale_inputs(name, scale)
            quantizer.scale_outputs(makes, np.concatenate([np.ones_like(scale), 1 / scale]))
            scaled += 1
        elif (norm := _norm_before(name, formats)) is not None:
            norms.setdefault(norm, []).append(name)
    for norm, layers in norms.items():
        users = [name for name in formats if _norm_before(name, formats) == norm]
        if users != layers or not all(weights.is_seen(name, maxima) for name in layers):
            continue  # one of them is 16-bit, or was never computed: the norm's numbers are not these layers' alone
        inputs = np.max([weights.inputs(name, maxima) for name in layers], axis=0)
        scale = _scale(inputs, np.max([weights.largest(name) for name in layers], axis=0), smoothing.alpha)
        quantizer.scale_outputs(norm, 1 / scale)
        for name in layers:
            quantizer.scale_inputs(name, scale)
            scaled += 1
    return scaled


def _scale(inputs: NDArray[np.float32], weights: NDArray[np.float32], alpha: float) -> NDArray[np.float32]:
    """What weights are multiplied with and inputs divided by, from the largest magnitudes of both."""
    usable = (inputs > 0) & (weights > 0)
    scale = np.ones_like(inputs)
    scale[usable] = inputs[usable] ** alpha / weights[usable] ** (1 - alpha)
    # only the relation of the scales matters; around 1 neither side comes near the ends of its range
    scale[usable] /= np.exp(np.log(scale[usable]).mean()) if usable.any() else 1
    return np.asarray(np.clip(scale, 1e-3, 1e3), np.float32)


def _kind(name: str) -> str:
    """Of :data:`wallx_edge.quantize.recipe.PAIRS`, or empty."""
    vision = "vision." if name.startswith("visual.blocks.") else ""
    for ending, kind in (
        (r"attn\.qkv|qkv_proj(_experts\.\d)?", "qkv"),
        ("gate_up_proj", "gate_up"),
        ("down_proj", "down"),
    ):
        if re.search(rf"(?:{ending})$", name):
            return vision + kind
    return ""


def _norm_before(name: str, formats: Mapping[str, str]) -> str | None:
    """The vector of the norm that makes a layer's inputs; ``None`` where they are not a learned norm's."""
    kind = _kind(name)
    if match := re.match(r"(visual\.blocks\.\d+\.)", name):
        norm = {"vision.qkv": "norm1.weight", "vision.gate_up": "norm2.weight"}.get(kind)
        return None if norm is None else match[1] + norm
    match = re.match(r"(model\.layers\.\d+\.)", name)
    norm = {"qkv": "input_layernorm", "gate_up": "post_attention_layernorm"}.get(kind)
    if match is None or norm is None:
        return None
    expert = re.search(r"experts\.(\d)", name)
    shared, own = f"{match[1]}{norm}.weight", f"{match[1]}{norm}s.{expert[1] if expert else 0}.weight"
    return shared if shared in formats else own if own in formats else None


class _Weights:
    """A packed layer's tensors in the published layout, in either of its forms."""

    def __init__(self, engine: _core.Engine) -> None:
        self._engine = engine
        self._names = set(engine.tensor_names)

    def parts(self, name: str) -> list[str]:
        """Names of the tensors whose rows a packed layer has."""
        if f"{name}.weight" in self._names:
            return [f"{name}.weight"]
        if name.endswith("gate_up_proj"):
            return [f"{name.replace('gate_up_proj', part)}.weight" for part in ("gate_proj", "up_proj")]
        return [f"{name.replace('qkv_proj', part)}.weight" for part in ("q_proj", "k_proj", "v_proj")]

    def largest(self, name: str) -> NDArray[np.float32]:
        """Of each input's weights   (in,)"""

        def each(part: str) -> NDArray[np.float32]:
            return np.asarray(np.abs(self._engine.tensor(part)).max(0))

        return np.asarray(np.max([each(part) for part in self.parts(name)], axis=0))

    def is_seen(self, name: str, maxima: Maxima) -> bool:
        return self.parts(name)[0] in maxima

    def inputs(self, name: str, maxima: Maxima) -> NDArray[np.float32]:
        """Largest inputs   (in,)"""
        return maxima[self.parts(name)[0]]
