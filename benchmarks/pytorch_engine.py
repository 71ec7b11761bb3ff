"""PyTorch beside the engine: the same network, the same reuse of the prefix, in turns on the same machine.

Needs PyTorch, which the package does not: in a virtual environment of its own,

    python3 -m venv /tmp/torch && /tmp/torch/bin/pip install torch==2.13.0 numpy
    /tmp/torch/bin/python benchmarks/pytorch_engine.py CHECKPOINT --python .venv/bin/python

CHECKPOINT is a folder that `wallx-edge synth wall-oss-mini` wrote: its dimensions count, the weights here are random.
The engine runs in a process of its own (`wallx_edge.bench.worker`), which also measures the machine's peaks.
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import torch
    import torch.nn.functional as F  # noqa: N812
except ImportError:
    sys.exit(__doc__)

VERSION = "2.13"
STAGES = ("vision", "prefill", "step", "steps", "token")
# what PyTorch 2.13 reached on two Zen 5 cores, the lower end, as a share of the peak: int8, bf16 or memory read
KNOWN = {
    "int8": {"vision": 0.53, "prefill": 0.69, "step": 0.35, "token": 0.46},
    "bf16": {"vision": 0.71, "prefill": 0.79, "step": 0.43},
    "bf16-packed": {"vision": 0.76, "prefill": 0.84, "step": 0.56},
}
LEAST = 0.9  # of what is known: below, the baseline is broken
PAUSE = 0.3  # until the threads of whoever ran before sleep [s]

Linear = Callable[[torch.Tensor], torch.Tensor]
Make = Callable[..., Linear]


def bf16(out: int, into: int, has_bias: bool, rows: int) -> Linear:
    """A product as PyTorch does it without being told more."""
    weight, bias = random_weights(out, into, has_bias)
    weight = weight.bfloat16()
    bias = None if bias is None else bias.bfloat16()
    return lambda x: F.linear(x, weight, bias)


def bf16_packed(out: int, into: int, has_bias: bool, rows: int) -> Linear:
    """With weights in the order that its library wants for so many rows."""
    weight, bias = random_weights(out, into, has_bias)
    bias = None if bias is None else bias.bfloat16()
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16(), rows)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def int8(out: int, into: int, has_bias: bool, rows: int) -> Linear:
    """Weights with a scale for each row, packed; activations with one for all, found in the call."""
    # the type is on its way out, the fastest products are still behind it
    warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")
    weight, bias = random_weights(out, into, has_bias)
    scales = weight.abs().amax(dim=1) / 127
    zeros = torch.zeros(out, dtype=torch.int64)
    quantized = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(quantized, bias)
    return lambda x: torch.ops.quantized.linear_dynamic(x, packed)


def random_weights(out: int, into: int, has_bias: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Every product has its own, so that memory is read as in the real network."""
    return torch.randn(out, into) * into**-0.5, torch.zeros(out) if has_bias else None


KINDS: dict[str, tuple[Make, str, torch.dtype]] = {
    "int8": (int8, "int8", torch.float32),
    "bf16": (bf16, "bf16", torch.bfloat16),
    "bf16-packed": (bf16_packed, "bf16", torch.bfloat16),
}


