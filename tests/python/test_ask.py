"""wallx-edge ask: streams the answer, draws its places on the picture, and says what is wrong in one line."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from golden import CASE1
from scripted import END, FIRST_ACTION, scripted
from wallx_edge.cli import main

TEXTS = {
    FIRST_ACTION: "The cup is at ",
    FIRST_ACTION + 1: "<box>[161, 119, 483, 357]</box>",
    FIRST_ACTION + 2: ", the pen is lost: <box>[1, 2]</box>\x1b[2J",
}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "table.png"
    Image.fromarray(np.full((480, 640, 3), 90, np.uint8)).save(path)
    return path


@pytest.fixture
def pointing(tmp_path: Path) -> Path:
    return scripted(tmp_path / "pointing", [*TEXTS, END], texts=TEXTS)


def test_streams_the_answer_and_draws_its_places(
    picture: Path, pointing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.png"
    args = ["ask", str(picture), "Where is the cup?", "--checkpoint", str(pointing), "--draw", str(target)]
    assert main(args) == 0
    out, err = capsys.readouterr()
    # a terminal must not obey the model
    assert out == "".join(TEXTS.values()).replace("\x1b", "�") + "\n"
    assert "1 box [160, 120, 480, 360] px" in err
    assert "not a place: '<box>[1, 2]</box>': expected 4 numbers" in err
    assert f"drawn: {target}" in err
    assert "tokens of prompt" in err
    drawn = np.asarray(Image.open(target))
    assert drawn.shape == (480, 640, 3)
    assert (drawn[240, 160] != 90).any() and (drawn[240, 479] != 90).any() and (drawn[359, 320] != 90).any()
    assert (drawn[240, 200:440] == 90).all() and (drawn[400:] == 90).all()


def test_json_has_everything(picture: Path, pointing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", str(picture), "Where?", "--checkpoint", str(pointing), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["text"] == "".join(TEXTS.values())
    assert (report["ended"], report["stopped_by"]) == ("stop", "<|im_end|>")
    assert report["ids"] == [*TEXTS, END]
    assert report["places"] == [{"kind": "box", "coordinates_px": pytest.approx([160, 120, 480, 360]), "label": ""}]
    assert len(report["problems"]) == 1
    assert report["drawn"] is None
    assert report["prompt_tokens"] > 391 and report["shared_tokens"] == 0


def test_stops_and_budget_are_said(picture: Path, pointing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["ask", str(picture), "Where?", "--checkpoint", str(pointing)]
    assert main([*args, "--stop", "<box>"]) == 0
    assert capsys.readouterr().out == "The cup is at \n"
    assert main([*args, "--max-tokens", "1", "--draw", "never.png"]) == 0
    out, err = capsys.readouterr()
    assert out == "The cup is at \n"
    assert "unfinished: the budget of --max-tokens is used up" in err
    assert "nothing to draw: the answer names no place" in err
    assert not Path("never.png").exists()


def test_a_terminal_without_unicode_and_a_long_question_do_not_break(picture: Path, tmp_path: Path) -> None:
    folder = scripted(tmp_path / "c", [FIRST_ACTION, END], texts={FIRST_ACTION: "a 碗"})
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from wallx_edge.cli import main; sys.exit(main())", "ask", str(picture),
         "Why? " * 80, "--checkpoint", str(folder)],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"a ?\n")


def test_draws_repeat_with_the_seed(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [
        "ask",
        str(picture),
        "What?",
        "--checkpoint",
        str(CASE1),
        "--max-tokens",
        "8",
        "--resolution",
        "56",
        "--json",
    ]

    def ids(*more: str) -> list[int]:
        assert main([*args, *more]) == 0
        found: list[int] = json.loads(capsys.readouterr().out)["ids"]
        return found

    drawn = ("--temperature", "1.5", "--top-p", "0.9", "--seed")
    assert ids(*drawn, "1") == ids(*drawn, "1") != ids(*drawn, "2")
    assert ids("--step-by-step") != ids()


def test_an_empty_answer_is_no_success(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = scripted(tmp_path / "empty", [END])
    assert main(["ask", str(picture), "What?", "--checkpoint", str(folder)]) == 1
    assert "error: the model wrote nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["What is this?"], "a question about no picture"),
        (["PICTURE"], "a question about no picture"),
        (["PICTURE", "PICTURE"], "is a file; put the question behind the pictures"),
        (["nowhere.png", "What?"], "no such file: nowhere.png"),
        ([__file__, "What?"], "is not a picture"),
        ([str(CASE1), "What?"], "is not a picture"),
        (["PICTURE", "What?", "--draw", "out.xyz"], "'.xyz' is no kind of picture"),
        (["PICTURE", "What?", "--draw", "out"], "'' is no kind of picture"),
        (["PICTURE", "  "], "is empty, expected words"),
        (["PICTURE", "<|im_end|>?"], "a special token"),
        (["PICTURE", "What?", "--max-tokens", "0"], "max_tokens is 0"),
        (["PICTURE", "What?", "--temperature", "-1"], "temperature is -1"),
        (["PICTURE", "What?", "--max-tokens", "5000"], "more than the context holds"),
        (["PICTURE", "What?", "--resolution", "0"], "resolution 0"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], text: str, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(picture) if argument == "PICTURE" else argument for argument in arguments]
    assert main(["ask", *given, "--checkpoint", str(CASE1)]) == 1
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") <= 1 and err.startswith("error: ")


def test_infer_by_action_tokens_says_why_there_is_no_chunk(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["infer", str(CASE1), "--image", f"face_view={picture}", "--task", "tidy up", "--statistics", "x2_normal"]
    assert main([*args, "--resolution", "56", "--fast"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(r"error: FAST: after \d+ action tokens the model wrote token \d+ .*, which is none\n$", err)
