"""Synth: a random checkpoint in the published v1 layout for a robot's own joints, until there is a trained one."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.errors import ConfigError
from wallx_edge.preprocess import ImageProcessor
from wallx_edge.prompts import STATE, Tokenizer, flow_prompt
from wallx_edge.scene import pattern

__all__ = ["SIZES", "Size", "synth", "write_safetensors"]

Dtype = Literal["f32", "bf16", "f16"]
SPREAD = 0.3  # statistics reach this far around the rest pose [rad]
# the order in which Qwen2.5's tokenizer and the reference's additions stand
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<|propri|>",
    "<|action|>",
)
NUM_FAST_TOKENS = 64


@dataclass(frozen=True)
class Size:
    """Dimensions of a synthetic checkpoint, as in config.json."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    action_ffn: int
    vision_hidden: int
    vision_depth: int
    vision_heads: int
    vision_ffn: int
    vocab: int  # rows of the embedding; at least the tokenizer's

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden // self.heads


SIZES: dict[str, Size] = {
    "tiny": Size(64, 2, 4, 2, 128, 64, 32, 2, 2, 64, 384),
    # about 100 million weights: large enough to see memory and the cost of a step
    "medium": Size(768, 8, 12, 2, 2048, 768, 384, 6, 6, 1024, 8192),
}


def synth(
    size: str,
    out: str | Path,
    rest_pose: Mapping[str, float],
    statistics: str,
    *,
    seed: int = 0,
    dtype: Dtype = "f32",
) -> None:
    """Writes a checkpoint folder with random weights. Blocks while it writes.

    The action head is random but for this: the flow contracts towards a target that depends on pictures, text and
    state, so that the noise does not reach the chunk and neighbouring rows are close, and the target is spread over
    what the generated scene shows. The arm moves; it does no task.

    Args:
        size: of :data:`SIZES`.
        out: folder to make; must not exist or be empty.
        rest_pose: joint name -> rest position [rad], in the order of the robot's joints; becomes ``dof_config``.
        statistics: key of the normalizer's statistics, +-0.3 rad around the rest pose.
        seed: of the weights.
        dtype: of the file.

    Raises:
        ConfigError: an unknown size or dtype, a seed below 0, no joint or too many for the size, a rest position
            that is not finite, no name for the statistics, or a folder that is not empty or cannot be made.
    """
    if size not in SIZES:
        raise ConfigError(f"unknown size {size!r}; there are: {', '.join(SIZES)}")
    if dtype not in _DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; there are: {', '.join(_DTYPES)}")
    if not rest_pose:
        raise ConfigError("no joint to make a checkpoint for")
    dims = SIZES[size]
    if dims.hidden < 2 * len(rest_pose) + 8:
        raise ConfigError(f"{len(rest_pose)} joints are too many for a hidden size of {dims.hidden} ({size})")
    for joint, position in rest_pose.items():
        if not np.isfinite(position):
            raise ConfigError(f"rest position of {joint} is {position}, expected a finite number [rad]")
    if not statistics:
        raise ConfigError("the statistics need a name, such as the robot's")
    if seed < 0:
        raise ConfigError(f"seed is {seed}, expected 0 or more")
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not an empty folder; name another one or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror or error}") from error
    _write_json(folder / "config.json", _config(dims, list(rest_pose)))
    _write_json(folder / "preprocessor_config.json", _PREPROCESSOR)
    _write_tokenizer(folder)
    random = np.random.default_rng(seed)
    tensors = dict(_weights(dims, len(rest_pose), random))
    middle = np.array(list(rest_pose.values()), np.float32)
    for kind in ("action", "propri"):
        tensors[f"action_preprocessor.normalizer_{kind}.min.{statistics}"] = middle - np.float32(SPREAD)
        tensors[f"action_preprocessor.normalizer_{kind}.delta.{statistics}"] = np.full_like(middle, 2 * SPREAD)
    write_safetensors(folder / "model.safetensors", tensors, dtype)
    tensors["action_preprocessor.action_proj_back.weight"] = _reading(folder, dims, len(rest_pose), random)
    write_safetensors(folder / "model.safetensors", tensors, dtype)


_DTYPES: dict[Dtype, tuple[str, int]] = {"f32": ("F32", 4), "bf16": ("BF16", 2), "f16": ("F16", 2)}


