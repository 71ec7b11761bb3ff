"""Work: how many operations and bytes each stage of a chunk needs, from the model's dimensions alone."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core

__all__ = ["PRECISIONS", "Precision", "Scenario", "Width", "Work", "works"]

Precision = Literal["fp32", "bf16", "fp16", "int8", "mixed", "w8"]


@dataclass(frozen=True)
class Width:
    """How the weights of a part are kept, and which products they go through.

    Attributes:
        peak: kind of the processor's peak.
        num_bytes: of a weight [B]
    """

    peak: str
    num_bytes: int


# precision -> feed-forwards of the language and scores of the next token; everything else
PRECISIONS: dict[Precision, tuple[Width, Width]] = {
    "fp32": (Width("fp32", 4), Width("fp32", 4)),
    "bf16": (Width("bf16", 2), Width("bf16", 2)),
    "fp16": (Width("bf16", 2), Width("bf16", 2)),  # the engine computes in bf16 where there is no fp16
    "int8": (Width("int8", 1), Width("int8", 1)),
    "mixed": (Width("int8", 1), Width("bf16", 2)),
    "w8": (Width("bf16", 1), Width("bf16", 1)),
}


@dataclass(frozen=True)
class Work:
    """What a stage cannot do without. A multiply-add is two operations.

    Attributes:
        narrow: operations of the language's feed-forwards and of the scores of the next token.
        wide: operations of all other products and of attention.
        narrow_weights: weights that the first read, once.
        wide_weights: weights that the second read, once.
        cached: keys and values read.
    """

    narrow: float = 0
    wide: float = 0
    narrow_weights: float = 0
    wide_weights: float = 0
    cached: float = 0

    def __mul__(self, times: int) -> Work:
        return Work(
            self.narrow * times,
            self.wide * times,
            self.narrow_weights * times,
            self.wide_weights * times,
            self.cached * times,
        )

    @property
    def operations(self) -> float:
        """All of them."""
        return self.narrow + self.wide

    def num_bytes(self, precision: Precision) -> float:
        """Read from memory; keys and values in two bytes, in fp32 in four [B]"""
        narrow, wide = PRECISIONS[precision]
        cached = self.cached * max(2, wide.num_bytes)
        return self.narrow_weights * narrow.num_bytes + self.wide_weights * wide.num_bytes + cached

    def seconds_at(self, precision: Precision, peaks: Mapping[str, float]) -> float | None:
        """Time of the operations at the peaks by kind [operations/s]; ``None`` where one is not measured [s]"""
        narrow, wide = PRECISIONS[precision]
        total = 0.0
        for operations, width in ((self.narrow, narrow), (self.wide, wide)):
            if operations and width.peak not in peaks:
                return None
            total += operations / peaks[width.peak] if operations else 0.0
        return total


@dataclass(frozen=True, eq=False)
class Scenario:
    """One chunk's shape.

    Attributes:
        grids: patches (time, high, wide) of each picture   (pictures, 3)
        prefix: tokens before the actions.
        horizon: rows of the chunk.
        steps: of the flow.
    """

    grids: NDArray[np.int64]
    prefix: int
    horizon: int
    steps: int


def works(config: _core.ModelConfig, vocab: int, scenario: Scenario) -> dict[str, Work]:
    """Work by stage: ``vision``, ``prefill``, ``step``, ``steps``, ``token``, ``chunk``.

    Counted are matrix products and the two products of attention, each attended pair once; norms, rotations,
    activations and quantisation are not. Of the prefix's last layer only keys and values are: no more is used.

    Args:
        config: the model's.
        vocab: rows of the embedding.
        scenario: of the chunk.
    """
    vision, prefill = _vision(config, scenario), _prefill(config, scenario)
    step = _step(config, scenario)
    steps = step * scenario.steps
    return {
        "vision": vision,
        "prefill": prefill,
        "step": step,
        "steps": steps,
        "token": _token(config, vocab, scenario),
        "chunk": Work(*(sum(values) for values in zip(*(_values(w) for w in (vision, prefill, steps)), strict=True))),
    }


def _values(work: Work) -> tuple[float, ...]:
    return work.narrow, work.wide, work.narrow_weights, work.wide_weights, work.cached


def _vision(config: _core.ModelConfig, scenario: Scenario) -> Work:
    v = config.vision
    width, merged = v.hidden_size, v.hidden_size * v.spatial_merge_size**2
    patches = int(scenario.grids.prod(axis=1).sum())
    block = width * (4 * width + 3 * v.intermediate_size)
    embed = width * v.in_channels * v.temporal_patch_size * v.patch_size**2
    merger = merged * (merged + config.hidden_size)
    _, offsets = _core.window_order(scenario.grids, config)
    windows = np.diff(np.asarray(offsets, np.int64))
    whole = sum(int(t) * (int(h) * int(w)) ** 2 for t, h, w in scenario.grids)
    full = len(v.full_attention_blocks)
    pairs = full * whole + (v.depth - full) * sum(int(size) ** 2 for size in windows)
    products = patches * (v.depth * block + embed) + patches // v.spatial_merge_size**2 * merger
    return Work(wide=2 * products + 4 * pairs * width, wide_weights=v.depth * block + embed + merger)


def _layer(config: _core.ModelConfig, expert: int) -> tuple[int, int, int]:
    """Weights of a layer for one expert's tokens: keys and values, queries and output, feed-forward."""
    width, each = config.expert_widths[expert], config.head_dim
    return (
        2 * width * config.num_kv_heads * each,
        2 * width * config.num_heads * each,
        3 * width * config.expert_sizes[expert],
    )


def _prefill(config: _core.ModelConfig, scenario: Scenario) -> Work:
    rows, whole = scenario.prefix, config.num_layers - 1
    keys, queries, feed_forward = _layer(config, 0)
    pairs = whole * rows * (rows + 1) // 2
    return Work(
        narrow=2 * rows * whole * feed_forward,
        wide=2 * rows * (config.num_layers * keys + whole * queries) + 4 * pairs * config.num_heads * config.head_dim,
        narrow_weights=whole * feed_forward,
        wide_weights=config.num_layers * keys + whole * queries,
    )


def _step(config: _core.ModelConfig, scenario: Scenario) -> Work:
    rows, layers = scenario.horizon, config.num_layers
    keys, queries, feed_forward = _layer(config, 1)
    seen = scenario.prefix + rows
    width, columns = config.action_width, config.action_dim
    into = columns * (2 if config.does_project_mask else 1)
    # with adaptive norms the time goes its own way, once and not for each row: too little to count
    head = width * (into + columns) + (0 if config.has_adaptive_norms else 3 * width**2)
    return Work(
        narrow=2 * rows * layers * feed_forward,
        wide=2 * rows * (layers * (keys + queries) + head)
        + 4 * layers * rows * seen * config.num_heads * config.head_dim,
        narrow_weights=layers * feed_forward,
        wide_weights=layers * (keys + queries) + head,
        cached=2 * layers * seen * config.num_kv_heads * config.head_dim,
    )


def _token(config: _core.ModelConfig, vocab: int, scenario: Scenario) -> Work:
    layers, seen = config.num_layers, scenario.prefix
    keys, queries, feed_forward = _layer(config, 0)
    narrow, wide = layers * feed_forward + vocab * config.hidden_size, layers * (keys + queries)
    return Work(
        narrow=2 * narrow,
        wide=2 * wide + 4 * layers * seen * config.num_heads * config.head_dim,
        narrow_weights=narrow,
        wide_weights=wide,
        cached=2 * layers * seen * config.num_kv_heads * config.head_dim,
    )
