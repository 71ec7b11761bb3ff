"""The command line: exit codes, output for programs, and errors in one line."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import casefiles
from arm_model import REST_POSE, write
from golden import CASE1, CASES, tensors
from wallx_edge import __version__, _core
from wallx_edge.cli import VERBS, main
from wallx_edge.scene import pattern

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("cli") / "model")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "front.png"
    Image.fromarray(pattern(0.0, 160, 120)).save(path)
    return path


def infer(model: Path, picture: Path, *more: str) -> list[str]:
    return ["infer", str(model), "--image", f"face_view={picture}", "--task", "follow the block", *more]


def error_of(capsys: Capture, arguments: list[str]) -> str:
    """The error text of a run that must fail: one line on stderr, nothing on stdout."""
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


def python(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_help_lists_every_verb_and_imports_none(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)
    done = python(
        "import sys\n"
        "from wallx_edge.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if m.startswith(('wallx_edge.cli.', 'cv2', 'matplotlib', 'tokenizers'))))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_one_verb_imports_only_itself() -> None:
    done = python(
        "import sys\n"
        "from wallx_edge.cli import main\n"
        f"main(['inspect', {str(CASE1)!r}, '--json'])\n"
        "print(sorted(m for m in sys.modules if m.startswith(('wallx_edge.cli.', 'cv2', 'matplotlib'))))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['wallx_edge.cli.computing', 'wallx_edge.cli.inspect']"


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_explains_itself(verb: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"usage: wallx-edge {verb}" in out
    assert VERBS[verb][1:] in out


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["inspect"], ["synth", "huge", "x"], ["verify", "x", "--n"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: wallx-edge" in capsys.readouterr().err


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


def test_inspect_shows_the_golden_checkpoint(capsys: Capture) -> None:
    assert main(["inspect", str(CASE1), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["layers"], found["hidden_size"]) == (3, 128)
    assert [slot["start"] for slot in found["action"]][:3] == [0, 3, 6]
    assert set(found["statistics"]["action"]) == {"x2_normal", "DobbE"}
    assert len(found["statistics"]["state"]["DobbE"]) == 20
    assert found["unknown_keys"] == []
    assert main(["inspect", str(CASE1)]) == 0
    out = capsys.readouterr().out
    assert "follow_left_ee_cartesian_pos" in out
    assert "856 rows" in out


def test_inspect_names_what_is_missing(tmp_path: Path, capsys: Capture) -> None:
    assert str(tmp_path / "config.json") in error_of(capsys, ["inspect", str(tmp_path)])


def test_infer_gives_the_chunk_in_si(model: Path, picture: Path, capsys: Capture) -> None:
    assert main(infer(model, picture, "--horizon=5", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["layout"]) == list(REST_POSE)
    assert set(found["units"]) == {"rad"}
    rows = np.array(found["rows"])
    assert rows.shape == (5, 6)
    assert np.abs(rows - list(REST_POSE.values())).max() < 0.6
    assert found["statistics"] == "so101"
    assert main(infer(model, picture, "--horizon=5", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == found["rows"]
    middle = ",".join(str(v) for v in REST_POSE.values())
    assert main(infer(model, picture, "--horizon=5", "--json", f"--state={middle}")) == 0
    assert np.allclose(json.loads(capsys.readouterr().out)["rows"], rows, atol=1e-4)
    assert main(infer(model, picture, "--horizon=5", "--json", "--seed=1")) == 0
    assert json.loads(capsys.readouterr().out)["rows"] != found["rows"]
    assert main(infer(model, picture)) == 0
    out = capsys.readouterr().out
    assert all(f"{name:36s} [rad]" in out for name in REST_POSE)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--state=1,2"], "the state has 2 values, the checkpoint expects 6"),
        (["--state=1,a"], "--state '1,a': expected numbers"),
        (["--state="], "--state '': expected numbers"),
        (["--state=0,0,nan,0,0,0"], "got nan at [2]"),
        (["--statistics=other"], "no statistics for robot 'other' in the checkpoint"),
        (["--horizon=0"], "policy.horizon is 0"),
        (["--steps=0"], "policy.num_steps is 0"),
        (["--resolution=0"], "policy.resolution is 0"),
        (["--seed=-1"], "policy.seed is -1"),
        (["--image=face_view"], "expected ROLE=FILE"),
        (["--image=face_view=x.png"], "expected ROLE=FILE with a role of its own"),
        (["--image==x.png"], "expected ROLE=FILE"),
        (["--image=side=/none/x.png"], "--image side: no such file: /none/x.png"),
        (["--image=side=/"], "--image side: / is not a picture"),
        (["--task= "], "instruction is empty"),
    ],
)
def test_infer_refuses_what_does_not_fit(
    more: list[str], text: str, model: Path, picture: Path, capsys: Capture
) -> None:
    assert text in error_of(capsys, infer(model, picture, *more))


def test_infer_refuses_files_that_are_no_8_bit_pictures(
    model: Path, picture: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "bad.png"
    file.write_text("not a picture")
    assert "bad.png is not a picture" in error_of(capsys, infer(model, file))
    good = picture.read_bytes()
    damaged = (good[:-200], good[:60] + b"\0\0\0\0" + good[64:], good[:200] + bytes(100) + good[300:])
    for content in damaged:
        file.write_bytes(content)
        assert "bad.png is not a picture" in error_of(capsys, infer(model, file))
    file.write_bytes(b"P6 50A40 255 ")
    assert "bad.png is not a picture" in error_of(capsys, infer(model, file))
    Image.open(picture).save(file, "EPS")  # which pillow would give to another program
    assert "bad.png is not a picture" in error_of(capsys, infer(model, file))
    Image.fromarray(np.full((60, 80), 40000, np.uint16)).save(file)
    assert "has the colour mode I;16, expected 8-bit RGB" in error_of(capsys, infer(model, file))


def test_pictures_without_colour_or_with_transparency_are_taken(
    model: Path, picture: Path, tmp_path: Path, capsys: Capture
) -> None:
    for mode in ("L", "RGBA", "P"):
        file = tmp_path / f"{mode}.png"
        Image.open(picture).convert(mode).save(file)
        assert main(infer(model, file, "--json")) == 0
        assert len(json.loads(capsys.readouterr().out)["rows"]) == 32


def test_synth_writes_a_checkpoint_and_says_what_it_is_not(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "model"
    assert main(["synth", "tiny", str(out), "--dtype=bf16", "--seed=3"]) == 0
    assert "untrained" in capsys.readouterr().out
    assert main(["inspect", str(out), "--json"]) == 0
    assert [slot["name"] for slot in json.loads(capsys.readouterr().out)["action"]] == list(REST_POSE)
    assert "is not an empty folder" in error_of(capsys, ["synth", "tiny", str(out)])
    assert "unknown embodiment" in error_of(capsys, ["synth", "tiny", str(tmp_path / "b"), "--embodiment=r2d2"])
    assert "seed is -1" in error_of(capsys, ["synth", "tiny", str(tmp_path / "b"), "--seed=-1"])
    assert "cannot be made" in error_of(capsys, ["synth", "tiny", str(out / "config.json" / "b")])
    assert not (tmp_path / "b").exists()


def test_verify_says_ok_or_what_is_wrong(tmp_path: Path, capsys: Capture) -> None:
    assert main(["verify", str(CASE1), "--groups=tokens"]) == 0
    out = capsys.readouterr().out
    assert "ok" in out
    assert "not run: flow" in out
    assert "unknown group 'x'" in error_of(capsys, ["verify", str(CASE1), "--groups=x"])
    assert "no group chosen" in error_of(capsys, ["verify", str(CASE1), "--groups="])
    assert "is this a golden case?" in error_of(capsys, ["verify", str(tmp_path)])


def test_a_reader_that_goes_away_gets_no_traceback(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"from wallx_edge.cli import main; raise SystemExit(main(['inspect', {str(CASE1)!r}]))",
            ],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_inspect_says_how_a_checkpoint_is_asked(case: Path, capsys: Capture) -> None:
    assert main(["inspect", str(case), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    manifest = json.loads((case / "manifest.json").read_text(encoding="utf-8"))
    variant = next(v for v in _core.variants() if v.name == found["architecture"])
    assert found["checkpoints"] == (variant.checkpoints or "none is published")
    assert found["open_choices"] == variant.open_choices
    assert found["settings"]["chunk"] == f"{manifest['horizon']} rows of {manifest['action_dim']}"
    assert sum(slot["width"] for slot in found["action"]) == manifest["action_dim"]
    if variant.is_state_text:
        assert found["settings"]["told state"] == "text, 256 bins"
    assert set(found["statistics"]["action"]) >= {manifest["robot"]}
    assert main(["inspect", str(case)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    if (case / "norm_stats.json").exists():
        real = sum(slot["width"] for slot in found["action"] if slot["name"] != "action_padding")
        assert f"norm_stats from norm_stats.json, {real} of {manifest['action_dim']} columns of the action" in out
    else:
        assert "name one as policy.statistics" in out
    relative = [slot["name"] for slot in found["action"] if slot["name"].endswith("_relative")]
    assert found["settings"]["relative"] == (", ".join(relative) or "no slot")


def test_inspect_lists_what_config_yml_has_and_is_not_read(tmp_path: Path, capsys: Capture) -> None:
    folder = casefiles.linked_copy(CASES[1], tmp_path / "case")
    casefiles.replace(folder / "config.yml", "hyperparams: {seed: 3}\ndata: {state_bins: 512, num_workers: 2}\n")
    assert main(["inspect", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "config.yml has keys without effect here: data.num_workers, hyperparams" in out
    assert "text, 512 bins" in out


def test_many_sets_of_statistics_do_not_fill_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    folder = casefiles.linked_copy(CASE1, tmp_path / "case")
    weights = dict(tensors("model"))
    for robot in "abcdef":
        for kind in ("action", "propri"):
            for half in ("min", "delta"):
                name = f"action_preprocessor.normalizer_{kind}.{half}"
                weights[f"{name}.{robot}"] = weights[f"{name}.DobbE"]
    casefiles.write_tensors(folder / "model.safetensors", weights)
    assert main(["inspect", str(folder)]) == 0
    assert "and statistics for c, d, e, f, x2_normal: see --json" in capsys.readouterr().out
    assert main(["inspect", str(folder), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["statistics"]["state"]) == 8


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_gets_no_traceback() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"from wallx_edge.cli import main; raise SystemExit(main(['inspect', {str(CASE1)!r}]))",
            ],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: [Errno 28] No space left on device"]
