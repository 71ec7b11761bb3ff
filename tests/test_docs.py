"""The documents: every path exists, every block runs, both languages and the code say the same."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from test_layering import TABLE

from wallx_edge.cli import VERBS, main
from wallx_edge.embodiment import load_embodiment
from wallx_edge.errors import ConfigError
from wallx_edge.robot_config import RobotConfig
from wallx_edge.sim import SimProcess, read_log, so101, state_trace
from wallx_edge.synth import synth

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md",
    "README.zh.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
)
READMES = ("README.md", "README.zh.md")
# made by a command, and not in the repository
MADE = (".venv/", "build/", "out/")
# kinds of files: of a checkpoint, an embodiment or a user's robot
KINDS = {
    "calibration.json",
    "checkpoint/",
    "config.json",
    "fast_tokenizer/",
    "model.safetensors.index.json",
    "norm_stats.json",
    "preprocessor_config.json",
    "quality/",
    "report.json",
    "tokenizer.json",
    "embodiment.toml",
    "robot.toml",
    "my_arm.json",
}


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def split(text: str) -> tuple[list[str], list[Block]]:
    """The lines outside of fenced blocks, and the blocks."""
    prose: list[str] = []
    blocks: list[Block] = []
    inside: list[str] | None = None
    language = ""
    for line in text.splitlines():
        if line.startswith("```"):
            if inside is None:
                inside, language = [], line[3:].strip()
            else:
                blocks.append(Block(language, "\n".join(inside) + "\n"))
                inside = None
        elif inside is None:
            prose.append(line)
        else:
            inside.append(line)
    assert inside is None, "a fenced block has no end"
    return prose, blocks


def blocks(name: str, language: str) -> list[str]:
    return [block.text for block in split(read(name))[1] if block.language == language]


def headings(text: str) -> list[int]:
    """Levels of the headings, in order."""
    return [len(line) - len(line.lstrip("#")) for line in split(text)[0] if re.match(r"#+ ", line)]


def tables(text: str) -> list[list[list[str]]]:
    """Tables as rows of cells, without the line below the header."""
    found: list[list[list[str]]] = []
    is_in_table = False
    for line in split(text)[0]:
        if not line.startswith("|"):
            is_in_table = False
            continue
        if not is_in_table:
            found.append([])
            is_in_table = True
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            found[-1].append(cells)
    return found


def table(name: str, first: str) -> list[list[str]]:
    """The rows, without the header, of the table in which `first` is the first entry."""
    found = [rows[1:] for rows in tables(read(name)) if len(rows) > 1 and rows[1][0] == f"`{first}`"]
    assert len(found) == 1, f"{name} has {len(found)} tables that begin with {first}"
    return found[0]


def paths(text: str) -> list[str]:
    """What is written like a path of this repository: in backticks or as the target of a link."""
    prose = "\n".join(split(text)[0])
    links = re.findall(r"\]\(([^)\s]+)\)", prose)
    found = [link.partition("#")[0] for link in links if "://" not in link and not link.startswith("#")]
    for word in re.findall(r"`([^`\n]+)`", prose):
        is_path = "/" in word or re.search(r"\.(cpp|hpp|json|md|png|py|pyi|toml|txt|yaml)$", word)
        if is_path and re.fullmatch(r"[\w.+/-]+", word) and not word.startswith(("/", "~")):
            found.append(word)
    return found


def is_there(path: str) -> bool:
    if path in KINDS or path.startswith(MADE):
        return True
    return (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).exists()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_exists(name: str) -> None:
    assert [path for path in paths(read(name)) if not is_there(path)] == []


def test_a_path_that_is_absent_is_caught() -> None:
    text = "see `src/wallx_edge/absent.py`, [here](absent.md), `cpp/` and `/dev/ttyACM0`\n```\n`no/path`\n```\n"
    assert [path for path in paths(text) if not is_there(path)] == ["absent.md", "src/wallx_edge/absent.py"]


def test_both_languages_are_in_step() -> None:
    english, chinese = (read(name) for name in READMES)
    assert headings(english) == headings(chinese)
    assert split(english)[1] == split(chinese)[1]
    items = [sum(line.startswith("- ") for line in split(text)[0]) for text in (english, chinese)]
    assert items[0] == items[1]
    shapes = [[[len(row) for row in rows] for rows in tables(text)] for text in (english, chinese)]
    assert shapes[0] == shapes[1]
    first_cells = [[[row[0] for row in rows[1:]] for rows in tables(text)] for text in (english, chinese)]
    assert first_cells[0] == first_cells[1]
    words = [sorted(paths(text)) for text in (english, chinese)]
    assert [word for word in words[0] if not word.startswith("README")] == [
        word for word in words[1] if not word.startswith("README")
    ]


def test_the_verbs_are_those_of_the_program() -> None:
    assert {row[0].strip("`"): row[1] for row in table("README.md", "demo")} == VERBS
    assert [row[0].strip("`") for row in table("README.zh.md", "demo")] == list(VERBS)


def test_the_layers_are_those_of_the_layering_test() -> None:
    rows = table("ARCHITECTURE.md", "cpp/base")
    assert {row[0].strip("`"): set(re.findall(r"\w+", row[1])) for row in rows} == TABLE


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    for name in DOCUMENTS:
        text = read(name)
        named = set(re.findall(r"`make ([\w-]+)`", text)) | set(re.findall(r"^\$ make ([\w-]+)", text, re.MULTILINE))
        assert named <= targets, name


def commands(name: str) -> list[str]:
    """Lines that call the program, of all console blocks."""
    lines = [line[2:] for text in blocks(name, "console") for line in text.splitlines() if line.startswith("$ ")]
    return [line for line in lines if line.startswith("wallx-edge ")]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_is_understood(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inline = [word for word in re.findall(r"`(wallx-edge [^`\n]+)`", read(name)) if "VERB" not in word]
    for line in (*commands(name), *inline):
        words = shlex.split(line.removesuffix("&"))[1:]
        verb = importlib.import_module(f"wallx_edge.cli.{words[0]}")
        # the verb's own parser judges the arguments, and nothing is run
        monkeypatch.setattr(verb, "run", lambda args: 0)
        assert main(words) == 0, line


@pytest.fixture(scope="module")
def readme_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README leaves it: the checkpoint, the calibration and robot.toml."""
    folder = tmp_path_factory.mktemp("readme")
    joints = {joint.name: joint.rest_position for joint in load_embodiment("so101").joints}
    synth("tiny", folder / "checkpoint", joints, "so101")
    so101.write_calibration(folder / "my_arm.json")
    (text,) = blocks("README.md", "toml")
    (folder / "robot.toml").write_text(text, encoding="utf-8")
    return folder


