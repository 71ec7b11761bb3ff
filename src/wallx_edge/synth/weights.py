"""Weights of a synthetic checkpoint: random, but for a head by which the arm follows what the network sees."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.policy_config import DEFAULT_STATE_BINS
from wallx_edge.preprocess import ImageProcessor
from wallx_edge.prompts import STATE, Tokenizer, flow_prompt, state_text
from wallx_edge.scene import pattern
from wallx_edge.synth.size import Size, Variant
from wallx_edge.synth.writer import Normal
from wallx_edge.train_config import load_engine

__all__ = ["action_head", "blind_reading", "fitted_reading", "network"]


def network(size: Size, joints: int, dof: int, variant: Variant) -> Iterator[tuple[str, NDArray[np.float32] | Normal]]:
    """The published network's tensors but the action head's, by name, not drawn yet.

    Args:
        size: of the network.
        joints: columns in use.
        dof: columns of the action and state vectors.
        variant: which published form.
    """
    # what a deep network adds up stays as large as what it began with
    into_vision, into_language = (
        1 / np.sqrt(2 * depth) if size.is_streamed else 1.0 for depth in (size.vision_depth, size.layers)
    )

    # a small network's attention is sharp, so that pictures move the arm
    sharp = 1.0 if size.is_streamed else 3.0

    def normal(*shape: int, gain: float | NDArray[np.float64] = 1.0) -> Normal:
        return Normal(shape, gain)

    def zeros(width: int) -> NDArray[np.float32]:
        return np.zeros(width, np.float32)

    def ones(width: int) -> NDArray[np.float32]:
        return np.ones(width, np.float32)

    v = size.vision_hidden
    yield "visual.patch_embed.proj.weight", normal(v, 3, 2, 14, 14)
    for block in range(size.vision_depth):
        prefix = f"visual.blocks.{block}."
        yield prefix + "norm1.weight", ones(v)
        yield prefix + "norm2.weight", ones(v)
        for name, rows, columns, gain in (
            ("attn.qkv", 3 * v, v, 1.0),
            ("attn.proj", v, v, into_vision),
            ("mlp.gate_proj", size.vision_ffn, v, 1.0),
            ("mlp.up_proj", size.vision_ffn, v, 1.0),
            ("mlp.down_proj", v, size.vision_ffn, into_vision),
        ):
            yield f"{prefix}{name}.weight", normal(rows, columns, gain=gain)
            yield f"{prefix}{name}.bias", zeros(rows)
    yield "visual.merger.ln_q.weight", ones(v)
    for name, rows in (("0", 4 * v), ("2", size.hidden)):
        yield f"visual.merger.mlp.{name}.weight", normal(rows, 4 * v)
        yield f"visual.merger.mlp.{name}.bias", zeros(rows)

    width, dim = size.hidden, size.head_dim
    yield "model.embed_tokens.weight", normal(size.vocab, width, gain=float(np.sqrt(width)))
    # a head turned by slow rotations only: rows that are neighbours in time look at the same things
    slow = (np.arange(dim) % (dim // 2) >= dim // 4).astype(np.float64)
    query, key, value = (
        np.tile(slow, size.heads) * sharp,
        np.full(size.kv_heads * dim, sharp),
        np.ones(size.kv_heads * dim),
    )
    qkv = np.concatenate([query, key, value])
    for layer in range(size.layers) if variant != "v1" else ():
        prefix = f"model.layers.{layer}."
        for expert, (inner, each) in enumerate(((size.ffn, width), (size.action_ffn, size.action_width(variant)))):
            # action tokens carry their actions in the first columns: their attention and expert neither read nor write
            free = (np.arange(each) >= (joints if expert else 0)).astype(np.float32)
            into = free * into_language
            yield f"{prefix}input_layernorms.{expert}.weight", free
            yield f"{prefix}self_attn.qkv_proj_experts.{expert}.weight", normal(qkv.size, each, gain=qkv)
            yield f"{prefix}self_attn.qkv_proj_experts.{expert}.bias", zeros(qkv.size)
            yield f"{prefix}self_attn.o_proj_experts.{expert}.weight", normal(each, size.heads * dim, gain=into)
            yield f"{prefix}post_attention_layernorms.{expert}.weight", free
            yield f"{prefix}moe.experts.{expert}.gate_up_proj.weight", normal(2 * inner, each)
            yield f"{prefix}moe.experts.{expert}.down_proj.weight", normal(each, inner, gain=into)
    for layer in range(size.layers) if variant == "v1" else ():
        prefix = f"model.layers.{layer}."
        # action tokens carry their actions in the first columns: attention and experts neither read nor write those
        free = (np.arange(width) >= joints).astype(np.float32)
        yield prefix + "input_layernorm.weight", free
        yield prefix + "post_attention_layernorm.weight", free
        yield prefix + "self_attn.q_proj.weight", normal(query.size, width, gain=query)
        yield prefix + "self_attn.k_proj.weight", normal(key.size, width, gain=key)
        yield prefix + "self_attn.v_proj.weight", normal(value.size, width, gain=value)
        for name, rows in (("q", query.size), ("k", key.size), ("v", value.size)):
            yield f"{prefix}self_attn.{name}_proj.bias", zeros(rows)
        into = free * into_language
        yield prefix + "self_attn.o_proj.weight", normal(width, size.heads * dim, gain=into)
        for expert, inner in enumerate((size.ffn, size.action_ffn)):
            name = f"{prefix}moe.experts.{expert}."
            yield name + "gate_proj.weight", normal(inner, width)
            yield name + "up_proj.weight", normal(inner, width)
            yield name + "down_proj.weight", normal(width, inner, gain=into)
    if variant == "v1":
        yield "model.norm.weight", ones(width)
    else:
        yield "model.norms.0.weight", ones(width)
        yield "model.norms.1.weight", ones(size.action_width(variant))
    if variant != "mot-0.5":
        yield "action_preprocessor.propri_proj.weight", normal(size.state_width(variant), 2 * dof)


TARGET = 0.5  # spread of the target over the scene's pictures, in the normalised range
STEPS = 10
LAST = 1 - 1 / STEPS  # flow time of the last step
# An action token's constant columns fall with the flow's time, nearly as LEVEL (1 - t): what the final norm divides
# by. So the velocity is that of a straight flow, (target - x) / (1 - t), which guidance may extrapolate.
LEVEL = 40.0
FALL = 1.105
BRIGHT = 8.0


def action_head(
    width: int, joints: int, dof: int, random: np.random.Generator
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The action head, its last layer still zero: each action is handed through, beside columns that are constant.

    silu(a) - silu(-a) = a, so a pair of rows of ``w2`` and ``w3`` passes x. The other columns are large and depend on
    the flow's time alone (the time embedding's slowest cosine is 1, its fastest sine sin t), so that the final norm
    divides by the same number whatever x is.
    """
    w1 = np.zeros((width, 2 * dof), np.float32)
    w1[:joints, :joints] = np.eye(joints)
    w2 = np.zeros((width, 2 * width), np.float32)
    w3 = np.zeros((width, width), np.float32)
    for d in range(joints):
        w2[2 * d, d], w2[2 * d + 1, d] = 1.0, -1.0
        w3[d, 2 * d], w3[d, 2 * d + 1] = 1.0, -1.0
    w2[2 * joints, 2 * width - 1], w2[2 * joints, width] = BRIGHT, -BRIGHT * FALL
    w3[joints:, 2 * joints] = random.choice(np.array([-LEVEL, LEVEL], np.float32), width - joints)
    w3[joints:, 2 * joints] /= np.float32(BRIGHT / (1 + np.exp(-BRIGHT)))
    yield "action_preprocessor.w1.weight", w1
    yield "action_preprocessor.w2.weight", w2
    yield "action_preprocessor.w3.weight", w3
    yield "action_preprocessor.action_proj_back.weight", np.zeros((dof, width), np.float32)