class Network:
    """The published v1 network: vision, text and action experts, their caches."""

    def __init__(self, config: dict[str, Any], kind: str, scenario: dict[str, Any]) -> None:
        make, _, self.dtype = KINDS[kind]
        vision = config["vision_config"]
        self.config, self.vision = config, vision
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.width = config["hidden_size"]
        self.dim = self.width // self.heads
        self.prefix, self.horizon = scenario["prefix"], scenario["horizon"]
        self.grids = [tuple(grid) for grid in scenario["grids"]]
        patches = sum(t * h * w for t, h, w in self.grids)
        v, merged = vision["hidden_size"], 4 * vision["hidden_size"]
        self.patches = torch.randn(patches, 1176).to(self.dtype)
        self.embed = make(v, 1176, False, patches)
        self.blocks = [
            {
                "qkv": make(3 * v, v, True, patches),
                "proj": make(v, v, True, patches),
                "gate_up": make(2 * vision["intermediate_size"], v, True, patches),
                "down": make(v, vision["intermediate_size"], True, patches),
                "is_full": i in vision["fullatt_block_indexes"],
            }
            for i in range(vision["depth"])
        ]
        self.merger = make(merged, merged, True, patches // 4), make(self.width, merged, True, patches // 4)
        self.windows = self._windows()
        kv = self.kv_heads * self.dim
        self.layers = []
        for _ in range(config["num_hidden_layers"]):
            qkv, out = (
                make(self.width + 2 * kv, self.width, True, self.prefix),
                make(self.width, self.width, False, self.prefix),
            )
            text, action = (
                {
                    "gate_up": make(2 * expert["intermediate_size"], self.width, False, rows),
                    "down": make(self.width, expert["intermediate_size"], False, rows),
                }
                for expert, rows in zip(config["experts"], (self.prefix, self.horizon), strict=True)
            )
            self.layers.append({"qkv": qkv, "o": out, "text": text, "action": action})
        self.last_kv = make(2 * kv, self.width, True, self.prefix)
        self.head = make(config["vocab_size"], self.width, False, 1)
        columns = sum(config["dof_config"].values())
        self.action_head = (
            make(self.width, 2 * columns, False, self.horizon),
            make(self.width, 2 * self.width, False, self.horizon),
            make(self.width, self.width, False, self.horizon),
            make(columns, self.width, False, self.horizon),
        )
        total = self.prefix + self.horizon
        # embeddings and noise are no part of what is timed
        self.inputs = torch.randn(self.prefix, self.width).to(self.dtype)
        self.noise = torch.randn(self.horizon, columns).to(self.dtype)
        angles = torch.arange(total)[:, None] / 1e6 ** (torch.arange(0, self.dim, 2) / self.dim)
        self.cos, self.sin = (f(torch.cat([angles, angles], 1))[:, None].to(self.dtype) for f in (torch.cos, torch.sin))
        turns = torch.randn(patches, v // vision["num_heads"] // 2)
        self.v_cos, self.v_sin = (
            f(torch.cat([turns, turns], 1))[:, None].to(self.dtype) for f in (torch.cos, torch.sin)
        )
        self.norms = {n: torch.ones(n, dtype=self.dtype) for n in (v, self.width)}
        self.cache = [
            (
                torch.zeros(self.kv_heads, total, self.dim, dtype=self.dtype),
                torch.zeros(self.kv_heads, total, self.dim, dtype=self.dtype),
            )
            for _ in self.layers
        ]

    def _windows(self) -> list[torch.Tensor]:
        """Patches of all windows of one size, together: (windows, patches)"""
        groups: dict[int, list[list[int]]] = {}
        first = 0
        side = self.vision["window_size"] // self.vision["patch_size"]
        for t, high, wide in self.grids:
            for frame in range(t):
                for top in range(0, high, side):
                    for left in range(0, wide, side):
                        rows = range(top, min(top + side, high))
                        columns = range(left, min(left + side, wide))
                        window = [first + (frame * high + r) * wide + c for r in rows for c in columns]
                        groups.setdefault(len(window), []).append(window)
            first += t * high * wide
        return [torch.tensor(group) for group in groups.values()]

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        """Root mean square, over the last dimension."""
        return F.rms_norm(x, (x.shape[-1],), self.norms[x.shape[-1]], 1e-6)

    @staticmethod
    def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Halves against each other; x (rows, heads, dim)."""
        a, b = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-b, a], dim=-1) * sin

    @staticmethod
    def gated(x: torch.Tensor, layer: dict[str, Linear]) -> torch.Tensor:
        """down(silu(gate x) * up x)"""
        gate, up = layer["gate_up"](x).chunk(2, dim=-1)
        return layer["down"](F.silu(gate) * up)

    def see(self) -> torch.Tensor:
        """The vision tower on all pictures."""
        x = self.embed(self.patches)
        heads = self.vision["num_heads"]
        pictures = [h * w for t, h, w in self.grids for _ in range(t)]
        for block in self.blocks:
            q, k, v = block["qkv"](self.norm(x)).unflatten(1, (3, heads, -1)).unbind(1)
            q, k = self.rotate(q, self.v_cos, self.v_sin), self.rotate(k, self.v_cos, self.v_sin)
            if block["is_full"]:
                parts = zip(*(t.split(pictures) for t in (q, k, v)), strict=True)
                seen = torch.cat(
                    [F.scaled_dot_product_attention(*(t.transpose(0, 1) for t in p)).transpose(0, 1) for p in parts]
                )
            else:
                seen = torch.empty_like(q)
                for window in self.windows:
                    seen[window] = F.scaled_dot_product_attention(
                        *(t[window].transpose(1, 2) for t in (q, k, v))
                    ).transpose(1, 2)
            x = x + block["proj"](seen.flatten(1))
            x = x + self.gated(self.norm(x), block)
        first, second = self.merger
        return second(F.gelu(first(self.norm(x).reshape(-1, 4 * x.shape[1]))))

    def attend(self, layer: dict[str, Any], i: int, x: torch.Tensor, first: int, is_causal: bool) -> torch.Tensor:
        """Rows from `first` on over the cache; their keys and values go into it."""
        rows = x.shape[0]
        q, k, v = layer["qkv"](x).unflatten(1, (-1, self.dim)).split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        cos, sin = self.cos[first : first + rows], self.sin[first : first + rows]
        keys, values = self.cache[i]
        keys[:, first : first + rows] = self.rotate(k, cos, sin).transpose(0, 1)
        values[:, first : first + rows] = v.transpose(0, 1)
        q = self.rotate(q, cos, sin).transpose(0, 1)
        seen = F.scaled_dot_product_attention(
            q[None],
            keys[None, :, : first + rows],
            values[None, :, : first + rows],
            is_causal=is_causal,
            enable_gqa=True,
        )[0]
        return layer["o"](seen.transpose(0, 1).flatten(1))

    def prefill(self) -> None:
        """The prefix; of the last layer keys and values only."""
        x = self.inputs[: self.prefix]
        for i, layer in enumerate(self.layers[:-1]):
            x = x + self.attend(layer, i, self.norm(x), 0, True)
            x = x + self.gated(self.norm(x), layer["text"])
        kv = self.last_kv(self.norm(x)).unflatten(1, (-1, self.dim))
        keys, values = self.cache[-1]
        k, v = kv.split([self.kv_heads, self.kv_heads], dim=1)
        keys[:, : self.prefix] = self.rotate(k, self.cos[: self.prefix], self.sin[: self.prefix]).transpose(0, 1)
        values[:, : self.prefix] = v.transpose(0, 1)

    def flow(self, steps: int) -> torch.Tensor:
        """All Euler steps."""
        x = self.noise
        w1, w2, w3, back = self.action_head
        mask, time_embedding = torch.ones_like(x), torch.zeros(self.horizon, self.width, dtype=self.dtype)
        for _ in range(steps):
            h = w3(F.silu(w2(torch.cat([w1(torch.cat([x, mask], 1)), time_embedding], 1))))
            for i, layer in enumerate(self.layers):
                h = h + self.attend(layer, i, self.norm(h), self.prefix, False)
                h = h + self.gated(self.norm(h), layer["action"])
            x = x + back(self.norm(h)) / steps
        return x

    def token(self) -> torch.Tensor:
        """One token of text, with the scores of the next."""
        x = self.inputs[:1]
        for i, layer in enumerate(self.layers):
            x = x + self.attend(layer, i, self.norm(x), self.prefix, False)
            x = x + self.gated(self.norm(x), layer["text"])
        return self.head(self.norm(x)).argmax()


class Engine:
    """The engine's own process."""

    def __init__(self, python: str, task: dict[str, Any]) -> None:
        words = [python, "-m", "wallx_edge.bench.worker", json.dumps(task)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.scenario = self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the engine's process ended with {self._process.wait()}")
        return json.loads(line)

    def ask(self, what: str) -> dict[str, Any]:
        """Its answer to one line."""
        assert self._process.stdin
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def timed(call: Callable[[], object]) -> float:
    """Time of a call [s]"""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def side_by_side(kind: str, args: argparse.Namespace, config: dict[str, Any]) -> dict[str, Any]:
    """Both in turns, the peaks between them."""
    _, peak, _ = KINDS[kind]
    precision = args.precision or peak
    task = {"checkpoint": str(args.checkpoint), "precision": precision, "threads": args.threads, "steps": args.steps}
    engine = Engine(args.python, task)
    scenario = engine.scenario
    network = Network(config, kind, scenario)
    calls: dict[str, Callable[[], object]] = {
        "vision": network.see,
        "prefill": network.prefill,
        "steps": lambda: network.flow(args.steps),
        "token": network.token,
    }
    for call in calls.values():
        call()
    theirs: dict[str, list[float]] = {stage: [] for stage in STAGES}
    ours: dict[str, list[float]] = {stage: [] for stage in STAGES}
    shares: dict[str, dict[str, list[float]]] = {who: {stage: [] for stage in STAGES} for who in ("pytorch", "engine")}
    for _ in range(args.repeats):
        before = engine.ask("peaks")
        time.sleep(PAUSE)
        taken = {stage: timed(call) for stage, call in calls.items()}
        taken["step"] = taken["steps"] / args.steps
        time.sleep(PAUSE)
        between = engine.ask("peaks")
        own = engine.ask("stages")
        after = engine.ask("peaks")
        for stage in STAGES:
            theirs[stage].append(taken[stage])
            ours[stage].append(own[stage])
            for who, seconds, width, around in (
                ("pytorch", taken[stage], peak, (before, between)),
                ("engine", own[stage], precision, (between, after)),
            ):
                shares[who][stage].append(share(scenario["work"][stage], stage, width, seconds, around))
    engine.close()
    found: dict[str, Any] = {"kind": kind, "precision": precision, "stages": {}, "broken": []}
    for stage in STAGES:
        row = {
            "pytorch_ms": statistics.median(theirs[stage]) * 1e3,
            "engine_ms": statistics.median(ours[stage]) * 1e3,
            "pytorch_share": statistics.median(shares["pytorch"][stage]),
            "engine_share": statistics.median(shares["engine"][stage]),
        }
        row["ratio"] = row["engine_ms"] / row["pytorch_ms"]
        found["stages"][stage] = row
        known = KNOWN[kind].get(stage, 0.0)
        if row["pytorch_share"] < LEAST * known:
            found["broken"].append(
                f"{stage}: PyTorch reaches {row['pytorch_share']:.0%} of the peak, known is {known:.0%}"
            )
    return found


def share(
    work: dict[str, Any], stage: str, precision: str, seconds: float, around: tuple[dict[str, float], ...]
) -> float:
    """Of the peak that bounds the stage; the faster of the two probes beside it counts."""
    peaks = {name: max(probe[name] for probe in around) for name in around[0]}
    if stage == "token":
        return work["bytes"][precision] / peaks["read"] / seconds
    # for the engine's mixed precision the faster peak: a share that is too low, if anything
    return work["operations"] / peaks.get(precision, peaks.get("int8", 0.0)) / seconds


def main() -> int:
    """Measures and prints; 1 when PyTorch is slower than it is known to be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("checkpoint", type=Path, help="folder of wallx-edge synth")
    parser.add_argument("--python", default=".venv/bin/python", help="that has wallx_edge (.venv/bin/python)")
    parser.add_argument("--kind", choices=list(KINDS), action="append", help="of PyTorch's products; all by default")
    parser.add_argument("--precision", help="of the engine; that of PyTorch's products by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not torch.__version__.startswith(VERSION):
        print(f"PyTorch is {torch.__version__}; what is known of it was measured with {VERSION}", file=sys.stderr)
    torch.set_num_threads(args.threads)
    torch.backends.quantized.engine = "onednn"
    config = json.loads((args.checkpoint / "config.json").read_text(encoding="utf-8"))
    with torch.inference_mode():
        results = [side_by_side(kind, args, config) for kind in args.kind or KINDS]
    if args.json:
        print(json.dumps({"pytorch": torch.__version__, "results": results}, indent=1))
    else:
        for found in results:
            print(
                f"\nPyTorch {torch.__version__}, {found['kind']}; engine, {found['precision']}; {args.threads} threads"
            )
            for stage, row in found["stages"].items():
                print(
                    f"  {stage:8s} PyTorch {row['pytorch_ms']:9.2f} ms, {row['pytorch_share']:.1%} of the peak; engine "
                    f"{row['engine_ms']:9.2f} ms, {row['engine_share']:.1%}: {row['ratio']:.2f} of PyTorch's time"
                )
            for reason in found["broken"]:
                print(f"  broken baseline: {reason}")
    return 1 if any(found["broken"] for found in results) else 0


if __name__ == "__main__":
    sys.exit(main())
