"""Golden case: a folder of the reference's numbers, and everything that can be computed from it."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.computing import Computing
from wallx_edge.errors import CheckpointError
from wallx_edge.geometry import (
    compose_rotation,
    euler_from_matrix,
    matrix_from_euler,
    matrix_from_rot6d,
    rot6d_from_matrix,
)
from wallx_edge.normalizer import Kind, Normalizer
from wallx_edge.policy_config import DEFAULT_STATE_BINS
from wallx_edge.preprocess import ImageProcessor, Pictures, resize_for_model
from wallx_edge.prompts import ACTION, END, STATE, PromptStyle, Tokenizer, flow_prompt, state_bins, state_text
from wallx_edge.statistics import inside, sources
from wallx_edge.verify_fast import fast, greedy

__all__ = ["GoldenCase"]

Tensors = dict[str, NDArray[Any]]

NUM_STEPS = 10  # of a case whose manifest names none: the reference's default
# what an entry of the manifest must be where it is there
_TEXTS = ("case", "flow_prompt", "instruction", "robot", "text_prompt")
_NAMES = ("camera_order", "expected", "inputs", "normalizer_names_for_norm_test")
_NUMBERS = ("horizon", "max_new_tokens", "num_inference_timesteps", "state_bins")
MAX_NUMBER = 100_000
_LABEL = re.compile(r" ([^<>|]*?): <\|vision_start\|>")
_ACTION_SPACE = re.compile(r"^<\|im_start\|>system\n[^<]*\nAction Space: (Abs EEF|Rel EEF)\n")


class GoldenCase:
    """A golden folder and what is computed from it, each stage from the one before.

    Attributes:
        directory: the folder.
        manifest: its ``manifest.json``.
        name: of the case.
        inputs: its ``inputs.safetensors``.
        expected: its ``expected.safetensors``; nothing here is computed from it.
        engine: its weights.
        tokenizer: its tokenizer.
        processor: its image processor.
    """

    def __init__(self, directory: Path, computing: Computing | None = None) -> None:
        """Reads the folder.

        Args:
            directory: the folder.
            computing: how; by default in fp32, or as the folder is packed.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        path = directory / "manifest.json"
        try:
            self.manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read: {error.strerror or error}; is this a golden case?"
            ) from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: not JSON: {error}") from error
        if not isinstance(self.manifest, dict):
            raise CheckpointError(f"{path}: expected an object, got {type(self.manifest).__name__}")
        # a writer's null says no more than a missing entry
        self.manifest = {key: value for key, value in self.manifest.items() if value is not None}
        for key, value in self.manifest.items():
            if (wanted := _wanted(key, value)) is not None:
                raise CheckpointError(f"{path}: {key} is {value!r:.60}, expected {wanted}")
        self.directory = directory
        self.name = str(self._entry("case"))
        self.expected: Tensors = _core.read_safetensors(str(directory / "expected.safetensors"))
        self.inputs: Tensors = _core.read_safetensors(str(directory / "inputs.safetensors"))
        self.engine = (computing or Computing()).load(directory)
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
            "geometry": self._geometry,
        }
        return groups[group]()

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
        return resolutions[camera]  # type: ignore[no-any-return]

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

    @property
    def state_bins(self) -> int:
        """Bins of a state told as text."""
        return self.manifest.get("state_bins", DEFAULT_STATE_BINS)  # type: ignore[no-any-return]

    @cached_property
    def style(self) -> PromptStyle:
        """Camera labels and prologue, which only the manifest's own prompt tells."""
        prompt = str(self._entry("flow_prompt"))
        labels = _LABEL.findall(prompt)
        if len(labels) != len(self.cameras):
            raise CheckpointError(
                f"{self.directory / 'manifest.json'}: flow_prompt shows {len(labels)} pictures, "
                f"camera_order has {len(self.cameras)}"
            )
        space = _ACTION_SPACE.match(prompt)
        return PromptStyle(dict(zip(self.cameras, labels, strict=True)), space and space[1])  # type: ignore[arg-type]

    @cached_property
    def flow_ids(self) -> NDArray[np.int64]:
        mask = self._input("agent_pos_mask").reshape(-1)
        is_text = self.config.is_state_text
        prompt = flow_prompt(
            self.cameras,
            self._entry("instruction"),
            self._entry("horizon"),
            state=state_text(self.state.reshape(-1), mask, self.state_bins) if is_text else STATE,
            style=self.style,
        )
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
            width = self.config.action_width
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
        # the reference's order: the first place, by name or by being the only set in it, then the next
        found = sources(self.directory, inside(self.engine))
        for source in found:
            name = key if key in source.keys else source.keys[0] if len(source.keys) == 1 else None
            if name is not None:
                return source.normalizer(kind, name, width)
        raise CheckpointError(f"{self.directory}: no statistics for {key}")

    @cached_property
    def state(self) -> NDArray[np.float32]:
        normalizer = self._statistics("propri", self._entry("robot"), self.config.state_dim)
        return normalizer.normalize(self._input("state"))

    def _normalizer(self) -> Tensors:
        values = self._input("norm.x")
        named = "normalizer_names_for_norm_test"
        keys = list(self._entry(named)) if len(values) > 1 or named in self.manifest else [self._entry("robot")]
        if len(keys) != values.shape[0]:
            raise CheckpointError(f"norm.x has {values.shape[0]} robots, normalizer_names_for_norm_test {len(keys)}")
        each = [self._statistics("action", key, self.config.action_dim) for key in keys]
        normalized = [n.normalize(x) for n, x in zip(each, values, strict=True)]
        return {
            "proprio.normalized": self.state,
            "proprio.bins": state_bins(self.state, self.state_bins),
            "norm.normalized": np.stack(normalized),
            "norm.unnormalized": np.stack([n.unnormalize(x) for n, x in zip(each, values, strict=True)]),
            "norm.roundtrip": np.stack([n.unnormalize(x) for n, x in zip(each, normalized, strict=True)]),
        }

    def _geometry(self) -> Tensors:
        relative = matrix_from_euler(self._input("geom.euler_f64"))
        rot6d = rot6d_from_matrix(relative)
        # six numbers are what a model says: everything behind them goes through Gram-Schmidt
        said = matrix_from_rot6d(rot6d)
        absolute6d = compose_rotation(said, matrix_from_rot6d(self._input("geom.state_rot6d_f64")))
        absolute = compose_rotation(relative, matrix_from_euler(self._input("geom.state_rpy_f64")))
        return {
            "geom.rot6d_f64": rot6d,
            "geom.euler_back_f64": euler_from_matrix(said),
            "geom.compose_abs6d_f64": rot6d_from_matrix(absolute6d),
            "geom.compose_abs_rpy_f64": euler_from_matrix(absolute),
        }

    @cached_property
    def context(self) -> _core.Context:
        longest = len(self.flow_ids) + self.manifest.get("max_new_tokens", 0) + 1024
        return _core.Context(self.engine, longest)

    def _prefill(self) -> _core.Trace:
        """The flow prompt up to the first action token, with pictures and state."""
        ids = self.flow_ids[: -self._entry("horizon")]
        pictures = self.pictures
        if self.config.is_state_text:
            return self.context.prefill(ids, pictures.pixel_values, pictures.grids, trace=True)
        return self.context.prefill(
            ids,
            pictures.pixel_values,
            pictures.grids,
            self.tokenizer.special_id(STATE),
            self.state.reshape(-1),
            self._input("agent_pos_mask").reshape(-1),
            trace=True,
        )

    @cached_property
    def padding_action(self) -> NDArray[np.float32]:
        """Where dims that are not in use move to: the normalised zero   (action_dim,)"""
        normalizer = self._statistics("action", self._entry("robot"), self.config.action_dim)
        return normalizer.normalize(np.zeros(self.config.action_dim, np.float32))

    @property
    def _num_steps(self) -> int:
        return self.manifest.get("num_inference_timesteps", NUM_STEPS)  # type: ignore[no-any-return]

    def _denoise(self, **options: Any) -> tuple[NDArray[np.float32], _core.Trace]:
        return self.context.denoise(
            self._input("noise")[0],
            self._input("dof_mask")[0],
            self._num_steps,
            padding_action=self.padding_action if self.config.does_pad_masked_dims else None,
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

    def _wide(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows of action tokens at the full width of the residual stream, the rest zeros   (rows, hidden_size)"""
        return np.pad(rows, ((0, 0), (0, self.config.hidden_size - rows.shape[1])))

    def _layers(self) -> Tensors:
        prefix = self._prefill()
        _, actions = self._denoise()

        def sequence(name: str) -> NDArray[np.float32]:
            return np.concatenate([prefix[name], self._wide(actions[name])])[np.newaxis]

        out: Tensors = {
            "flow.action_embed0": self._wide(actions["action_embed"])[np.newaxis],
            "flow.inputs_embeds0": sequence("inputs_embeds"),
            "flow.step0.norm": sequence("norm"),
            "flow.step0.final": sequence("norm"),  # the newer cases' name of it
        }
        if "step1.norm" in actions:  # not in a flow of one step
            out["flow.step1.final"] = self._wide(actions["step1.norm"])[np.newaxis]
        if "state_embed" in prefix:
            out["proprio.embed"] = prefix["state_embed"][np.newaxis]
        if "condition" in actions:
            out["flow.adarms_cond"] = actions["condition"]
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
        out: Tensors = {"flow.padding_action": self.padding_action[np.newaxis]}
        for kind, options in kinds[: 3 if self._num_steps > 1 else 2]:  # the legacy grid has two points or more
            actions, steps = self._denoise(**options)
            out |= {f"{kind}.{name}": steps[name] for name in ("t", "times", "x", "v", "v_raw") if name in steps}
            out[f"{kind}.action"] = normalizer.unnormalize(actions)[np.newaxis]
        difference = np.abs(out["flow_causal.v"][0] - out["flow.v"][0]).max()
        out["flow_causal.step0_v_diff_max"] = np.asarray(difference, np.float32)
        # without a cache every step computes the prefix anew; it depends on no action, so nothing else comes out
        out["flow_nocache.action"] = out["flow.action"]
        return out

    def _text(self) -> Tensors:
        prompt = str(self._entry("text_prompt"))
        num_pictures = prompt.count("<|image_pad|>")
        counts, cameras = self.pictures.counts[:num_pictures], self.cameras[:num_pictures]
        ids = self.tokenizer.layout(prompt, counts, cameras).ids
        grids = self.pictures.grids[:num_pictures]
        num_patches = int(grids.prod(axis=1).sum())
        trace = self.context.prefill(ids, self.pictures.pixel_values[:num_patches], grids, trace=True)
        batch = ids[np.newaxis]
        positions, deltas = _core.mrope_positions(batch, np.ones_like(batch), grids, self.config)
        written = greedy(self.context, self._entry("max_new_tokens"), self.tokenizer.special_id(END))
        return {
            "text.prompt_ids": ids[np.newaxis],
            "text.prefill_norm": trace["norm"][np.newaxis],
            "text.prefill_final": trace["norm"][np.newaxis],  # the newer cases' name of it
            "text.prefill_position_ids": positions,
            "text.decode1_position_ids": np.broadcast_to(len(ids) + deltas, (3, 1, 1)),
            **{f"text.{name}": value for name, value in written.items()},
        }


def _wanted(key: str, value: Any) -> str | None:
    """What an entry of the manifest should have been; ``None`` where it is."""
    if key in _TEXTS and not isinstance(value, str):
        return "a text"
    if key in _NAMES and not (isinstance(value, list | dict) and value and all(isinstance(v, str) for v in value)):
        return "names"
    if key in _NUMBERS and (type(value) is not int or not 1 <= value <= MAX_NUMBER):
        return f"a whole number, 1 to {MAX_NUMBER}"
    if key == "resolution" and not (isinstance(value, dict) and all(type(side) is int for side in value.values())):
        return "the long side of each camera's picture [px]"
    return None