def fitted_reading(folder: Path, width: int, joints: int, dof: int, random: np.random.Generator) -> NDArray[np.float32]:
    """The head that reads velocities towards a target: what best tells the scene's pictures apart.

    Runs the network on pictures of the scene, takes the main directions in which its answers differ, and gives each
    joint a random mixture of them, scaled to TARGET.
    """
    engine = load_engine(folder)
    context = _core.Context(engine, max_tokens=1024)
    processor, tokenizer = ImageProcessor.load(folder), Tokenizer.load(folder)
    cameras = ("face_view", "wrist_view")
    horizon, number = 16, 24
    answers = np.empty((number, horizon, width), np.float32)
    mask = (np.arange(dof) < joints).astype(np.float32)
    for i in range(number):
        pictures = processor.prepare([pattern(1.3 * i, 160, 120, seed) for seed in range(2)], [128, 128])
        state = random.uniform(-0.5, 0.5, joints).astype(np.float32)
        told = STATE
        if engine.config.is_state_text:
            told = state_text(state, np.ones(joints), DEFAULT_STATE_BINS)
        prompt = flow_prompt(cameras, "follow the block", horizon, state=told)
        ids = tokenizer.layout(prompt, pictures.counts, cameras).ids[:-horizon]
        if told == STATE:
            token = tokenizer.special_id(STATE)
            context.prefill(ids, pictures.pixel_values, pictures.grids, token, state, np.ones(joints, np.float32))
        else:
            context.prefill(ids, pictures.pixel_values, pictures.grids)
        still = np.zeros((horizon, dof), np.float32)
        # the head is still zero: the last step sees the actions of the first, and the most of the pictures
        _, trace = context.denoise(still, np.tile(mask, (horizon, 1)), STEPS, padding_action=np.zeros(dof), trace=True)
        answers[i] = trace["last.norm"]
    features = answers[:, :, joints:].mean(axis=1)
    middle = features.mean(axis=0)
    _, spread, directions = np.linalg.svd(features - middle, full_matrices=False)
    kept = 3
    mixture = random.standard_normal((joints, kept))
    mixture /= np.linalg.norm(mixture, axis=1, keepdims=True)
    reading = mixture @ (directions[:kept] / spread[:kept, np.newaxis] * np.sqrt(number))
    # neither the mean answer nor the constant columns, which are larger before: the target is the same at any time
    for_all, _ = np.linalg.qr(np.stack([middle, np.sign(middle)], axis=1))
    reading -= reading @ for_all @ for_all.T
    return _back(reading, joints, dof)


