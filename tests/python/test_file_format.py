"""The format, written from docs/file_format.md with numpy alone: it loads, and computes what packing on load does."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from casefiles import linked_copy, replace
from golden import CASES, read_safetensors
from wallx_edge.computing import Computing
from wallx_edge.errors import CheckpointError
from wallx_edge.golden_case import GoldenCase
from wallx_edge.train_config import load_engine

Tensors = dict[str, NDArray[Any]]
KEPT_F32 = ("norm", "ln_q", ".normalizer_", "propri_proj", "action_preprocessor.w1.", "action_proj_back", "time_mlp")


def bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded: NDArray[np.uint16] = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return rounded


def columns(rows: NDArray[np.float32], is_gated: bool) -> NDArray[np.float32]:
    """Rows of a weight or a bias in the order of a packed layer's columns."""

    def padded(part: NDArray[np.float32], multiple: int) -> NDArray[np.float32]:
        return np.pad(part, ((0, -len(part) % multiple), (0, 0)))

    if not is_gated:
        return padded(rows, 32)
    gate, up = (padded(half, 16).reshape(-1, 16, rows.shape[1]) for half in np.split(rows, 2))
    return np.stack([gate, up], 1).reshape(-1, rows.shape[1])


def packed(
    name: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None, kind: str, is_gated: bool
) -> Tensors:
    """A packed layer's tensors."""
    weight = columns(weight.reshape(len(weight), -1), is_gated)
    weight = np.pad(weight, ((0, 0), (0, -weight.shape[1] % 16)))
    out: Tensors = {}
    group = 2 if kind == "BF16" else 4
    if kind == "BF16":
        numbers: NDArray[Any] = bf16(weight)
    else:
        largest = np.abs(weight).max(1)
        inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
        numbers = np.rint(np.clip(weight * inverse[:, None], -127, 127)).astype(np.int8)
        out[f"{name}.scale"] = largest / np.float32(127)
        out[f"{name}.offset"] = -128 * numbers.astype(np.int32).sum(1, dtype=np.int32)
    panels = numbers.reshape(-1, 16, weight.shape[1] // group, group).transpose(0, 2, 1, 3)
    out = {f"{name}.panels": np.ascontiguousarray(panels), **out}
    if bias is not None:
        out[f"{name}.bias"] = columns(bias[:, None], is_gated).ravel()
    return out


def quantized(source: Tensors, precision: str, is_head_tied: bool) -> tuple[Tensors, Tensors, Tensors]:
    """Packed layers, tensors in fp32 and tensors in bf16, as the tables of the document say."""
    left = dict(source)
    layers: Tensors = {}
    kinds = {"bf16": ("BF16",) * 4, "int8": ("I8",) * 4, "w8": ("I8",) * 4, "mixed": ("BF16", "BF16", "I8", "I8")}
    vision, attention, feed_forward, head = kinds[precision]

    def take(name: str, parts: list[str], kind: str, is_gated: bool = False) -> None:
        weight = np.concatenate([left.pop(f"{part}.weight") for part in parts])
        biases = [left.pop(f"{part}.bias") for part in parts if f"{part}.bias" in left]
        layers.update(packed(name, weight, np.concatenate(biases) if biases else None, kind, is_gated))

    def gated(prefix: str, kind: str) -> None:
        fused, parts = f"{prefix}gate_up_proj", [f"{prefix}gate_proj", f"{prefix}up_proj"]
        if f"{fused}.weight" in left:  # the newer layout, whose halves may be padded beyond what down_proj takes
            used = left[f"{prefix}down_proj.weight"].shape[1]
            for ending in [e for e in ("weight", "bias") if f"{fused}.{e}" in left]:
                both = np.split(left.pop(f"{fused}.{ending}"), 2)
                left.update({f"{part}.{ending}": half[:used] for part, half in zip(parts, both, strict=True)})
        take(fused, parts, kind, True)
        take(f"{prefix}down_proj", [f"{prefix}down_proj"], kind)

    def numbers(before: str, after: str) -> list[str]:
        found = {key[len(before) :].split(".")[0] for key in source if key.startswith(before) and after in key}
        return sorted(found)

    take("visual.patch_embed.proj", ["visual.patch_embed.proj"], "BF16")
    for block in numbers("visual.blocks.", ".attn."):
        for part in ("attn.qkv", "attn.proj"):
            take(f"visual.blocks.{block}.{part}", [f"visual.blocks.{block}.{part}"], vision)
        gated(f"visual.blocks.{block}.mlp.", vision)
    for part in ("0", "2"):
        take(f"visual.merger.mlp.{part}", [f"visual.merger.mlp.{part}"], vision)
    for layer in numbers("model.layers.", ".self_attn."):
        prefix = f"model.layers.{layer}.self_attn."
        for ending in ("_proj", "_proj_experts.0", "_proj_experts.1"):
            if f"{prefix}o{ending}.weight" in source:
                is_fused = f"{prefix}qkv{ending}.weight" in source
                parts = ["qkv"] if is_fused else ["q", "k", "v"]
                take(f"{prefix}qkv{ending}", [f"{prefix}{part}{ending}" for part in parts], attention)
                take(f"{prefix}o{ending}", [f"{prefix}o{ending}"], attention)
        for expert in "01":
            gated(f"model.layers.{layer}.moe.experts.{expert}.", feed_forward)
    for name in [key[: -len(".weight")] for key in source if key.endswith("dense.weight")]:
        take(name, [name], "BF16")
    w2 = left.pop("action_preprocessor.w2.weight", None)
    if w2 is not None:
        width = len(w2)
        for first in (0, width):
            name = f"action_preprocessor.w2.columns{first}"
            layers.update(packed(name, w2[:, first : first + width], None, "BF16", False))
        take("action_preprocessor.w3", ["action_preprocessor.w3"], "BF16")
    if is_head_tied:
        left.pop("lm_head.weight", None)
        layers.update(packed("lm_head", source["model.embed_tokens.weight"], None, head, False))
    else:
        take("lm_head", ["lm_head"], head)
    wide = {"model.embed_tokens.weight": bf16(left.pop("model.embed_tokens.weight"))}
    assert all(any(part in name for part in KEPT_F32) for name in left)
    return layers, left, wide


def write(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    names = {"float32": "F32", "int32": "I32", "int8": "I8", "uint16": "BF16"}
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, value in tensors.items():
        header[name] = {
            "dtype": names[str(value.dtype)],
            "shape": list(value.shape),
            "data_offsets": [at, at + value.nbytes],
        }
        at += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    replace(path, len(text).to_bytes(8, "little") + text + b"".join(value.tobytes() for value in tensors.values()))


@pytest.mark.parametrize("golden", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("precision", ["bf16", "int8", "mixed", "w8"])
def test_a_file_written_by_the_document_computes_the_same_bits(precision: str, golden: Path, tmp_path: Path) -> None:
    out = linked_copy(golden, tmp_path / "written")
    theirs = GoldenCase(golden, Computing(precision))
    source = read_safetensors(golden / "model.safetensors")
    layers, exact, wide = quantized(dict(source), precision, theirs.config.is_head_tied)
    metadata = {"wallx_format": "1", "wallx_precision": precision}
    write(out / "model.safetensors", layers | exact | wide, metadata)
    ours = GoldenCase(out)
    assert ours.engine.precision == precision
    assert ours.engine.packed_bytes == ours.engine.widened_bytes == 0
    for group in ("vision", "layers", "flow"):
        computed = ours.compute(group)
        for name, value in theirs.compute(group).items():
            assert np.array_equal(value, computed[name]), name
    # in any other order too; then what is misplaced is copied
    if precision == "int8":
        write(out / "model.safetensors", wide | exact | {"model.norm.x": np.zeros(0, np.float32)} | layers, metadata)
        with pytest.raises(CheckpointError, match=r"model\.norm\.x"):
            load_engine(out)
        bytes_first = {"action_preprocessor.normalizer_x": np.zeros(1, np.float32)}
        write(out / "model.safetensors", bytes_first | layers | exact | wide, metadata)
        moved = GoldenCase(out)
        assert moved.engine.packed_bytes > 0
        assert np.array_equal(moved.compute("flow")["flow.action"], ours.compute("flow")["flow.action"])
