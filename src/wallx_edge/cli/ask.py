"""wallx-edge ask: a question about pictures, answered as it is written, its places drawn."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from wallx_edge.cli.computing import add_computing_arguments, computing
from wallx_edge.errors import AnswerError, ConfigError
from wallx_edge.generation import GenerationConfig, OnText
from wallx_edge.grounding import Grounding, draw
from wallx_edge.pictures import read_picture
from wallx_edge.reasoner import Answer, Reasoner

_UNFINISHED = {"budget": "unfinished: the budget of --max-tokens is used up", "cancelled": "cancelled"}
# a terminal obeys control characters; the model may write any
_HARMLESS = {code: "�" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("arguments", nargs="+", metavar="IMAGE... QUESTION", help="picture files, then the question")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="folder in the published layout")
    parser.add_argument("--step-by-step", action="store_true", help="QUESTION is a goal: ask what to do next for it")
    parser.add_argument(
        "--draw", type=Path, metavar="OUT.png", help="the first picture with the answer's boxes and points"
    )
    parser.add_argument("--max-tokens", type=int, default=256, help="budget of the answer (256)")
    parser.add_argument("--temperature", type=float, default=0.0, help="of the draws; 0: always the best token (0)")
    parser.add_argument("--top-p", type=float, default=1.0, help="share of the best tokens that are drawn from (1)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends the answer; may be repeated")
    parser.add_argument(
        "--resolution", type=int, default=-1, help="long side of a picture [px]; -1: its own, as the reference (-1)"
    )
    add_computing_arguments(parser)
    parser.add_argument("--json", action="store_true", help="for programs; nothing is streamed")


def run(args: argparse.Namespace) -> int:
    """Asks, streams and prints; 1 when the model wrote nothing."""
    *files, question = args.arguments
    if not files:
        raise ConfigError("ask: a question about no picture; put one or more picture files before the question")
    if _is_file(question):
        raise ConfigError(f"ask: the last argument, {question}, is a file; put the question behind the pictures")
    if args.draw and args.draw.suffix.lower() not in Image.registered_extensions():
        raise ConfigError(f"--draw {args.draw}: {args.draw.suffix!r} is no kind of picture; expected a name as out.png")
    config = GenerationConfig(
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        seed=args.seed,
        stop=tuple(args.stop),
    )
    images = [read_picture(f"picture {number}", file) for number, file in enumerate(files, 1)]
    asked = computing(args)
    reasoner = Reasoner.load(args.checkpoint, computing=asked)
    call = reasoner.reason if args.step_by_step else reasoner.ask
    console = Console(highlight=False, stderr=True)
    status = console.status("looking")  # until the first text, which for large pictures may take long
    if console.is_terminal:
        status.start()

    def stream(piece: str) -> None:
        if piece:
            status.stop()
            print(_printable(piece), end="", flush=True)

    on_text: OnText | None = None if args.json else stream
    try:
        answer = call(images, question, config, on_text, resolution=args.resolution)
    finally:
        status.stop()
    places = answer.grounding()
    drawn = bool(args.draw and places.marks)
    if drawn:
        try:
            draw(images[0], places.marks).save(args.draw)
        except OSError as error:
            raise ConfigError(f"--draw {args.draw}: {error.strerror or error}") from error
    if args.json:
        print(
            json.dumps(
                _as_json(answer, places, args.draw if drawn else None) | {"computing": asked.report(reasoner.engine)}
            )
        )
    else:
        print()
        _print(console, answer, places, args.draw, drawn)
    if not answer.text:
        raise AnswerError("the model wrote nothing")
    return 0


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # a question may be longer than a file's name
        return False


def _printable(text: str) -> str:
    encoding = sys.stdout.encoding or "utf-8"
    return text.translate(_HARMLESS).encode(encoding, "replace").decode(encoding)


def _print(console: Console, answer: Answer, places: Grounding, target: Path | None, drawn: bool) -> None:
    made = answer.generated
    sys.stdout.flush()
    for number, mark in enumerate(places.marks, 1):
        where = ", ".join(f"{value:.0f}" for value in mark.coordinates)
        console.print(
            f"{number} {mark.kind} [{where}] px {mark.label.translate(_HARMLESS)}", markup=False, soft_wrap=True
        )
    for problem in places.problems:
        console.print(f"not a place: {problem.translate(_HARMLESS)}", markup=False, soft_wrap=True)
    if target is not None:
        console.print(f"drawn: {target}" if drawn else "nothing to draw: the answer names no place", markup=False)
    note = f"; {_UNFINISHED[made.ended]}" if made.ended in _UNFINISHED else ""
    console.print(
        f"{answer.prompt_tokens} tokens of prompt in {answer.prefill_s:.2f} s, {len(made.ids)} of answer, "
        f"{made.tokens_per_s:.1f} per second{note}",
        markup=False,
        soft_wrap=True,
    )


def _as_json(answer: Answer, places: Grounding, drawn: Path | None) -> dict[str, Any]:
    made = answer.generated
    return {
        "text": answer.text,
        "ended": made.ended,
        "stopped_by": made.stopped_by,
        "ids": made.ids.tolist(),
        "prompt_tokens": answer.prompt_tokens,
        "shared_tokens": answer.shared_tokens,
        "prefill_s": answer.prefill_s,
        "elapsed_s": made.elapsed_s,
        "longest_token_s": made.longest_token_s,
        "places": [{"kind": m.kind, "coordinates_px": list(m.coordinates), "label": m.label} for m in places.marks],
        "problems": list(places.problems),
        "drawn": None if drawn is None else str(drawn),
    }
