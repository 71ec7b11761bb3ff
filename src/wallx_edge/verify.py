"""Verify: runs a golden case of the reference implementation and compares every tensor of the chosen groups."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge.computing import Computing
from wallx_edge.errors import ConfigError
from wallx_edge.golden_case import GoldenCase
from wallx_edge.verify_reduced import CLOSE, branches, compare, is_reduced

__all__ = ["GROUPS", "Comparison", "Report", "verify"]

Tensors = dict[str, NDArray[Any]]

# group -> prefixes of its tensors; the longest prefix decides
GROUPS: dict[str, tuple[str, ...]] = {
    "preprocess": ("pre.",),
    "tokens": ("tok.", "ropeidx.", "window.", "rope.", "time."),
    "vision": ("vis.",),
    "layers": (
        "flow.step0.",
        "flow.step1.",
        "flow.inputs_embeds0",
        "flow.action_embed0",
        "flow.adarms_cond",
        "proprio.embed",
    ),
    "flow": ("flow.", "flow_causal.", "flow_legacy9.", "flow_nocache."),
    "text": ("text.",),
    "fast": ("fast.", "fastgen."),
    "normalizer": ("norm.", "proprio.normalized", "proprio.bins"),
    "geometry": ("geom.",),
}
# groups that a whole run leaves out where a case has neither inputs nor results of them
OPTIONAL = ("fast", "geometry")

# prefix -> largest error as a share of the tensor's largest magnitude, and the most it may be in the tensor's own unit;
# the longest prefix decides. Integers and bytes are compared exactly, whatever stands here.
# Fp32 sums in another order differ by up to 1.5e-5 on the seen cases; the cases' READMEs allow 2e-4 for hidden states,
# 1e-3 for velocities and actions and 1e-5 for pixels.
TOLERANCES: dict[str, tuple[float, float]] = {
    "pre.": (1e-5, 1e-5),
    "norm.": (1e-6, 1e-3),
    "proprio.normalized": (1e-6, 1e-3),
    "proprio.embed": (1e-5, np.inf),
    "rope.": (1e-6, np.inf),
    "time.": (1e-6, np.inf),
    "vis.": (5e-5, np.inf),
    "vis.rot_pos_emb": (1e-6, np.inf),
    "flow.": (5e-5, 1e-3),
    "flow_nocache.": (5e-5, 1e-3),
    "flow_causal.": (5e-5, 1e-3),
    "flow_legacy9.": (5e-5, 1e-3),
    # the largest difference of two velocities: as good as they are, however small it is
    "flow_causal.step0_v_diff_max": (np.inf, 1e-4),
    "flow.t": (1e-6, 1e-6),  # and flow.times
    "flow.padding_action": (1e-6, 1e-6),
    "flow.adarms_cond": (1e-5, np.inf),
    "flow_causal.t": (1e-6, 1e-6),
    "flow_legacy9.t": (1e-6, 1e-6),
    "flow.step0.": (5e-5, np.inf),
    "flow.step1.": (5e-5, np.inf),
    "flow.inputs_embeds0": (5e-5, np.inf),
    "flow.action_embed0": (1e-5, np.inf),
    "text.": (5e-5, np.inf),
    "geom.": (1e-9, 1e-9),  # float64; the reference adds 1e-12 to lengths, arcsin near 1 widens that
    "fast.": (1e-6, 1e-3),
    "fastgen.": (5e-5, np.inf),
    "fastgen.gt_action": (1e-6, 1e-3),
}
# below this distance between the two best logits, rounding may choose the other token
MIN_MARGIN = 1e-2


@dataclass(frozen=True)
class Comparison:
    """One tensor against the reference.

    Attributes:
        name: in ``expected.safetensors``.
        group: of :data:`GROUPS`.
        error: largest absolute difference; infinite when it cannot be compared.
        tolerance: largest difference allowed.
        note: why it failed, or what was left out; empty when there is nothing to say.
    """

    name: str
    group: str
    error: float
    tolerance: float
    note: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether the tensor agrees."""
        return bool(np.isfinite(self.error)) and self.error <= self.tolerance


@dataclass(frozen=True)
class Report:
    """All comparisons of one case.

    Attributes:
        case: name of the case.
        comparisons: one per expected tensor of the chosen groups.
        not_run: tensors of groups that were not chosen, per group.
        computing: what was asked and what the machine gave, as :meth:`wallx_edge.computing.Computing.report` says.
    """

    case: str
    comparisons: tuple[Comparison, ...]
    not_run: Mapping[str, int]
    computing: Mapping[str, Mapping[str, Any]]

    @property
    def is_ok(self) -> bool:
        """Whether every tensor agrees, and there was one."""
        return bool(self.comparisons) and all(c.is_ok for c in self.comparisons)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "case": self.case,
            "ok": self.is_ok,
            "computing": {key: dict(value) for key, value in self.computing.items()},
            "not_run": dict(self.not_run),
            "tensors": [
                {
                    "name": c.name,
                    "group": c.group,
                    "ok": c.is_ok,
                    "error": c.error if np.isfinite(c.error) else None,
                    "tolerance": c.tolerance if np.isfinite(c.tolerance) else None,
                    "note": c.note,
                }
                for c in self.comparisons
            ],
        }


