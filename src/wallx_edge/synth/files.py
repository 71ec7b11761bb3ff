"""Everything of a synthetic checkpoint but its weights: config, preprocessor, tokenizer, side files."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
import yaml

from wallx_edge.prompts import flow_prompt, step_by_step_prompt, subtask_prompt
from wallx_edge.synth.size import HORIZON, SPREAD, Size, Variant

__all__ = ["write_files"]

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
BYTES = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


def write_files(folder: Path, size: Size, slots: Mapping[str, int], middle: list[float], variant: Variant) -> None:
    """Writes them.

    Args:
        folder: that is there.
        size: of the network.
        slots: of the action and state vectors.
        middle: of each joint's range, for the files that hold it [rad]
        variant: whose files.
    """
    # as long a prompt as the published tokenizer makes of it, where that is measured
    merges = list(_merges()) if size.is_streamed else []
    if variant == "mot-0.5":
        _write_side_files(folder, slots, middle)
    _write_json(folder / "config.json", _config(size, slots, variant, len(BYTES) + len(merges)))
    _write_json(folder / "preprocessor_config.json", _PREPROCESSOR)
    _write_tokenizer(folder, merges)


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


def _config(size: Size, slots: Mapping[str, int], variant: Variant, first: int) -> dict[str, Any]:
    """config.json; ``first`` is the first special token."""
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
            "fullatt_block_indexes": size.full_attention_blocks,
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


def _merges() -> Iterator[tuple[str, str]]:
    """Merges by which every word of the prompts is one token, as in the published tokenizer.

    A word grows from its beginning. Words after a space come first, so that what begins another word is not merged
    inside of them.
    """
    cameras = ("face_view", "left_wrist_view", "right_wrist_view")
    task = "put the cube on the plate and then do it once more"
    prompts = flow_prompt(cameras, task, 1), subtask_prompt(cameras, "tidy the table"), step_by_step_prompt(1, task)
    pieces = [piece for prompt in prompts for piece in re.split(r"<\|[^|]*\|>", prompt)]
    split = _pre_tokenizer(True).pre_tokenize_str
    words = dict.fromkeys(word for piece in pieces for word, _ in split(piece))
    space = split(" ")[0][0]
    grown = set()
    for word in sorted(words, key=lambda word: not word.startswith(space)):
        for end in range(1, len(word)):
            if word[: end + 1] not in grown:
                grown.add(word[: end + 1])
                yield word[:end], word[end]


def _pre_tokenizer(has_words: bool) -> tokenizers.pre_tokenizers.ByteLevel:
    return tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=has_words)


def _write_tokenizer(folder: Path, merges: list[tuple[str, str]]) -> None:
    """A byte-level tokenizer: 256 bytes, what the merges make, then the special tokens in the reference's order."""
    symbols = [*BYTES, *(left + right for left, right in merges)]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=merges)
    )
    tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.pre_tokenizer = _pre_tokenizer(bool(merges))
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
            "action_token_start_index": len(symbols) + len(SPECIAL_TOKENS),
            "action_token_vocab_size": NUM_FAST_TOKENS,
            "tokenizer_class": "Qwen2Tokenizer",
        },
    )