def write_safetensors(path: str | Path, tensors: Mapping[str, NDArray[np.float32]], dtype: Dtype) -> None:
    """Writes tensors in the safetensors format, under a temporary name that is then renamed.

    Args:
        path: of the file.
        tensors: name -> float32 array; rounded to nearest even for ``bf16`` and ``f16``.
        dtype: of the file.
    """
    name, width = _DTYPES[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for key, value in tensors.items():
        end = offset + value.size * width
        header[key] = {"dtype": name, "shape": list(value.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = Path(f"{path}.part")
    with temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for value in tensors.values():
            file.write(_encode(np.ascontiguousarray(value, np.float32), dtype))
    temporary.rename(path)


def _encode(value: NDArray[np.float32], dtype: Dtype) -> bytes:
    if dtype == "bf16":
        bits = value.view(np.uint32)
        rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return bytes((rounded >> np.uint32(16)).astype("<u2").tobytes())
    return bytes(value.astype("<f2" if dtype == "f16" else "<f4").tobytes())


_PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "rescale_factor": 1 / 255,
    "resample": 3,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
}


def _config(size: Size, joints: list[str]) -> dict[str, Any]:
    first = 256  # bytes before the special tokens
    ids = {name: first + i for i, name in enumerate(SPECIAL_TOKENS)}
    half = size.head_dim // 2
    slots = dict.fromkeys(joints, 1)
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "hidden_act": "silu",
        "hidden_size": size.hidden,
        "intermediate_size": size.ffn,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_scaling": {
            "type": "mrope",
            "mrope_section": [half - 2 * (half * 3 // 8), *[half * 3 // 8] * 2],
        },
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "vocab_size": size.vocab,
        "vision_config": {
            "depth": size.vision_depth,
            "hidden_size": size.vision_hidden,
            "num_heads": size.vision_heads,
            "intermediate_size": size.vision_ffn,
            "window_size": 112,
            "fullatt_block_indexes": [size.vision_depth - 1],
            "hidden_act": "silu",
            "in_chans": 3,
            "out_hidden_size": size.hidden,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
        },
        "num_experts": 2,
        "experts": [
            {"hidden_size": size.hidden, "intermediate_size": size.ffn, "hidden_act": "silu"},
            {"hidden_size": size.hidden, "intermediate_size": size.action_ffn, "hidden_act": "silu"},
        ],
        "dim_inputs": [size.hidden, size.hidden],
        "dof_config": slots,
        "agent_pos_config": slots,
        "noise_scheduler": {"beta_alpha": 1.5, "beta_beta": 1.0, "s": 0.999, "num_inference_timesteps": 10},
        "attention_moe": False,
        "mlp_moe": True,
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer without merges: 256 bytes, then the special tokens in the reference's order."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[])
    )
    tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    fast = [f"<|action_token_{i}|>" for i in range(NUM_FAST_TOKENS)]
    tokenizer.add_tokens(
        [tokenizers.AddedToken(name, normalized=False, special=True) for name in SPECIAL_TOKENS[:22]]
        + [tokenizers.AddedToken(name, normalized=True, special=False) for name in (*SPECIAL_TOKENS[22:], *fast)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "action_token_start_index": 256 + len(SPECIAL_TOKENS),
            "action_token_vocab_size": NUM_FAST_TOKENS,
            "tokenizer_class": "Qwen2Tokenizer",
        },
    )


def _weights(size: Size, dof: int, random: np.random.Generator) -> Iterator[tuple[str, NDArray[np.float32]]]:
    def normal(*shape: int, gain: float = 1.0) -> NDArray[np.float32]:
        fan_in = int(np.prod(shape[1:]))
        return np.asarray(random.standard_normal(shape, np.float32) * np.float32(gain / np.sqrt(fan_in)))

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
        for name, rows, columns in (
            ("attn.qkv", 3 * v, v),
            ("attn.proj", v, v),
            ("mlp.gate_proj", size.vision_ffn, v),
            ("mlp.up_proj", size.vision_ffn, v),
            ("mlp.down_proj", v, size.vision_ffn),
        ):
            yield f"{prefix}{name}.weight", normal(rows, columns)
            yield f"{prefix}{name}.bias", zeros(rows)
    yield "visual.merger.ln_q.weight", ones(v)
    for name, rows in (("0", 4 * v), ("2", size.hidden)):
        yield f"visual.merger.mlp.{name}.weight", normal(rows, 4 * v)
        yield f"visual.merger.mlp.{name}.bias", zeros(rows)

    width, dim = size.hidden, size.head_dim
    yield "model.embed_tokens.weight", normal(size.vocab, width, gain=float(np.sqrt(width)))
    # a head turned by slow rotations only: rows that are neighbours in time look at the same things
    slow = (np.arange(dim) % (dim // 2) >= dim // 4).astype(np.float32)
    for layer in range(size.layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", ones(width)
        yield prefix + "post_attention_layernorm.weight", ones(width)
        q = normal(size.heads * dim, width, gain=3) * np.tile(slow, size.heads)[:, np.newaxis]
        yield prefix + "self_attn.q_proj.weight", q
        yield prefix + "self_attn.k_proj.weight", normal(size.kv_heads * dim, width, gain=3)
        yield prefix + "self_attn.v_proj.weight", normal(size.kv_heads * dim, width)
        yield prefix + "self_attn.q_proj.bias", zeros(size.heads * dim)
        yield prefix + "self_attn.k_proj.bias", zeros(size.kv_heads * dim)
        yield prefix + "self_attn.v_proj.bias", zeros(size.kv_heads * dim)
        # action tokens carry their actions in the first columns; attention and experts leave those alone
        untouched = (np.arange(width) >= dof).astype(np.float32)[:, np.newaxis]
        yield prefix + "self_attn.o_proj.weight", normal(width, size.heads * dim) * untouched
        for expert, inner in enumerate((size.ffn, size.action_ffn)):
            name = f"{prefix}moe.experts.{expert}."
            yield name + "gate_proj.weight", normal(inner, width)
            yield name + "up_proj.weight", normal(inner, width)
            yield name + "down_proj.weight", normal(width, inner) * untouched
    yield "model.norm.weight", ones(width)
    yield "action_preprocessor.propri_proj.weight", normal(width, 2 * dof)
    yield from _action_head(size, dof, random)


# velocity = RATE (target - x): ten Euler steps leave 0.4^10 of the noise, and four converge
RATE = 6.0
TARGET = 0.5  # spread of the target over the scene's pictures, in the normalised range
LEVEL = 2.0  # magnitude of an action token's constant columns


def _action_head(size: Size, dof: int, random: np.random.Generator) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Layers that hand each action through unchanged, beside columns that do not depend on it.

    silu(a) - silu(-a) = a, so a pair of rows of ``w2`` and ``w3`` passes x. A large constant (the time embedding's
    slowest cosine is 1) fills the other columns, so that the final norm divides by nearly the same number whatever
    x is.
    """
    width = size.hidden
    w1 = np.zeros((width, 2 * dof), np.float32)
    w1[:dof, :dof] = np.eye(dof)
    w2 = np.zeros((width, 2 * width), np.float32)
    w3 = np.zeros((width, width), np.float32)
    for d in range(dof):
        w2[2 * d, d], w2[2 * d + 1, d] = 1.0, -1.0
        w3[d, 2 * d], w3[d, 2 * d + 1] = 1.0, -1.0
    bright = 8.0
    w2[2 * dof, 2 * width - 1] = bright
    w3[dof:, 2 * dof] = random.choice(np.array([-LEVEL, LEVEL], np.float32), width - dof)
    w3[dof:, 2 * dof] /= np.float32(bright / (1 + np.exp(-bright)))
    yield "action_preprocessor.w1.weight", w1
    yield "action_preprocessor.w2.weight", w2
    yield "action_preprocessor.w3.weight", w3
    yield "action_preprocessor.action_proj_back.weight", np.zeros((dof, width), np.float32)


def _reading(folder: Path, size: Size, dof: int, random: np.random.Generator) -> NDArray[np.float32]:
    """The head that reads velocities: minus RATE times the action, plus what best tells the scene's pictures apart.

    Runs the network on pictures of the scene, takes the main directions in which its answers differ, and gives each
    joint a random mixture of them, scaled to TARGET.
    """
    engine = _core.Engine.load(str(folder))
    context = _core.Context(engine, max_tokens=1024)
    processor, tokenizer = ImageProcessor.load(folder), Tokenizer.load(folder)
    cameras = ("face_view", "wrist_view")
    horizon, number = 16, 24
    answers = np.empty((number, horizon, size.hidden), np.float32)
    magnitudes = []
    for i in range(number):
        pictures = processor.prepare([pattern(1.3 * i, 160, 120, seed) for seed in range(2)], [128, 128])
        prompt = flow_prompt(cameras, "follow the block", horizon)
        context.prefill(
            tokenizer.layout(prompt, pictures.counts, cameras).ids[:-horizon],
            pictures.pixel_values,
            pictures.grids,
            tokenizer.special_id(STATE),
            random.uniform(-0.5, 0.5, dof).astype(np.float32),
            np.ones(dof, np.float32),
        )
        still = np.zeros((horizon, dof), np.float32)
        _, trace = context.denoise(still, np.ones_like(still), 1, trace=True)
        answers[i] = trace["norm"]
        magnitudes.append(np.sqrt((trace[f"layers.{size.layers - 1}"] ** 2).mean()))
    features = answers[:, :, dof:].mean(axis=1)
    middle = features.mean(axis=0)
    _, spread, directions = np.linalg.svd(features - middle, full_matrices=False)
    kept = 3
    mixture = random.standard_normal((dof, kept))
    mixture /= np.linalg.norm(mixture, axis=1, keepdims=True)
    reading = mixture @ (directions[:kept] / spread[:kept, np.newaxis] * np.sqrt(number))
    reading -= np.outer(reading @ middle, middle) / (middle @ middle)
    back = np.empty((dof, size.hidden), np.float32)
    back[:, :dof] = -RATE * np.mean(magnitudes) * np.eye(dof)
    back[:, dof:] = RATE * TARGET * reading
    return back