def verify(directory: str | Path, groups: Iterable[str] | None = None, computing: Computing | None = None) -> Report:
    """Runs a golden case folder: a checkpoint with ``manifest.json``, ``inputs.`` and ``expected.safetensors``.

    Everything is computed from the checkpoint, the inputs and the manifest; expected values are only compared with.
    At reduced precision, tensors that it changes are compared by noise and gain, against the table of
    :mod:`wallx_edge.verify_reduced`. Blocks while it computes.

    Args:
        directory: the case, or one that ``quantize`` has packed.
        groups: of :data:`GROUPS`; all of them by default.
        computing: how; by default in fp32, or as the folder is packed.

    Raises:
        ConfigError: an unknown group.
        CheckpointError: a file of the case is missing or damaged.
    """
    chosen = tuple(GROUPS) if groups is None else tuple(dict.fromkeys(groups))
    for group in chosen:
        if group not in GROUPS:
            raise ConfigError(f"unknown group {group!r}; there are: {', '.join(GROUPS)}")
    if not chosen:
        raise ConfigError(f"no group chosen; there are: {', '.join(GROUPS)}")
    computing = computing or Computing()
    case = GoldenCase(Path(directory), computing)
    precision = case.engine.precision
    names = {name: _group_of(name) for name in sorted(case.expected)}
    not_run: dict[str, int] = {}
    comparisons: list[Comparison] = []
    for name, owner in names.items():
        if owner is None:
            if groups is None:
                comparisons.append(Comparison(name, "unknown", np.inf, 0.0, "no group computes this tensor"))
        elif owner not in chosen:
            not_run[owner] = not_run.get(owner, 0) + 1
    if groups is None:
        chosen = tuple(group for group in chosen if group not in OPTIONAL or _is_in(case, group))
    for group in chosen:
        wanted = [name for name, g in names.items() if g == group]
        if not wanted:
            comparisons.append(Comparison(group, group, np.inf, 0.0, "the case has no tensor of this group"))
            continue
        computed = case.compute(group)
        for name in wanted:
            comparisons += (
                _compare_reduced(precision, name, group, computed, case.expected)
                if is_reduced(precision, name)
                else [_compare(name, group, computed, case.expected)]
            )
        comparisons += _compare_branches(precision, group, wanted, computed, case)
        comparisons += [
            Comparison(name, group, np.inf, 0.0, "missing in expected.safetensors")
            for name in _required(case, group)
            if name not in case.expected
        ]
    return Report(case.name, tuple(comparisons), not_run, computing.report(case.engine))


def _is_in(case: GoldenCase, group: str) -> bool:
    """Whether a case has, or should have, anything of a group."""
    names = (*case.inputs, *case.expected, *case.manifest.get("expected", ()), *case.manifest.get("inputs", ()))
    return any(name.startswith(GROUPS[group]) for name in names)


def _required(case: GoldenCase, group: str) -> tuple[str, ...]:
    """What a case must hold: what its manifest lists, and what the group means nothing without."""
    listed = {name for name in case.manifest.get("expected", ()) if _group_of(name) == group}
    always = {
        "flow": ("flow.action", "flow.v", "flow.x"),
        "vision": ("vis.out",),
        "text": ("text.generated_ids",),
    }.get(group, ())
    return tuple(sorted(listed.union(always)))


def _group_of(name: str) -> str | None:
    matches = [
        (len(prefix), group) for group, prefixes in GROUPS.items() for prefix in prefixes if name.startswith(prefix)
    ]
    return max(matches)[1] if matches else None


def _compare(name: str, group: str, computed: Tensors, reference: Tensors) -> Comparison:
    if name not in computed:
        return Comparison(name, group, np.inf, 0.0, "not computed by this version")
    got, expected, note = computed[name], reference[name], ""
    if name in _GENERATED and got.ndim == expected.ndim:
        got, expected, note = _until_other_choice(name, computed, reference)
        if expected.size == 0:
            return Comparison(name, group, 0.0, 0.0, note)
    if got.shape != expected.shape:
        return Comparison(name, group, np.inf, 0.0, f"expected shape {expected.shape}, got {got.shape}")
    if expected.size == 0:
        return Comparison(name, group, np.inf, 0.0, "the expected tensor is empty")
    difference = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    error = float(difference.max())
    tolerance = 0.0
    if expected.dtype.kind == "f":
        prefix = max((prefix for prefix in TOLERANCES if name.startswith(prefix)), key=len, default="")
        share, most = TOLERANCES.get(prefix, (0.0, 0.0))
        tolerance = min(share * float(np.abs(expected.astype(np.float64)).max()), most)
    if not np.isfinite(error):
        return Comparison(name, group, np.inf, tolerance, "not a number on one side")
    if error > tolerance:
        worst = np.unravel_index(int(difference.argmax()), difference.shape)
        index = ", ".join(str(int(i)) for i in worst)
        note = f"at [{index}]: expected {expected[worst]}, got {got[worst]}"
    return Comparison(name, group, error, tolerance, note)


