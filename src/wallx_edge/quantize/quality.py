"""Quality: what a quantized checkpoint says, against the same checkpoint in fp32."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge._core import Engine
from wallx_edge.computing import RESERVE, Computing, free_memory
from wallx_edge.policy import Policy, PolicyConfig
from wallx_edge.quantize.observations import read_observations, synthetic
from wallx_edge.statistics import inside, sources
from wallx_edge.types import DofLayout, Observation

__all__ = ["Answers", "Quality", "answer", "compare", "first_statistics", "fp32_bytes", "measure"]

NUM_TOKENS = 16  # of text, for each observation
NUM_NOISES = 2  # where the flow starts, for each observation
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Answers:
    """What one policy says of some observations.

    Attributes:
        actions: in the model's range, columns in use   (observations, noises, horizon, columns)
        rows: chunks, SI   (observations, noises, horizon, columns of the layout)
        scores: of the next token, after the prompt and the reference's tokens, the best one   (observations, tokens)
        layers: name -> what it computed of the first observation   (rows, width)
        layout: of ``rows``.
        step: between rows [s].
        computing: what was asked and given.
    """

    actions: NDArray[np.float32]
    rows: NDArray[np.float64]
    tokens: NDArray[np.int64]
    layers: dict[str, NDArray[np.float32]]
    layout: DofLayout
    step: float
    computing: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Quality:
    """The report.

    Attributes:
        reference: precision that was compared with: fp32, or bf16 where that needs more memory than there is.
        is_synthetic: whether the observations were drawn, not the user's.
        num_observations: how many.
        num_noises: starts of the flow for each.
        statistics: of the checkpoint that states and rows are in.
        cosine: of the integrated action to the reference's, in the model's range   (observations x noises)
        jerk: third difference of the chunk, root mean square, over the reference's   (observations x noises)
        token_agreement: share of next tokens that are the reference's.
        slots: slot -> unit, root mean square and largest difference of its rows, SI.
        layers: traced layer -> noise: |got - expected| / |expected|.
        columns: name of each column of the rows, with its unit.
        example: rows of the worst chunk, of both   (2, horizon, columns)
        computing: of the quantized checkpoint.
    """

    reference: str
    is_synthetic: bool
    num_observations: int
    num_noises: int
    statistics: str
    cosine: list[float]
    jerk: list[float]
    token_agreement: float
    slots: dict[str, dict[str, Any]]
    layers: dict[str, float]
    columns: list[str]
    example: NDArray[np.float64] = field(repr=False)
    computing: dict[str, dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """For the file."""
        return {
            "reference": self.reference,
            "observations": "synthetic" if self.is_synthetic else "the user's",
            "num_observations": self.num_observations,
            "num_noises": self.num_noises,
            "statistics": self.statistics,
            "cosine": {"median": float(np.median(self.cosine)), "worst": min(self.cosine), "each": self.cosine},
            "jerk_ratio": {"median": float(np.median(self.jerk)), "worst": max(self.jerk), "each": self.jerk},
            "next_token_agreement": self.token_agreement,
            "slots": self.slots,
            "layers": self.layers,
            "computing": self.computing,
        }


def measure(
    source: Path,
    quantized: Path,
    observations: Path | None = None,
    *,
    statistics: str | None = None,
    count: int = 4,
    computing: Computing | None = None,
    progress: Progress | None = None,
) -> Quality:
    """Lets both checkpoints answer the same observations, one after the other. Blocks, for minutes at full size.

    Args:
        source: in the published layout.
        quantized: made of it; or ``source`` itself, with ``computing``.
        observations: a file as :func:`wallx_edge.quantize.observations.read_observations` says; synthetic ones if not.
        statistics: of the checkpoint; the only ones or, where there are several, the first.
        count: of synthetic observations.
        computing: of the quantized one; its defaults when not given.
        progress: called with what is being done.

    Raises:
        CheckpointError: one of them cannot be loaded.
        ConfigError: an observation does not fit the checkpoint.
    """
    say = progress or (lambda text: None)
    reference = _reference(source)
    say(f"answering in {reference.precision}")
    engine = reference.load(source)
    config = PolicyConfig(statistics=statistics or first_statistics(source, engine))
    policy = Policy(source, config, engine)
    seen = synthetic(policy, count) if observations is None else read_observations(observations, policy)
    noises = [[policy.noise() for _ in range(NUM_NOISES)] for _ in seen]
    expected = answer(policy, seen, noises, None, reference)
    name = policy.statistics
    del policy, engine  # its weights go before the others come
    computing = computing or Computing()
    say("answering with the quantized weights")
    policy = Policy(quantized, config, computing.load(quantized))
    got = answer(policy, seen, noises, expected.tokens, computing)
    return compare(got, expected, reference.precision, observations is None, name)


def answer(
    policy: Policy,
    observations: Sequence[Observation],
    noises: Sequence[Sequence[NDArray[np.float32]]],
    tokens: NDArray[np.int64] | None,
    computing: Computing,
) -> Answers:
    """What a policy says.

    Args:
        policy: that is asked.
        observations: what it sees.
        noises: for each of them, where flows start.
        tokens: the reference's, which are taken whatever this one would write; ``None``: its own   (observations, n)
        computing: how the policy was loaded.
    """
    actions, rows, best = [], [], []
    layers: dict[str, NDArray[np.float32]] = {}
    for number, observation in enumerate(observations):
        prompt = policy.prompt(observation)
        if number == 0:
            layers |= {
                f"prompt: {k}": v for k, v in policy.context.prefill(*prompt, trace=True).items() if _is_layer(k)
            }
            _, steps = policy.context.denoise(noises[0][0], **policy.flow(), trace=True)
            layers |= {f"actions: {k}": v for k, v in steps.items() if _is_layer(k)}
        policy.context.prefill(*prompt)
        flows = [policy.context.denoise(noise, **policy.flow()) for noise in noises[number]]
        actions.append([flow[:, policy.columns_in_use] for flow in flows])
        rows.append([policy.chunk(flow, observation).rows for flow in flows])
        text = policy.context.fork()
        written = []
        for at in range(NUM_TOKENS):
            written.append(int(text.logits().argmax()))
            text.decode(written[-1] if tokens is None else int(tokens[number, at]))
        best.append(written)
        del text
    return Answers(
        np.array(actions, np.float32),
        np.array(rows),
        np.array(best, np.int64),
        layers,
        policy.action_layout,
        policy.config.step,
        computing.report(policy.engine),
    )


def compare(got: Answers, expected: Answers, reference: str, is_synthetic: bool, statistics: str) -> Quality:
    """The report on two sets of answers to the same observations."""
    shape = expected.actions.shape
    difference = got.rows - expected.rows
    cosine = _cosine(got.actions.reshape(*shape[:2], -1), expected.actions.reshape(*shape[:2], -1))
    jerk = _jerk(got.rows) / np.maximum(_jerk(expected.rows), 1e-12)
    worst = np.unravel_index(int(cosine.argmin()), cosine.shape)
    return Quality(
        reference=reference,
        is_synthetic=is_synthetic,
        num_observations=shape[0],
        num_noises=shape[1],
        statistics=statistics,
        cosine=[float(value) for value in cosine.ravel()],
        jerk=[float(value) for value in jerk.ravel()],
        token_agreement=float((got.tokens == expected.tokens).mean()),
        slots={
            slot.name: {
                "unit": " ".join(dict.fromkeys(unit or "?" for unit in slot.units)),
                "rms": float(np.sqrt((difference[..., slot.columns] ** 2).mean())),
                "largest": float(np.abs(difference[..., slot.columns]).max()),
                "range": float(np.ptp(expected.rows[..., slot.columns])),
            }
            for slot in expected.layout
        },
        layers={name: _noise(got.layers[name], value) for name, value in expected.layers.items()},
        columns=[
            f"{slot.name}{f'[{i}]' if slot.width > 1 else ''} [{slot.units[i] or '?'}]"
            for slot in expected.layout
            for i in range(slot.width)
        ],
        example=np.stack([expected.rows[worst], got.rows[worst]]),
        computing=got.computing,
    )


def _is_layer(name: str) -> bool:
    return name.startswith(("vision.blocks.", "vision.merger", "layers.", "norm")) and not name.endswith("_layernorm")


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    x, y = a.astype(np.float64), b.astype(np.float64)
    product = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return np.asarray((x * y).sum(-1) / np.maximum(product, 1e-30))


def _jerk(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt((np.diff(rows, 3, axis=2) ** 2).mean((2, 3))))


def _noise(got: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(got.astype(np.float64) - expected) / max(float(np.linalg.norm(expected)), 1e-30))


def _reference(source: Path) -> Computing:
    """fp32 where all of it fits into memory, else bf16."""
    return Computing("fp32" if fp32_bytes(source) < free_memory() else "bf16")


def fp32_bytes(source: Path) -> int:
    """What a checkpoint's weights need in fp32, at most [B]."""
    return RESERVE + 2 * sum(path.stat().st_size for path in source.glob("*.safetensors"))


def first_statistics(source: Path, engine: Engine) -> str | None:
    """Where a policy would ask which, the first."""
    keys = [key for place in sources(source, inside(engine)) for key in place.keys]
    return keys[0] if len(set(keys)) > 1 else None
