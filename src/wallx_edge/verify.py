"""Verify: runs a golden case of the reference implementation and compares every tensor of the chosen groups."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.normalizer import Kind, Normalizer
from wallx_edge.preprocess import ImageProcessor, Pictures, resize_for_model
from wallx_edge.prompts import ACTION, END, STATE, Tokenizer, flow_prompt
from wallx_edge.statistics import inside, sources
from wallx_edge.verify_fast import fast, greedy

__all__ = ["GROUPS", "Comparison", "Report", "verify"]

Tensors = dict[str, NDArray[Any]]

# group -> prefixes of its tensors; the longest prefix decides
GROUPS: dict[str, tuple[str, ...]] = {
    "preprocess": ("pre.",),
    "tokens": ("tok.", "ropeidx.", "window.", "rope.", "time."),
    "vision": ("vis.",),
    "layers": ("flow.step0.", "flow.inputs_embeds0", "flow.action_embed0", "proprio.embed"),
    "flow": ("flow.", "flow_causal.", "flow_legacy9."),
    "text": ("text.",),
    "fast": ("fast.", "fastgen."),
    "normalizer": ("norm.", "proprio.normalized"),
}

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
    "flow_causal.": (5e-5, 1e-3),
    "flow_legacy9.": (5e-5, 1e-3),
    # the largest difference of two velocities: as good as they are, however small it is
    "flow_causal.step0_v_diff_max": (np.inf, 1e-4),
    "flow.t": (1e-6, 1e-6),
    "flow_causal.t": (1e-6, 1e-6),
    "flow_legacy9.t": (1e-6, 1e-6),
    "flow.step0.": (5e-5, np.inf),
    "flow.inputs_embeds0": (5e-5, np.inf),
    "flow.action_embed0": (1e-5, np.inf),
    "text.": (5e-5, np.inf),
    "fast.": (1e-6, 1e-3),
    "fastgen.": (5e-5, np.inf),
    "fastgen.gt_action": (1e-6, 1e-3),
}
# below this distance between the two best logits, rounding may choose the other token
MIN_MARGIN = 1e-2
NUM_STEPS = 10  # of a case whose manifest names none: the reference's default


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
    """

    case: str
    comparisons: tuple[Comparison, ...]
    not_run: Mapping[str, int]

    @property
    def is_ok(self) -> bool:
        """Whether every tensor agrees, and there was one."""
        return bool(self.comparisons) and all(c.is_ok for c in self.comparisons)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "case": self.case,
            "ok": self.is_ok,
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


