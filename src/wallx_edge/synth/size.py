"""Sizes of synthetic checkpoints."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["HORIZON", "SIZES", "SPREAD", "VARIANTS", "Dtype", "Size", "Variant"]

Dtype = Literal["f32", "bf16", "f16"]
Variant = Literal["v1", "mot-0.1", "mot-0.5"]
VARIANTS: tuple[Variant, ...] = ("v1", "mot-0.1", "mot-0.5")
PADDED_WIDTH = 26  # of the vectors of mot-0.5, the joints and then padding
HORIZON = 16  # of mot-0.5, whose files say it
SPREAD = 0.3  # statistics reach this far around the rest pose [rad]


@dataclass(frozen=True)
class Size:
    """Dimensions of a synthetic checkpoint, as in config.json; ``action_ffn`` is the action expert's.

    Attributes:
        vocab: rows of the embedding; at least the tokenizer's.
        columns: of the vectors of v1 and mot-0.1, the joints and then padding; 0: as many as joints.
        dtype: of the file, where none is asked for.
        is_streamed: whether the weights are written as they are drawn, and no network is run to fit the head.
    """

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
    vocab: int
    columns: int = 0
    dtype: Dtype = "f32"
    is_streamed: bool = False

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden // self.heads

    @property
    def full_attention_blocks(self) -> list[int]:
        """Blocks of the vision tower that see a whole picture: every eighth, and the last."""
        return [i for i in range(self.vision_depth) if i % 8 == 7 or i == self.vision_depth - 1]

    def action_width(self, variant: Variant) -> int:
        """Width of the action expert: half the text's where it has attention of its own."""
        return self.hidden if variant == "v1" else self.hidden // 2

    def state_width(self, variant: Variant) -> int:
        """Width of the state's projection; wall-oss-flow-0.1's is narrower than the stream."""
        # published: 2024 of 2048
        narrower = 24 if self.is_streamed else 8
        return self.hidden - narrower if variant == "mot-0.1" else self.hidden

    def num_columns(self, variant: Variant, joints: int) -> int:
        """Columns of the action and state vectors, padding included."""
        return PADDED_WIDTH if variant == "mot-0.5" else max(self.columns, joints)


SIZES: dict[str, Size] = {
    "tiny": Size(64, 2, 4, 2, 128, 64, 32, 2, 2, 64, 384),
    # about 5 million weights: a chunk takes long enough to be delayed by
    "small": Size(256, 4, 4, 2, 512, 256, 128, 4, 4, 256, 2048),
    # about 100 million weights: large enough to see memory and the cost of a step
    "medium": Size(768, 8, 12, 2, 2048, 768, 384, 6, 6, 1024, 8192),
    # the widths of the published checkpoints with a few of their layers, and all of it: 4.2 billion weights
    "wall-oss-mini": Size(2048, 3, 16, 2, 11008, 2048, 1280, 4, 16, 3420, 153_715, 20, "bf16", True),
    "wall-oss": Size(2048, 36, 16, 2, 11008, 2048, 1280, 32, 16, 3420, 153_715, 20, "bf16", True),
}
