"""Scripted checkpoints: real ones whose weights make each token's successor certain: a test knows the answer."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from casefiles import change_json, linked_copy, replace, write_tensors
from golden import CASE1, tensors

NEWLINE, END = 198, 514  # the last token of every prompt, and the end marker
FIRST_ACTION = 536


def scripted(
    folder: Path, script: Sequence[int], *, back_to: int | None = None, texts: Mapping[int, str] | None = None
) -> Path:
    """Writes a copy of case 1 that answers every prompt with ``script``.

    Attention and feed-forward add nothing, so the last token alone decides: the head of token ``b`` is the embedding
    of the token before it. All tokens of a script must differ.

    Args:
        folder: to write to.
        script: token ids; the end marker is not added.
        back_to: index in the script that follows its last token: an answer that never ends.
        texts: action token id -> what the tokenizer says it is instead.
    """
    linked_copy(CASE1, folder)
    weights = dict(tensors("model"))
    for name, value in weights.items():
        if name.startswith("model.layers.") and name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name] = np.zeros_like(value)
    embeddings = weights["model.embed_tokens.weight"]
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True) / weights["model.norm.weight"]
    chain = [NEWLINE, *script]
    assert len(set(chain)) == len(chain)
    head = np.zeros_like(embeddings)
    for before, after in pairwise(chain):
        head[after] += units[before]
    if back_to is not None:
        head[script[back_to]] += units[script[-1]]
    weights["lm_head.weight"] = head
    write_tensors(folder / "model.safetensors", weights)
    change_json(folder / "config.json", lambda config: config.update(tie_word_embeddings=False))
    if texts:
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        for token in content["added_tokens"]:
            token["content"] = texts.get(token["id"], token["content"])
        replace(folder / "tokenizer.json", json.dumps(content))
    return folder
