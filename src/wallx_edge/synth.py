"""Synth: a random checkpoint in a published layout for a robot's own joints, until there is a trained one."""
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
import yaml
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.errors import ConfigError
from wallx_edge.policy_config import DEFAULT_STATE_BINS
from wallx_edge.preprocess import ImageProcessor
from wallx_edge.prompts import STATE, Tokenizer, flow_prompt, state_text
from wallx_edge.scene import pattern
from wallx_edge.train_config import load_engine

__all__ = ["SIZES", "VARIANTS", "Size", "synth", "write_safetensors"]

Dtype = Literal["f32", "bf16", "f16"]
Variant = Literal["v1", "mot-0.1", "mot-0.5"]
VARIANTS: tuple[Variant, ...] = ("v1", "mot-0.1", "mot-0.5")
PADDED_WIDTH = 26  # of the vectors of mot-0.5, the joints and then padding
HORIZON = 16  # of mot-0.5, whose files say it
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
    """Dimensions of a synthetic checkpoint, as in config.json; ``action_ffn`` is the action expert's."""

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

    def action_width(self, variant: Variant) -> int:
        """Width of the action expert: half the text's where it has attention of its own."""
        return self.hidden if variant == "v1" else self.hidden // 2

    def state_width(self, variant: Variant) -> int:
        """Width of the state's projection; wall-oss-flow-0.1's is narrower than the stream."""
        return self.hidden - 8 if variant == "mot-0.1" else self.hidden


SIZES: dict[str, Size] = {
    "tiny": Size(64, 2, 4, 2, 128, 64, 32, 2, 2, 64, 384),
    # about 5 million: a chunk takes long enough to be delayed by
    "small": Size(256, 4, 4, 2, 512, 256, 128, 4, 4, 256, 2048),
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
    variant: Variant = "v1",
) -> None:
    """Writes a checkpoint folder with random weights. Blocks while it writes.

    The files are those of the variant's published checkpoint: statistics in the weights, for ``mot-0.5`` in
    norm_stats.json, and what that one keeps in config.yml there.

    The action head is random but for this: the flow contracts towards a target that depends on pictures, text and
    state, so that the noise does not reach the chunk and neighbouring rows are close, and the target is spread over
    what the generated scene shows. The arm moves; it does no task.

    Args:
        size: of :data:`SIZES`.
        out: folder to make; must not exist or be empty.
        rest_pose: joint name -> rest position [rad], in the order of the robot's joints; becomes ``dof_config``.
        statistics: key of the normalizer's statistics, +-0.3 rad around the rest pose; ``mot-0.5``'s have no key.
        seed: of the weights.
        dtype: of the file.
        variant: of :data:`VARIANTS`; the one with adaptive norms is not published and not written.

    Raises:
        ConfigError: an unknown size, dtype or variant, a seed below 0, no joint or too many for the size, a rest
            position that is not finite, no name for the statistics, or a folder that is not empty or cannot be made.
    """
    if size not in SIZES:
        raise ConfigError(f"unknown size {size!r}; there are: {', '.join(SIZES)}")
    if dtype not in _DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; there are: {', '.join(_DTYPES)}")
    if not rest_pose:
        raise ConfigError("no joint to make a checkpoint for")
    if variant not in VARIANTS:
        raise ConfigError(f"unknown variant {variant!r}; there are: {', '.join(VARIANTS)}")
    dims = SIZES[size]
    width = dims.action_width(variant)
    if width < 2 * len(rest_pose) + 8:
        raise ConfigError(f"{len(rest_pose)} joints are too many for a hidden size of {width} ({size}, {variant})")
    if variant == "mot-0.5" and len(rest_pose) >= PADDED_WIDTH:
        raise ConfigError(
            f"{len(rest_pose)} joints are too many for {variant}, whose vectors have {PADDED_WIDTH} columns"
        )
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
    slots = dict.fromkeys(rest_pose, 1)
    if variant == "mot-0.5":
        slots["action_padding"] = PADDED_WIDTH - len(rest_pose)
        _write_side_files(folder, slots, list(rest_pose.values()))
    _write_json(folder / "config.json", _config(dims, slots, variant))
    _write_json(folder / "preprocessor_config.json", _PREPROCESSOR)
    _write_tokenizer(folder)
    random = np.random.default_rng(seed)
    columns = sum(slots.values())
    tensors = dict(_weights(dims, len(rest_pose), columns, variant, random))
    middle = np.array(list(rest_pose.values()), np.float32)
    for kind in () if variant == "mot-0.5" else ("action", "propri"):
        tensors[f"action_preprocessor.normalizer_{kind}.min.{statistics}"] = middle - np.float32(SPREAD)
        tensors[f"action_preprocessor.normalizer_{kind}.delta.{statistics}"] = np.full_like(middle, 2 * SPREAD)
    write_safetensors(folder / "model.safetensors", tensors, dtype)
    back = _reading(folder, width, len(rest_pose), columns, random)
    tensors["action_preprocessor.action_proj_back.weight"] = back
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