def python_block(word: str) -> str:
    (text,) = (text for text in blocks("README.md", "python") if word in text)
    return text


def test_there_are_three_python_blocks_and_each_is_run() -> None:
    texts = blocks("README.md", "python")
    assert sorted(texts) == sorted(python_block(word) for word in ("policy.act", "reasoner.ask", "Robot.connect"))


def test_the_robot_file_loads(readme_folder: Path) -> None:
    config = RobotConfig.load(readme_folder / "robot.toml")
    assert list(config.cameras) == ["face_view", "wrist_view"]
    assert config.checkpoint == readme_folder / "checkpoint"
    assert config.calibration == readme_folder / "my_arm.json"


@pytest.mark.parametrize("key", ["attention", "time_grid", "rope_layout"])
def test_the_choices_are_those_of_the_program(key: str, readme_folder: Path, tmp_path: Path) -> None:
    (row,) = (row for row in table("README.md", "attention") if row[0] == f"`{key}`")
    default, other = row[1].strip("`"), row[2].strip("`")
    text = (readme_folder / "robot.toml").read_text(encoding="utf-8")
    assert getattr(RobotConfig.load(readme_folder / "robot.toml").policy, key) == default
    changed = tmp_path / "robot.toml"
    changed.write_text(text.replace("[policy]\n", f'[policy]\n{key} = "{other}"\n'), encoding="utf-8")
    assert getattr(RobotConfig.load(changed).policy, key) == other
    changed.write_text(text.replace("[policy]\n", f'[policy]\n{key} = "neither"\n'), encoding="utf-8")
    with pytest.raises(ConfigError, match=key):
        RobotConfig.load(changed)


def test_the_chunk_block_runs(
    readme_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(readme_folder)
    names: dict[str, object] = {}
    exec(compile(python_block("policy.act"), "README.md", "exec"), names)
    assert capsys.readouterr().out.startswith("(32, 6) ")
    assert names["chunk"].layout.is_joint_space  # type: ignore[attr-defined]


def test_the_words_block_answers(
    readme_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(readme_folder)
    names: dict[str, object] = {}
    exec(compile(python_block("reasoner.ask"), "README.md", "exec"), names)
    assert capsys.readouterr().out
    assert 1 <= len(names["answer"].generated.ids) <= 16  # type: ignore[attr-defined]


def test_the_robot_block_moves_the_arm(readme_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(readme_folder)
    log = tmp_path / "emulator.jsonl"
    with SimProcess("so101", link=readme_folder / "arm", log=log):
        exec(compile(python_block("Robot.connect"), "README.md", "exec"), {})
    position = state_trace(read_log(log)).position
    assert (position.max(axis=0) - position.min(axis=0)).max() > 4096 / 360


@contextmanager
def background(words: list[str], folder: Path) -> Iterator[None]:
    """A program that says with its first line that it is ready; ended with SIGTERM."""
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        yield
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_the_commands_work_in_their_order(tmp_path: Path) -> None:
    (text,) = blocks("README.md", "toml")
    (tmp_path / "robot.toml").write_text(text, encoding="utf-8")
    program = str(Path(sys.executable).parent / "wallx-edge")
    run_verbs: list[str] = []

    def run(lines: list[str]) -> None:
        for i, line in enumerate(lines):
            words = [program, *shlex.split(line.removesuffix("&"))[1:]]
            run_verbs.append(words[1])
            if line.endswith("&"):
                with background(words, tmp_path):
                    run(lines[i + 1 :])
                return
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=os.environ)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"

    run(commands("README.md"))
    assert run_verbs == ["synth", "inspect", "quantize", "sim", "run", "run"]