def blind_reading(
    head: Mapping[str, NDArray[np.float32]], joints: int, dof: int, random: np.random.Generator
) -> NDArray[np.float32]:
    """As :func:`fitted_reading`, without running the network: each joint reads a random direction.

    How large the answers are follows from how :func:`network` scales the weights.

    Args:
        head: of :func:`action_head`, by name.
        joints: columns in use.
        dof: columns of the action vector.
        random: of the directions.
    """
    # all layers together add one share from attention and one from silu(a) b, whose mean square is 0.36
    added = (1 + 0.36) / 2
    magnitude = float(np.sqrt((LEVEL * (1 - LAST)) ** 2 + added))
    constant = head["action_preprocessor.w3.weight"][joints:, 2 * joints].astype(np.float64)
    reading = random.standard_normal((joints, constant.size))
    reading -= np.outer(reading @ constant, constant) / (constant @ constant)
    reading *= magnitude / np.sqrt(added) / np.linalg.norm(reading, axis=1, keepdims=True)
    return _back(reading, joints, dof)


def _back(reading: NDArray[Any], joints: int, dof: int) -> NDArray[np.float32]:
    """The last layer: velocity = (target - action) / (1 - t); the final norm divides by nearly LEVEL (1 - t)."""
    width = joints + reading.shape[1]
    back = np.zeros((dof, width), np.float32)
    back[:joints, :joints] = -LEVEL * np.eye(joints)
    back[:joints, joints:] = TARGET / (1 - LAST) * reading
    return back