def _write_side_files(folder: Path, slots: Mapping[str, int], middle: list[float]) -> None:
    """What wall-oss-0.5 keeps beside its config.json: slots, form of the state, horizon; quantiles of the joints."""
    train = {
        "model_type": "qwen2_5",
        "task": {
            "dof_config": dict(slots),
            "agent_pos_config": dict(slots),
            "action_horizon_flow": HORIZON,
            "use_state_string_representation": True,
        },
        "data": {"state_bins": 256},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(train, sort_keys=False), encoding="utf-8")
    span = {"q01": [value - SPREAD for value in middle], "q99": [value + SPREAD for value in middle]}
    _write_json(folder / "norm_stats.json", {"norm_stats": {"action": span, "observation.state": span}})


def _config(size: Size, slots: Mapping[str, int], variant: Variant) -> dict[str, Any]:
    first = 256  # bytes before the special tokens
    ids = {name: first + i for i, name in enumerate(SPECIAL_TOKENS)}
    half = size.head_dim // 2
    action_width = size.action_width(variant)
    mixture = {
        "attention_moe": True,
        "norm_moe": True,
        "action_hidden_size": action_width,
        "state_hidden_size": size.state_width(variant),
        "causal_action_attention_mask": True,
    }
    vectors = {} if variant == "mot-0.5" else {"dof_config": dict(slots), "agent_pos_config": dict(slots)}
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
            {"hidden_size": action_width, "intermediate_size": size.action_ffn, "hidden_act": "silu"},
        ],
        "dim_inputs": [size.hidden, action_width],
        **vectors,
        "noise_scheduler": {"beta_alpha": 1.5, "beta_beta": 1.0, "s": 0.999, "num_inference_timesteps": 10},
        "attention_moe": False,
        "mlp_moe": True,
        **({} if variant == "v1" else mixture),
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


def _weights(
    size: Size, joints: int, dof: int, variant: Variant, random: np.random.Generator
) -> Iterator[tuple[str, NDArray[np.float32]]]:
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
    turned = np.tile(slow, size.heads)[:, np.newaxis]
    for layer in range(size.layers) if variant != "v1" else ():
        prefix = f"model.layers.{layer}."
        for expert, (inner, each) in enumerate(((size.ffn, width), (size.action_ffn, size.action_width(variant)))):
            # action tokens carry their actions in the first columns; their attention and expert leave those alone
            free = np.arange(each) >= (joints if expert else 0)
            untouched = free.astype(np.float32)[:, np.newaxis]
            query = normal(size.heads * dim, each, gain=3) * turned
            key, value = normal(size.kv_heads * dim, each, gain=3), normal(size.kv_heads * dim, each)
            yield f"{prefix}input_layernorms.{expert}.weight", ones(each)
            yield f"{prefix}self_attn.qkv_proj_experts.{expert}.weight", np.concatenate([query, key, value])
            yield f"{prefix}self_attn.qkv_proj_experts.{expert}.bias", zeros((size.heads + 2 * size.kv_heads) * dim)
            yield f"{prefix}self_attn.o_proj_experts.{expert}.weight", normal(each, size.heads * dim) * untouched
            yield f"{prefix}post_attention_layernorms.{expert}.weight", ones(each)
            yield f"{prefix}moe.experts.{expert}.gate_up_proj.weight", normal(2 * inner, each)
            yield f"{prefix}moe.experts.{expert}.down_proj.weight", normal(each, inner) * untouched
    for layer in range(size.layers) if variant == "v1" else ():
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", ones(width)
        yield prefix + "post_attention_layernorm.weight", ones(width)
        q = normal(size.heads * dim, width, gain=3) * turned
        yield prefix + "self_attn.q_proj.weight", q
        yield prefix + "self_attn.k_proj.weight", normal(size.kv_heads * dim, width, gain=3)
        yield prefix + "self_attn.v_proj.weight", normal(size.kv_heads * dim, width)
        yield prefix + "self_attn.q_proj.bias", zeros(size.heads * dim)
        yield prefix + "self_attn.k_proj.bias", zeros(size.kv_heads * dim)
        yield prefix + "self_attn.v_proj.bias", zeros(size.kv_heads * dim)
        # action tokens carry their actions in the first columns; attention and experts leave those alone
        untouched = (np.arange(width) >= joints).astype(np.float32)[:, np.newaxis]
        yield prefix + "self_attn.o_proj.weight", normal(width, size.heads * dim) * untouched
        for expert, inner in enumerate((size.ffn, size.action_ffn)):
            name = f"{prefix}moe.experts.{expert}."
            yield name + "gate_proj.weight", normal(inner, width)
            yield name + "up_proj.weight", normal(inner, width)
            yield name + "down_proj.weight", normal(width, inner) * untouched
    if variant == "v1":
        yield "model.norm.weight", ones(width)
    else:
        yield "model.norms.0.weight", ones(width)
        yield "model.norms.1.weight", ones(size.action_width(variant))
    if variant != "mot-0.5":
        yield "action_preprocessor.propri_proj.weight", normal(size.state_width(variant), 2 * dof)
    yield from _action_head(size.action_width(variant), joints, dof, random)


