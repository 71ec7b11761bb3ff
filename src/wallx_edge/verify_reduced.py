"""Verify at reduced precision: noise and gain of what the network computes, against tolerances of their own."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["REDUCED", "Finding", "branches", "compare", "is_reduced"]

Tensors = dict[str, NDArray[Any]]

# Rounding reaches every number, so that the largest error says little. Compared are
#   noise  |got - expected| / |expected| in the Euclidean norm,
#   gain   how far the c for which c * expected is nearest to got is from 1: a scale that is wrong moves it, and
#          rounding hardly does.
# prefix -> (noise, gain) for each of _PRECISIONS: 2.9 times the largest residual over the golden cases and every set of
# kernels of an x86 processor with AVX-512, and twice for gains of what layers add; the longest prefix decides. What no
# prefix names is computed in fp32 at every precision, and keeps the tolerance that it has there. A case's other ways
# to integrate the flow, and the text before actions, have the rows of their like.
_PRECISIONS = ("bf16", "mixed", "w8", "int8")
_ROWS: dict[str, tuple[tuple[float, float], ...]] = {
    "added.actions.": ((0.12, 0.014), (0.16, 0.019), (0.24, 0.011), (0.33, 0.019)),
    "added.actions.layer0": ((0.038, 0.0023), (0.056, 0.0056), (0.087, 0.0088), (0.11, 0.01)),
    "added.actions.layer1": ((0.086, 0.0051), (0.12, 0.015), (0.18, 0.011), (0.27, 0.019)),
    "added.actions.layer2": ((0.12, 0.014), (0.16, 0.019), (0.24, 0.0067), (0.33, 0.015)),
    "added.prompt.": ((0.14, 0.002), (0.18, 0.0047), (0.29, 0.0084), (0.41, 0.017)),
    "added.prompt.layer0": ((0.065, 0.001), (0.079, 0.0011), (0.12, 0.0046), (0.18, 0.007)),
    "added.prompt.layer1": ((0.1, 0.002), (0.14, 0.0047), (0.22, 0.0084), (0.31, 0.014)),
    "added.prompt.layer2": ((0.14, 0.0018), (0.18, 0.0032), (0.29, 0.0056), (0.41, 0.017)),
    "added.vision.": ((0.054, 0.0022), (0.054, 0.0022), (0.11, 0.0053), (0.15, 0.0067)),
    "flow.action": ((0.072, 0.0068), (0.098, 0.0071), (0.14, 0.029), (0.19, 0.067)),
    "flow.action_embed0": ((0.01, 0.0011), (0.01, 0.0011), (0.01, 0.0011), (0.01, 0.0011)),
    "flow.inputs_embeds0": ((0.038, 0.0016), (0.038, 0.0016), (0.082, 0.0024), (0.11, 0.0047)),
    "flow.step0.": ((0.1, 0.0032), (0.13, 0.0057), (0.21, 0.0097), (0.3, 0.015)),
    "flow.step1.": ((0.077, 0.0018), (0.1, 0.0017), (0.17, 0.0066), (0.23, 0.01)),
    "flow.v": ((0.12, 0.0031), (0.16, 0.0067), (0.23, 0.0088), (0.3, 0.022)),
    "flow.x": ((0.052, 0.0011), (0.066, 0.0027), (0.099, 0.0044), (0.13, 0.01)),
    "flow_causal.step0_v_diff_max": ((0.16, 0.16), (0.19, 0.19), (0.096, 0.096), (0.27, 0.27)),
    "share.actions.": ((0.0, 0.024), (0.0, 0.031), (0.0, 0.019), (0.0, 0.037)),
    "share.actions.layer0": ((0.0, 0.003), (0.0, 0.0078), (0.0, 0.012), (0.0, 0.025)),
    "share.actions.layer1": ((0.0, 0.01), (0.0, 0.02), (0.0, 0.018), (0.0, 0.037)),
    "share.actions.layer2": ((0.0, 0.024), (0.0, 0.031), (0.0, 0.019), (0.0, 0.03)),
    "share.prompt.": ((0.0, 0.0039), (0.0, 0.0078), (0.0, 0.014), (0.0, 0.033)),
    "share.prompt.layer0": ((0.0, 0.0017), (0.0, 0.0032), (0.0, 0.0067), (0.0, 0.008)),
    "share.prompt.layer1": ((0.0, 0.0035), (0.0, 0.0063), (0.0, 0.011), (0.0, 0.022)),
    "share.prompt.layer2": ((0.0, 0.0039), (0.0, 0.0078), (0.0, 0.014), (0.0, 0.033)),
    "text.generated_ids": ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)),
    "text.logits": ((0.1, 0.0043), (0.15, 0.012), (0.2, 0.016), (0.36, 0.035)),
    "text.prefill_": ((0.11, 0.002), (0.14, 0.0033), (0.22, 0.008), (0.31, 0.016)),
    "text.top2_margin": ((0.21, 0.0), (0.21, 0.0), (0.28, 0.0), (0.45, 0.0)),
    "vis.block": ((0.05, 0.0015), (0.05, 0.0015), (0.11, 0.0049), (0.14, 0.012)),
    "vis.out": ((0.04, 0.0021), (0.04, 0.0021), (0.085, 0.0029), (0.11, 0.006)),
    "vis.patch_embed": ((0.0073, 0.00075), (0.0073, 0.00075), (0.0073, 0.00075), (0.0073, 0.00075)),
}
_LIKE = (
    ("flow_causal.step0_v", "flow_causal.step0_v"),
    ("flow_causal.", "flow."),
    ("flow_legacy9.", "flow."),
    ("flow_nocache.", "flow."),
    ("fastgen.", "text."),
    ("vis.merger", "vis.out"),
)
# how far two scores may be apart where the texts part, as a share of the scores' own spread; likewise
_CLOSE = (0.068, 0.15, 0.16, 0.4)

REDUCED: dict[str, dict[str, tuple[float, float]]] = {
    precision: {prefix: row[i] for prefix, row in _ROWS.items()} for i, precision in enumerate(_PRECISIONS)
}
CLOSE: dict[str, float] = dict(zip(_PRECISIONS, _CLOSE, strict=True))
REDUCED["fp16"], CLOSE["fp16"] = REDUCED["bf16"], CLOSE["bf16"]  # computed as bf16

_LAYER = re.compile(r"flow\.step0\.layer(\d+)$")
_BLOCK = re.compile(r"vis\.block(\d+)$")


class Finding(NamedTuple):
    """One number against its tolerance.

    Attributes:
        name: of the tensor, and what of it was compared.
        error: noise or gain.
        tolerance: its bound.
    """

    name: str
    error: float
    tolerance: float


def is_reduced(precision: str, name: str) -> bool:
    """Whether a precision changes a tensor."""
    return _row(precision, name) is not None


def branches(
    precision: str,
    computed: Mapping[str, NDArray[Any]],
    expected: Mapping[str, NDArray[Any]],
    horizon: int,
    is_gated: bool,
) -> list[Finding]:
    """What each layer and block adds to the stream: no tensors of a case, but what shows a wrong scale in a late one.

    Beside noise and gain of the sum, for each layer of the decoder how much of its attention and of its feed-forward,
    as they were computed, is in what the reference's layer adds: both are 1 where both are right.

    Args:
        precision: of ``computed``.
        computed: of one group.
        expected: of the same names.
        horizon: rows of the action tokens, the last of a sequence.
        is_gated: whether the action tokens' branches are gated on their way to the stream, and have no share.
    """
    ours, theirs = _added(computed, horizon), _added(expected, horizon)
    found = [finding for name, value in theirs.items() for finding in compare(precision, name, ours[name], value)]
    for name, value in theirs.items():
        if not (match := _ADDED.match(name)) or (is_gated and match[1] == "actions"):
            continue
        parts = [computed[f"flow.step0.layer{match[2]}.{part}"] for part in ("self_attn", "moe")]
        columns = np.stack([_rows(part, horizon)[match[1]].ravel() for part in parts], 1).astype(np.float64)
        shares = np.linalg.lstsq(columns, value.ravel().astype(np.float64), rcond=None)[0]
        for part, share in zip(("attention", "feed-forward"), shares, strict=True):
            row = _row(precision, f"share.{match[1]}.layer{match[2]}")
            found.append(
                Finding(
                    f"share.{match[1]}.layer{match[2]} of the {part}", abs(float(share) - 1), row[1] if row else 0.0
                )
            )
    return found


_ADDED = re.compile(r"added\.(prompt|actions)\.layer(\d+)$")


def _rows(sequence: NDArray[Any], horizon: int) -> Tensors:
    return {"prompt": sequence[:, :-horizon], "actions": sequence[:, -horizon:]}


def _added(tensors: Mapping[str, NDArray[Any]], horizon: int) -> Tensors:
    out: Tensors = {}
    for name in tensors:
        if match := _LAYER.match(name):
            number = int(match[1])
            before = "flow.inputs_embeds0" if number == 0 else f"flow.step0.layer{number - 1}"
            if before in tensors:
                added = tensors[name] - tensors[before]
                out |= {f"added.{part}.layer{number}": rows for part, rows in _rows(added, horizon).items()}
        elif match := _BLOCK.match(name):
            number = int(match[1])
            if number > 0:
                stream = tensors[f"vis.block{number - 1}"]
            else:  # blocks are in window order, patches are not
                patches, index = tensors["vis.patch_embed"], tensors["vis.window_index"]
                stream = patches.reshape(index.size, -1, patches.shape[1])[index].reshape(patches.shape)
            out[f"added.vision.block{number}"] = tensors[name] - stream - tensors[f"{name}.attn"]
    return out


def compare(precision: str, name: str, got: NDArray[Any], expected: NDArray[Any], unit: float = 0.0) -> list[Finding]:
    """Noise and gain of one tensor.

    Args:
        precision: that ``got`` was computed in.
        name: of the tensor.
        got: of the shape of ``expected``.
        expected: the reference's.
        unit: what noise is a share of; the norm of ``expected`` where it is 0.
    """
    row = _row(precision, name)
    if row is None:
        raise ValueError(f"{name} is not changed by {precision}")
    noise, gain = residuals(got, expected, unit)
    if unit:
        return [Finding(name, noise, row[0])]
    return [Finding(name, noise, row[0]), Finding(f"{name} (gain)", gain, row[1])]


def residuals(got: NDArray[Any], expected: NDArray[Any], unit: float = 0.0) -> tuple[float, float]:
    """Noise and gain; infinite where one side is no number."""
    ours, theirs = got.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return np.inf, np.inf
    power = float(theirs @ theirs)
    if power == 0:
        same = 0.0 if not ours.any() else np.inf
        return same, same
    whole = unit * np.sqrt(theirs.size) if unit else np.sqrt(power)
    return float(np.linalg.norm(ours - theirs) / whole), abs(float(ours @ theirs) / power - 1)


def _row(precision: str, name: str) -> tuple[float, float] | None:
    rows = REDUCED.get(precision, {})
    mine, like = next((pair for pair in _LIKE if name.startswith(pair[0])), ("", ""))
    name = like + name.removeprefix(mine)
    prefix = max((prefix for prefix in rows if name.startswith(prefix)), key=len, default=None)
    return None if prefix is None else rows[prefix]