def verify(directory: str | Path, groups: Iterable[str] | None = None) -> Report:
    """Runs a golden case folder: a checkpoint with ``manifest.json``, ``inputs.`` and ``expected.safetensors``.

    Everything is computed from the checkpoint, the inputs and the manifest; expected values are only compared with.
    Blocks while it computes.

    Args:
        directory: the case.
        groups: of :data:`GROUPS`; all of them by default.

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
    case = _Case(Path(directory))
    names = {name: _group_of(name) for name in sorted(case.expected)}
    not_run: dict[str, int] = {}
    comparisons: list[Comparison] = []
    for name, owner in names.items():
        if owner is None:
            if groups is None:
                comparisons.append(Comparison(name, "unknown", np.inf, 0.0, "no group computes this tensor"))
        elif owner not in chosen:
            not_run[owner] = not_run.get(owner, 0) + 1
    for group in chosen:
        wanted = [name for name, g in names.items() if g == group]
        if not wanted:
            comparisons.append(Comparison(group, group, np.inf, 0.0, "the case has no tensor of this group"))
            continue
        computed = case.compute(group)
        comparisons += [_compare(name, group, computed, case.expected) for name in wanted]
        comparisons += [
            Comparison(name, group, np.inf, 0.0, "missing in expected.safetensors")
            for name in case.required(group)
            if name not in case.expected
        ]
    return Report(case.name, tuple(comparisons), not_run)


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


# what follows from the tokens chosen before, with the axis that counts tokens; runner_up is computed beside them
_GENERATED = {
    f"{group}.{name}": axis
    for group in ("text", "fastgen")
    for name, axis in (("generated_ids", 1), ("logits", 0), ("top2_margin", 0))
}


def _other_choice(computed: Tensors, reference: Tensors, group: str) -> int | None:
    """The step at which the reference rightly chose the other of two equally good tokens; the texts part there.

    Only the very first difference counts, only at a close call, and only if the reference's token is our second.
    """
    got, expected = computed[f"{group}.generated_ids"], reference.get(f"{group}.generated_ids")
    if expected is None or expected.ndim != 2 or expected.shape[0] != 1:
        return None
    pairs = zip(got[0], expected[0], strict=False)
    step = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
    if step is None or computed[f"{group}.top2_margin"][step] > MIN_MARGIN:
        return None
    return step if computed[f"{group}.runner_up"][step] == expected[0, step] else None


def _until_other_choice(name: str, computed: Tensors, reference: Tensors) -> tuple[NDArray[Any], NDArray[Any], str]:
    """Both sides up to where the texts rightly part; whole where they do not."""
    got, expected = computed[name], reference[name]
    step = _other_choice(computed, reference, name.partition(".")[0])
    if step is None:
        return got, expected, ""
    axis = _GENERATED[name]
    # the scores of the close call itself still follow from equal texts
    keep = step if name.endswith(".generated_ids") else step + 1
    if max(got.shape[axis], expected.shape[axis]) <= keep:
        return got, expected, ""
    cut = (slice(None),) * axis + (slice(0, keep),)
    return got[cut], expected[cut], f"compared up to a close call, {keep} of {expected.shape[axis]}"


class _Case:
    """A golden folder and what is computed from it, each stage from the one before."""

    def __init__(self, directory: Path) -> None:
        path = directory / "manifest.json"
        try:
            self.manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read: {error.strerror or error}; is this a golden case?"
            ) from error
        except ValueError as error:
            raise CheckpointError(f"{path}: not JSON: {error}") from error
        if not isinstance(self.manifest, dict):
            raise CheckpointError(f"{path}: expected an object, got {type(self.manifest).__name__}")
        self.directory = directory
        self.name = str(self._entry("case"))
        self.expected: Tensors = _core.read_safetensors(str(directory / "expected.safetensors"))
        self.inputs: Tensors = _core.read_safetensors(str(directory / "inputs.safetensors"))
        self.engine = _core.Engine.load(str(directory))
        self.config = self.engine.config
        self.tokenizer = Tokenizer.load(directory)
        self.processor = ImageProcessor.load(directory)

    def compute(self, group: str) -> Tensors:
        """Every tensor of a group that the inputs and the manifest allow."""
        groups: dict[str, Callable[[], Tensors]] = {
            "preprocess": self._preprocess,
            "tokens": self._tokens,
            "vision": self._vision,
            "layers": self._layers,
            "flow": self._flow,
            "text": self._text,
            "fast": lambda: fast(self),
            "normalizer": self._normalizer,
        }
        return groups[group]()

    def required(self, group: str) -> tuple[str, ...]:
        """What a case must hold: what its manifest lists, and what the group means nothing without."""
        listed = {name for name in self.manifest.get("expected", ()) if _group_of(name) == group}
        always = {
            "flow": ("flow.action", "flow.v", "flow.x"),
            "vision": ("vis.out",),
            "text": ("text.generated_ids",),
        }.get(group, ())
        return tuple(sorted(listed.union(always)))

    def _entry(self, key: str) -> Any:
        if key not in self.manifest:
            raise CheckpointError(f"{self.directory / 'manifest.json'}: {key} is missing")
        return self.manifest[key]

    def _input(self, name: str) -> NDArray[Any]:
        if name not in self.inputs:
            raise CheckpointError(f"{self.directory / 'inputs.safetensors'}: tensor {name} is missing")
        return self.inputs[name]

    @property
    def cameras(self) -> list[str]:
        return list(self._entry("camera_order"))

    def _target(self, camera: str) -> int:
        resolutions = self._entry("resolution")
        if camera not in resolutions:
            raise CheckpointError(f"{self.directory / 'manifest.json'}: resolution.{camera} is missing")
        return int(resolutions[camera])

    @cached_property
    def pictures(self) -> Pictures:
        images = [self._input(f"image.{camera}") for camera in self.cameras]
        return self.processor.prepare(images, [self._target(camera) for camera in self.cameras])

    def _preprocess(self) -> Tensors:
        out: Tensors = {
            "pre.pixel_values": self.pictures.pixel_values,
            "pre.image_grid_thw": self.pictures.grids,
        }
        for camera in self.cameras:
            resized = resize_for_model(
                self._input(f"image.{camera}"), self._target(camera), factor=self.processor.factor
            )
            out[f"pre.{camera}.stage1_u8"] = resized.stage1
            out[f"pre.{camera}.final_u8"] = resized.final
        return out

    @cached_property
    def flow_ids(self) -> NDArray[np.int64]:
        prompt = flow_prompt(self.cameras, self._entry("instruction"), int(self._entry("horizon")))
        return self.tokenizer.layout(prompt, self.pictures.counts, self.cameras).ids

    def _tokens(self) -> Tensors:
        ids = self.flow_ids[np.newaxis]
        mask = np.ones_like(ids)
        positions, deltas = _core.mrope_positions(ids, mask, self.pictures.grids, self.config)
        out: Tensors = {
            "tok.flow.input_ids": ids,
            "tok.flow.attention_mask": mask,
            "tok.flow.moe_token_types": (ids == self.tokenizer.special_id(ACTION)).astype(np.int64),
            "tok.flow.position_ids": positions,
            "tok.flow.rope_deltas": deltas,
        }
        if "ropeidx.input_ids" in self.inputs:
            positions, deltas = _core.mrope_positions(
                self.inputs["ropeidx.input_ids"],
                self._input("ropeidx.attention_mask"),
                self._input("ropeidx.image_grid_thw"),
                self.config,
            )
            out |= {"ropeidx.position_ids": positions, "ropeidx.rope_deltas": deltas}
        if "window.grids" in self.inputs:
            index, offsets = _core.window_order(self.inputs["window.grids"], self.config)
            out |= {"window.index": index, "window.cu_seqlens": offsets}
        if "time.t" in self.inputs:
            width = self.config.hidden_size
            out["time.embed"] = np.stack([_core.time_embedding(float(t), width) for t in self.inputs["time.t"]])
        if "rope.position_ids" in self.inputs:
            out |= self._rotary(self.inputs["rope.position_ids"])
        return out

    def _rotary(self, positions: NDArray[Any]) -> Tensors:
        out: Tensors = {}
        batch = positions.shape[1]
        axes = [
            [_core.rotary_tables(np.repeat(positions[a : a + 1, b], 3, 0), self.config) for b in range(batch)]
            for a in range(3)
        ]
        out["rope.cos"] = np.stack([np.stack([cos for cos, _ in axis]) for axis in axes])
        out["rope.sin"] = np.stack([np.stack([sin for _, sin in axis]) for axis in axes])
        for layout, ending in (("hf", "hf"), ("contiguous", "cuda_v1_emulated")):
            for name in ("q", "k"):
                heads = self._input(f"rope.{name}")
                rotated = [
                    _core.apply_rotary(
                        heads[b].transpose(1, 0, 2),
                        *_core.rotary_tables(positions[:, b], self.config, layout),
                    ).transpose(1, 0, 2)
                    for b in range(batch)
                ]
                out[f"rope.{name}_{ending}"] = np.stack(rotated)
        return out

    def _statistics(self, kind: Kind, key: str, width: int) -> Normalizer:
        found = sources(self.directory, inside(self.engine))
        source = next((source for source in found if key in source.keys), found[0])
        return source.normalizer(kind, key if key in source.keys else source.keys[0], width)

    @cached_property
    def state(self) -> NDArray[np.float32]:
        normalizer = self._statistics("propri", self._entry("robot"), self.config.state_dim)
        return normalizer.normalize(self._input("state"))

    def _normalizer(self) -> Tensors:
        values = self._input("norm.x")
        keys = list(self._entry("normalizer_names_for_norm_test"))
        if len(keys) != values.shape[0]:
            raise CheckpointError(f"norm.x has {values.shape[0]} robots, normalizer_names_for_norm_test {len(keys)}")
        each = [self._statistics("action", key, self.config.action_dim) for key in keys]
        normalized = [n.normalize(x) for n, x in zip(each, values, strict=True)]
        return {
            "proprio.normalized": self.state,
            "norm.normalized": np.stack(normalized),
            "norm.unnormalized": np.stack([n.unnormalize(x) for n, x in zip(each, values, strict=True)]),
            "norm.roundtrip": np.stack([n.unnormalize(x) for n, x in zip(each, normalized, strict=True)]),
        }

    @cached_property
    def context(self) -> _core.Context:
        longest = len(self.flow_ids) + int(self.manifest.get("max_new_tokens", 0)) + 1024
        return _core.Context(self.engine, longest)

    def _prefill(self) -> _core.Trace:
        """The flow prompt up to the first action token, with pictures and state."""
        horizon = int(self._entry("horizon"))
        return self.context.prefill(
            self.flow_ids[:-horizon],
            self.pictures.pixel_values,
            self.pictures.grids,
            self.tokenizer.special_id(STATE),
            self.state.reshape(-1),
            self._input("agent_pos_mask").reshape(-1),
            trace=True,
        )

    def _denoise(self, **options: Any) -> tuple[NDArray[np.float32], _core.Trace]:
        return self.context.denoise(
            self._input("noise")[0],
            self._input("dof_mask")[0],
            int(self.manifest.get("num_inference_timesteps", NUM_STEPS)),
            trace=True,
            **options,
        )

    @cached_property
    def prefix(self) -> _core.Trace:
        return self._prefill()

    def _vision(self) -> Tensors:
        trace = self.prefix
        index, offsets = _core.window_order(self.pictures.grids, self.config)
        out: Tensors = {
            "vis.window_index": index,
            "vis.cu_window_seqlens": offsets,
            "vis.rot_pos_emb": trace["vision.angles"],
            "vis.patch_embed": trace["vision.patch_embed"],
            "vis.merger": trace["vision.merger"],
            "vis.out": trace["vision.out"],
        }
        for block in range(self.config.vision.depth):
            out[f"vis.block{block}"] = trace[f"vision.blocks.{block}"]
            out[f"vis.block{block}.attn"] = trace[f"vision.blocks.{block}.attn"]
        return out

    def _layers(self) -> Tensors:
        prefix = self._prefill()
        _, actions = self._denoise()

        def sequence(name: str) -> NDArray[np.float32]:
            return np.concatenate([prefix[name], actions[name]])[np.newaxis]

        out: Tensors = {
            "proprio.embed": prefix["state_embed"][np.newaxis],
            "flow.action_embed0": actions["action_embed"][np.newaxis],
            "flow.inputs_embeds0": sequence("inputs_embeds"),
            "flow.step0.norm": sequence("norm"),
        }
        for layer in range(self.config.num_layers):
            out[f"flow.step0.layer{layer}"] = sequence(f"layers.{layer}")
            for part in ("input_layernorm", "self_attn", "post_attention_layernorm", "moe"):
                out[f"flow.step0.layer{layer}.{part}"] = sequence(f"layers.{layer}.{part}")
        return out

    def _flow(self) -> Tensors:
        self._prefill()
        normalizer = self._statistics("action", self._entry("robot"), self.config.action_dim)
        kinds: tuple[tuple[str, dict[str, str]], ...] = (
            ("flow", {}),
            ("flow_causal", {"attention": "causal"}),
            ("flow_legacy9", {"time_grid": "legacy"}),
        )
        out: Tensors = {}
        for kind, options in kinds:
            actions, steps = self._denoise(**options)
            out |= {f"{kind}.{name}": steps[name] for name in ("t", "x", "v")}
            out[f"{kind}.action"] = normalizer.unnormalize(actions)[np.newaxis]
        difference = np.abs(out["flow_causal.v"][0] - out["flow.v"][0]).max()
        out["flow_causal.step0_v_diff_max"] = np.asarray(difference, np.float32)
        return out

    def _text(self) -> Tensors:
        prompt = str(self._entry("text_prompt"))
        num_pictures = prompt.count("<|image_pad|>")
        counts, cameras = self.pictures.counts[:num_pictures], self.cameras[:num_pictures]
        ids = self.tokenizer.layout(prompt, counts, cameras).ids
        grids = self.pictures.grids[:num_pictures]
        num_patches = int(grids.prod(axis=1).sum())
        trace = self.context.prefill(ids, self.pictures.pixel_values[:num_patches], grids, trace=True)
        written = greedy(self.context, int(self._entry("max_new_tokens")), self.tokenizer.special_id(END))
        return {
            "text.prompt_ids": ids[np.newaxis],
            "text.prefill_norm": trace["norm"][np.newaxis],
            **{f"text.{name}": value for name, value in written.items()},
        }