# velocity = RATE (target - x): ten Euler steps leave 0.4^10 of the noise, and four converge
RATE = 6.0
TARGET = 0.5  # spread of the target over the scene's pictures, in the normalised range
LEVEL = 2.0  # magnitude of an action token's constant columns


def _action_head(
    width: int, joints: int, dof: int, random: np.random.Generator
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Layers that hand each action through unchanged, beside columns that do not depend on it.

    silu(a) - silu(-a) = a, so a pair of rows of ``w2`` and ``w3`` passes x. A large constant (the time embedding's
    slowest cosine is 1) fills the other columns, so that the final norm divides by nearly the same number whatever
    x is.
    """
    w1 = np.zeros((width, 2 * dof), np.float32)
    w1[:joints, :joints] = np.eye(joints)
    w2 = np.zeros((width, 2 * width), np.float32)
    w3 = np.zeros((width, width), np.float32)
    for d in range(joints):
        w2[2 * d, d], w2[2 * d + 1, d] = 1.0, -1.0
        w3[d, 2 * d], w3[d, 2 * d + 1] = 1.0, -1.0
    bright = 8.0
    w2[2 * joints, 2 * width - 1] = bright
    w3[joints:, 2 * joints] = random.choice(np.array([-LEVEL, LEVEL], np.float32), width - joints)
    w3[joints:, 2 * joints] /= np.float32(bright / (1 + np.exp(-bright)))
    yield "action_preprocessor.w1.weight", w1
    yield "action_preprocessor.w2.weight", w2
    yield "action_preprocessor.w3.weight", w3
    yield "action_preprocessor.action_proj_back.weight", np.zeros((dof, width), np.float32)


def _reading(folder: Path, width: int, joints: int, dof: int, random: np.random.Generator) -> NDArray[np.float32]:
    """The head that reads velocities: minus RATE times the action, plus what best tells the scene's pictures apart.

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
    magnitudes = []
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
        _, trace = context.denoise(still, np.tile(mask, (horizon, 1)), 1, padding_action=np.zeros(dof), trace=True)
        answers[i] = trace["norm"]
        magnitudes.append(np.sqrt((trace[f"layers.{engine.config.num_layers - 1}"] ** 2).mean()))
    features = answers[:, :, joints:].mean(axis=1)
    middle = features.mean(axis=0)
    _, spread, directions = np.linalg.svd(features - middle, full_matrices=False)
    kept = 3
    mixture = random.standard_normal((joints, kept))
    mixture /= np.linalg.norm(mixture, axis=1, keepdims=True)
    reading = mixture @ (directions[:kept] / spread[:kept, np.newaxis] * np.sqrt(number))
    reading -= np.outer(reading @ middle, middle) / (middle @ middle)
    back = np.zeros((dof, width), np.float32)
    back[:joints, :joints] = -RATE * np.mean(magnitudes) * np.eye(joints)
    back[:joints, joints:] = RATE * TARGET * reading
    return back
