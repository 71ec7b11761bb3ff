"""Verify, group fast: the action tokens' codec against the reference, and the tokens the model writes itself."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge.errors import CheckpointError
from wallx_edge.fast import FOLDER, FastCodec
from wallx_edge.prompts import END

if TYPE_CHECKING:
    from wallx_edge import _core
    from wallx_edge.golden_case import GoldenCase

__all__ = ["fast", "greedy"]

Tensors = dict[str, NDArray[Any]]


def fast(case: GoldenCase) -> Tensors:
    """Every tensor of the group: ``fast.*`` (the codec on the case's actions), ``fastgen.*`` (greedy generation).

    Args:
        case: with a folder :data:`wallx_edge.fast.FOLDER`, ``fast.action_norm`` and ``dof_mask``.

    Raises:
        CheckpointError: a file or tensor is missing or damaged.
    """
    tokenizer = case.tokenizer
    codec = FastCodec.load(case.directory / FOLDER, tokenizer.action_token_start_index)
    actions = case._input("fast.action_norm")[0]
    active = np.flatnonzero(case._input("dof_mask")[0, 0])
    if actions.ndim != 2 or active.size != actions.shape[1]:
        raise CheckpointError(
            f"{case.directory}: fast.action_norm has {actions.shape[-1]} slots, dof_mask {active.size} active ones"
        )
    normalizer = case._statistics("action", case._entry("robot"), case.config.action_dim)

    def unnormalized(normalized: NDArray[Any]) -> NDArray[Any]:
        rows = np.zeros((normalized.shape[0], case.config.action_dim), np.float32)
        rows[:, active] = normalized
        return normalizer.unnormalize(rows)[np.newaxis, :, active]

    ids = codec.encode(actions)
    decoded = codec.decode(ids, *actions.shape)
    # the prompt of flow actions without them, whatever form its state has
    prompt = case.flow_ids[: -case._entry("horizon")]
    ending = tokenizer.encode(f"{END}\n")
    trace = case._prefill()
    written = greedy(case.context, case._entry("max_new_tokens"), tokenizer.special_id(END))
    return {
        "fast.dct_quant": codec.coefficients(actions)[np.newaxis].astype(np.int32),
        "fast.ids": ids - codec.first_id,
        "fast.vocab_ids": ids,
        "fast.train_input_ids": np.concatenate([prompt, ids, ending])[np.newaxis],
        "fast.decoded_norm": decoded[np.newaxis],
        "fast.decoded_action": unnormalized(decoded),
        "fastgen.gt_action": unnormalized(actions),
        "fastgen.prompt_ids": prompt[np.newaxis],
        "fastgen.prefill_norm": trace["norm"][np.newaxis],
        **{f"fastgen.{name}": value for name, value in written.items()},
    }


def greedy(context: _core.Context, max_tokens: int, end: int, num_logit_rows: int = 40) -> Tensors:
    """Writes the best token again and again, and keeps what tells how close the choice was.

    Args:
        context: with the prompt in it.
        max_tokens: to write at most.
        end: id after which to stop; it is kept.
        num_logit_rows: the cases keep the first rows only.

    Returns:
        generated_ids (1, n), logits (rows, vocab_size), top2_margin (n,), runner_up (n,)
    """
    generated: list[int] = []
    runners_up: list[int] = []
    logits: list[NDArray[np.float32]] = []
    margins: list[float] = []
    while len(generated) < max_tokens:
        scores = context.logits()
        first = int(scores.argmax())
        second = next(int(i) for i in np.argpartition(scores, -2)[-2:] if i != first)
        if len(logits) < num_logit_rows:
            logits.append(scores)
        margins.append(float(scores[first] - scores[second]))
        generated.append(first)
        runners_up.append(second)
        if first == end:
            break
        context.decode(first)
    return {
        "generated_ids": np.array([generated], np.int64),
        "logits": np.stack(logits),
        "top2_margin": np.array(margins, np.float32),
        "runner_up": np.array(runners_up, np.int64),
    }