def _compare_reduced(precision: str, name: str, group: str, computed: Tensors, reference: Tensors) -> list[Comparison]:
    if name not in computed:
        return [Comparison(name, group, np.inf, 0.0, "not computed by this version")]
    got, expected, note = computed[name], reference[name], ""
    unit = 0.0
    if name in _GENERATED and got.ndim == expected.ndim:
        scores = reference.get(f"{name.partition('.')[0]}.logits", np.zeros(1))
        spread = float(scores.std()) if np.isfinite(scores).all() else 0.0
        got, expected, note = _until_other_choice(name, computed, reference, CLOSE[precision] * spread)
        if expected.dtype.kind != "f":
            is_same = got.shape == expected.shape and np.array_equal(got, expected)
            return [Comparison(name, group, 0.0 if is_same else np.inf, 0.0, note if is_same else "other tokens")]
        if name.endswith("top2_margin"):
            unit = spread
    if got.shape != expected.shape:
        return [Comparison(name, group, np.inf, 0.0, f"expected shape {expected.shape}, got {got.shape}")]
    if expected.size == 0:
        return [Comparison(name, group, np.inf, 0.0, "the expected tensor is empty")]
    return [
        Comparison(found.name, group, found.error, found.tolerance, note)
        for found in compare(precision, name, got, expected, unit)
    ]


def _compare_branches(
    precision: str, group: str, wanted: list[str], computed: Tensors, case: GoldenCase
) -> list[Comparison]:
    if group not in ("vision", "layers") or not is_reduced(precision, "vis.block0"):
        return []
    expected = {
        name: case.expected[name]
        for name in wanted
        if name in computed and computed[name].shape == case.expected[name].shape
    }
    if len(expected) < len(wanted):
        return []  # which has failed already
    horizon = case.manifest["horizon"] if group == "layers" else 0
    found = branches(precision, computed, expected, horizon, case.config.has_adaptive_norms)
    return [Comparison(finding.name, group, finding.error, finding.tolerance) for finding in found]


# what follows from the tokens chosen before, with the axis that counts tokens; runner_up is computed beside them
_GENERATED = {
    f"{group}.{name}": axis
    for group in ("text", "fastgen")
    for name, axis in (("generated_ids", 1), ("logits", 0), ("top2_margin", 0))
}


def _other_choice(computed: Tensors, reference: Tensors, group: str, close: float) -> int | None:
    """The step at which the reference rightly chose the other of two equally good tokens; the texts part there.

    Only the very first difference counts, only at a close call, and only if the reference's token is our second or,
    where there are scores, one that ours puts as close.
    """
    got, expected = computed[f"{group}.generated_ids"], reference.get(f"{group}.generated_ids")
    if expected is None or expected.ndim != 2 or expected.shape[0] != 1:
        return None
    pairs = zip(got[0], expected[0], strict=False)
    step = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
    if step is None or computed[f"{group}.top2_margin"][step] > close:
        return None
    if computed[f"{group}.runner_up"][step] == expected[0, step]:
        return step
    scores = computed[f"{group}.logits"]
    is_close = step < len(scores) and scores[step].max() - scores[step][expected[0, step]] <= close
    return step if is_close and close > MIN_MARGIN else None


def _until_other_choice(
    name: str, computed: Tensors, reference: Tensors, close: float = MIN_MARGIN
) -> tuple[NDArray[Any], NDArray[Any], str]:
    """Both sides up to where the texts rightly part; whole where they do not."""
    got, expected = computed[name], reference[name]
    step = _other_choice(computed, reference, name.partition(".")[0], close)
    if step is None:
        return got, expected, ""
    axis = _GENERATED[name]
    # the scores of the close call itself still follow from equal texts
    keep = step if name.endswith(".generated_ids") else step + 1
    if max(got.shape[axis], expected.shape[axis]) <= keep:
        return got, expected, ""
    cut = (slice(None),) * axis + (slice(0, keep),)
    return got[cut], expected[cut], f"compared up to a close call, {keep} of {expected.shape[axis]}"
