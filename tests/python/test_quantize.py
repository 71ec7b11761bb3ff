"""Quantize: the same bits as packing while loading, all of it mapped; complete, or not there and a clear word."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import arm_model
from casefiles import linked_copy, write_tensors
from golden import CASE1, CASES, read_safetensors
from wallx_edge import _core
from wallx_edge.cli import main
from wallx_edge.computing import Computing
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.golden_case import GoldenCase
from wallx_edge.quantize import writer
from wallx_edge.quantize.recipe import Recipe
from wallx_edge.quantize.writer import ALIGNMENT, quantize, source_digest
from wallx_edge.train_config import load_engine

GROUPS = ("vision", "layers", "flow", "text")
RECIPES = {name: Recipe.load(name) for name in Recipe.names()}


def header_of(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return dict(json.loads(file.read(size)))


def set_metadata(path: Path, key: str, value: str | None) -> None:
    """Rewrites a file with another metadata entry, or without it."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    if value is None:
        del header["__metadata__"][key]
    else:
        header["__metadata__"][key] = value
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def results(case: GoldenCase) -> dict[str, NDArray[Any]]:
    return {name: value for group in GROUPS for name, value in case.compute(group).items()}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Case 1 in int8; not to be written to."""
    out = tmp_path_factory.mktemp("packed") / "int8"
    quantize(CASE1, out, RECIPES["int8"])
    return out


@pytest.fixture
def copy(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "copy"))


PLAIN = [name for name, recipe in RECIPES.items() if recipe.smoothing is None and not recipe.keep_16bit]


@pytest.mark.parametrize("golden", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("name", PLAIN)
def test_computes_the_same_bits_as_packing_while_loading(name: str, golden: Path, tmp_path: Path) -> None:
    written = quantize(golden, tmp_path / "out", RECIPES[name])
    ours, theirs = GoldenCase(tmp_path / "out"), GoldenCase(golden, Computing(RECIPES[name].precision))
    assert ours.engine.precision == RECIPES[name].precision
    computed, expected = results(ours), results(theirs)
    assert computed.keys() == expected.keys()
    assert [key for key, value in expected.items() if not np.array_equal(value, computed[key])] == []
    # loading is a map: nothing was made, and all of the file's data is in use
    assert ours.engine.packed_bytes == ours.engine.widened_bytes == 0
    end = max(
        entry["data_offsets"][1]
        for key, entry in header_of(written.folder / "model.safetensors").items()
        if key[0] != "_"
    )
    statistics = sum(ours.engine.tensor(key).nbytes for key in ours.engine.tensor_names if ".normalizer_" in key)
    assert ours.engine.mapped_bytes == end - statistics
    assert theirs.engine.packed_bytes > 0


def test_padded_vision_layers_are_packed_as_they_are_used(tmp_path: Path) -> None:
    source = linked_copy(CASE1, tmp_path / "source")
    tensors = dict(read_safetensors(CASE1 / "model.safetensors"))
    for block in range(3):
        prefix = f"visual.blocks.{block}.mlp."
        for part in ("gate_proj", "up_proj"):
            for kind, axes in (("weight", ((0, 28), (0, 0))), ("bias", ((0, 28),))):
                tensors[f"{prefix}{part}.{kind}"] = np.pad(tensors[f"{prefix}{part}.{kind}"], axes)
        if block:  # files of both kinds are around
            name = f"{prefix}down_proj.weight"
            tensors[name] = np.pad(tensors[name], ((0, 0), (0, 28)))
    write_tensors(source / "model.safetensors", tensors)
    quantize(source, tmp_path / "out", RECIPES["int8"])
    ours, theirs = GoldenCase(tmp_path / "out"), GoldenCase(source, Computing("int8"))
    for name, value in theirs.compute("vision").items():
        assert np.array_equal(value, ours.compute("vision")[name]), name


def test_everything_lies_aligned_and_in_order(packed: Path) -> None:
    path = packed / "model.safetensors"
    header = header_of(path)
    said = header.pop("__metadata__")
    begin = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert begin % ALIGNMENT == 0
    for name, entry in header.items():
        width = {"F32": 4, "I32": 4, "BF16": 2, "I8": ALIGNMENT}[entry["dtype"]]
        is_packed = (
            name.rsplit(".", 1)[-1] in ("panels", "scale", "offset") or f"{name.rsplit('.', 1)[0]}.panels" in header
        )
        assert (begin + entry["data_offsets"][0]) % (ALIGNMENT if is_packed else width) == 0, name
    assert said["wallx_format"] == "1"
    assert said["wallx_precision"] == "int8"
    assert said["wallx_recipe"] == RECIPES["int8"].text
    assert said["wallx_source_sha256"] == source_digest(CASE1)
    assert said["wallx_data_sha256"] == hashlib.sha256(path.read_bytes()[begin:]).hexdigest()


def test_the_source_digest_is_that_of_sha256sum(packed: Path) -> None:
    files = sorted(path for path in CASE1.rglob("*") if path.is_file())
    names = [path.relative_to(CASE1).as_posix() for path in files]
    assert names == sorted(names)
    lines = subprocess.run(["sha256sum", "--", *names], cwd=CASE1, check=True, capture_output=True).stdout
    assert source_digest(CASE1) == hashlib.sha256(lines).hexdigest()


def test_all_other_files_are_copied(packed: Path) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    source, out = files(CASE1), files(packed)
    assert "fast_tokenizer/tokenizer.json" in source
    del source["model.safetensors"], out["model.safetensors"]
    assert source == out


def test_what_is_not_the_checkpoint_is_not_copied(tmp_path: Path) -> None:
    source = linked_copy(CASE1, tmp_path / "source")
    (source / ".cache").mkdir()
    for name in (".cache/lock", "pytorch_model.bin", "old.part"):
        (source / name).write_bytes(b"x")
    (source / "config.yml").write_text("{}\n", encoding="utf-8")
    quantize(source, tmp_path / "out", RECIPES["bf16"])
    assert not any((tmp_path / "out" / name).exists() for name in (".cache", "pytorch_model.bin", "old.part"))
    assert (tmp_path / "out" / "config.yml").is_file()


def test_layers_that_a_recipe_names_stay_16_bit(tmp_path: Path) -> None:
    recipe = Recipe("mine", "", "int8", ("model.layers.0.*", "lm_head"))
    written = quantize(CASE1, tmp_path / "out", recipe)
    names = header_of(tmp_path / "out" / "model.safetensors")
    wide = {name for name, entry in names.items() if name.endswith(".panels") and entry["dtype"] == "BF16"}
    assert {name for name in wide if name.startswith("model.layers.")} == {
        name for name in names if name.startswith("model.layers.0.") and name.endswith(".panels")
    }
    assert "lm_head.panels" in wide
    assert written.formats["bf16"] == len(wide)
    # between the two: nearer to fp32 than int8 alone
    exact = GoldenCase(CASE1).compute("layers")["flow.step0.layer0"]
    errors = [
        np.abs(case.compute("layers")["flow.step0.layer0"] - exact).mean()
        for case in (GoldenCase(tmp_path / "out"), GoldenCase(CASE1, Computing("int8")))
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('precision = "int8"\nclip = 3\n', ("'clip'", "not a known key", "keep_16bit")),
        ("", ("'precision'", "missing")),
        ('precision = "int4"\n', ("int4", "bf16, int8, mixed, w8")),
        ('precision = "int8"\nkeep_16bit = "lm_head"\n', ("keep_16bit", "list")),
        ('precision = "int8"\n[smoothing]\nalpha = 2\nlayers = ["qkv"]\n', ("alpha", "2", "at most 1")),
        ('precision = "int8"\n[smoothing]\nalpha = 0.5\nlayers = ["head"]\n', ("'head'", "vision.qkv")),
        ('precision = "int8"\n[smoothing]\nalpha = 0.5\nlayers = []\n', ("layers", "list")),
        ('precision = "int8"\n[smoothing]\nalpha = 0.5\nlayers = ["qkv"]\nbeta = 1\n', ("'beta'", "smoothing")),
        ("precision =", ("TOML",)),
    ],
)
def test_a_wrong_recipe_is_named(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        Recipe.load(str(path))
    assert all(word in str(caught.value) for word in (*words, "mine.toml"))


def test_an_unknown_recipe_names_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", str(CASE1), str(tmp_path / "out"), "--recipe", "int3"]) == 1
    error = capsys.readouterr().err
    assert "int3" in error and "mixed" in error
    assert not any(tmp_path.iterdir())


def test_the_verb_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", str(CASE1), str(tmp_path / "out"), "--recipe", "mixed", "--json", "--no-report"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["weight_bytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert said["formats"]["int8"] > 0 and said["formats"]["bf16"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError, match="not an empty folder"):
        quantize(CASE1, tmp_path, RECIPES["int8"])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    source = linked_copy(CASE1, tmp_path / "source")
    with pytest.raises(ConfigError, match="inside the checkpoint"):
        quantize(source, source / "out", RECIPES["int8"])


def test_a_packed_folder_is_not_packed_again(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="packed as int8 already"):
        quantize(packed, tmp_path / "out", RECIPES["bf16"])
    with pytest.raises(ConfigError, match="packed as int8 and cannot be loaded as bf16"):
        load_engine(packed, "bf16")


@pytest.mark.parametrize(
    "name", ["model.layers.1.moe.experts.0.down_proj.weight", "visual.blocks.0.attn.qkv.bias", "model.norm.weight"]
)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(name: str, bad: float, tmp_path: Path) -> None:
    source = linked_copy(CASE1, tmp_path / "source")
    tensors = dict(read_safetensors(CASE1 / "model.safetensors"))
    tensors[name] = tensors[name].copy()
    tensors[name].flat[-1] = bad
    write_tensors(source / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match=r"not finite") as caught:
        quantize(source, tmp_path / "out", RECIPES["int8"])
    assert name.rsplit(".", 1)[0].replace(".down_proj", "") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file of this process may grow beyond so many bytes: what a full disk looks like to a writer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (800_000, before[1]))
    yield 800_000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_becomes_full_leaves_nothing(tmp_path: Path, small_files: int) -> None:
    with pytest.raises(ConfigError, match=r"out: cannot be written: File too large; nothing is left of it"):
        quantize(CASE1, tmp_path / "out", RECIPES["int8"])
    assert not any(tmp_path.iterdir())


def test_too_little_disk_or_memory_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: real._replace(free=50_000_000))
        with pytest.raises(ConfigError, match=r"needs \d+ MB of disk, .* has 50 MB"):
            quantize(CASE1, tmp_path / "out", RECIPES["int8"])
    monkeypatch.setattr(writer, "free_memory", lambda: 30_000_000)
    with pytest.raises(ConfigError, match=r"needs \d+ MB of memory .* 30 MB available"):
        quantize(CASE1, tmp_path / "out", RECIPES["int8"])
    assert not any(tmp_path.iterdir())


_KILLED = """
import os, signal, sys
from wallx_edge.quantize.recipe import Recipe
from wallx_edge.quantize.writer import quantize
def progress(done, total):
    if done > total // 2:
        os.kill(os.getpid(), int(sys.argv[3]))
quantize(sys.argv[1], sys.argv[2], Recipe.load("int8"), progress)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_leaves_no_output_and_the_next_starts_over(number: int, packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = subprocess.run([sys.executable, "-c", _KILLED, str(CASE1), str(out), str(int(number))], capture_output=True)
    assert ended.returncode == -number
    assert [path.name for path in tmp_path.iterdir()] == (["out.part"] if number == signal.SIGKILL else [])
    (tmp_path / "out.part").mkdir(exist_ok=True)
    (tmp_path / "out.part" / "left").write_text("over", encoding="utf-8")
    quantize(CASE1, out, RECIPES["int8"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "model.safetensors").read_bytes() == (packed / "model.safetensors").read_bytes()
    assert not (out / "left").exists()


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    refused: list[str] = []

    def again(done: int, total: int) -> None:
        if not refused:
            with pytest.raises(ConfigError) as caught:
                quantize(CASE1, tmp_path / "out", RECIPES["int8"])
            refused.append(str(caught.value))

    quantize(CASE1, tmp_path / "out", RECIPES["int8"], again)
    assert "another quantize is writing it" in refused[0]
    assert load_engine(tmp_path / "out").precision == "int8"


_MEASURED = """
import sys, threading
from wallx_edge.quantize.recipe import Recipe
from wallx_edge.quantize.writer import quantize
def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
done = threading.Event()
peak = anonymous()
def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
def progress(done, total):
    global peak
    peak = max(peak, anonymous())
quantize(sys.argv[1], sys.argv[2], Recipe.load("bf16"), progress)
done.set()
watcher.join()
print(peak)
"""


def test_memory_is_that_of_the_largest_layers(tmp_path: Path) -> None:
    source, out = tmp_path / "medium", tmp_path / "out"
    arm_model.write(source, "medium")
    ended = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(source), str(out)], check=True, capture_output=True, text=True
    )
    tensors = [e for key, e in header_of(source / "model.safetensors").items() if key != "__metadata__"]
    largest = sorted((e["data_offsets"][1] - e["data_offsets"][0] for e in tensors), reverse=True)[:3]
    allowed = sum(largest) + 200e6
    # the bound means something: the file is larger than it
    assert (source / "model.safetensors").stat().st_size > allowed
    assert int(ended.stdout) < allowed


@pytest.mark.parametrize("version", ["2", "17", "", "1.0"])
def test_another_format_is_refused_by_name(version: str, copy: Path) -> None:
    set_metadata(copy / "model.safetensors", "wallx_format", version)
    with pytest.raises(CheckpointError, match=f"format {version} of wallx-edge quantize, this version reads 1"):
        load_engine(copy)


def test_an_unknown_or_missing_precision_is_refused(copy: Path) -> None:
    path = copy / "model.safetensors"
    set_metadata(path, "wallx_precision", "int2")
    with pytest.raises(CheckpointError, match="'int2'"):
        load_engine(copy)
    set_metadata(path, "wallx_precision", None)
    with pytest.raises(CheckpointError, match="only one of"):
        load_engine(copy)
    set_metadata(path, "wallx_precision", "fp32")
    with pytest.raises(CheckpointError):
        load_engine(copy)
    set_metadata(path, "wallx_precision", "int8")
    assert load_engine(copy).precision == "int8"
    set_metadata(path, "wallx_format", None)
    with pytest.raises(CheckpointError, match="only one of"):
        load_engine(copy)


def test_a_changed_byte_is_found_when_asked(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(copy), "--check"]) == 0
    assert "those that were written" in capsys.readouterr().out
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert main(["inspect", str(copy), "--check"]) == 1
    assert "damaged" in capsys.readouterr().err
    assert main(["inspect", str(CASE1), "--check"]) == 1
    assert "published layout" in capsys.readouterr().err


def test_inspect_shows_what_the_folder_is(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(packed), "--json", "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["computing"]["asked"] == {
        "precision": "as the folder says",
        "device": "auto",
        "kernels": "the fastest",
        "threads": 1,
    }
    assert found["computing"]["given"]["precision"] == "int8"
    assert found["computing"]["given"]["packed_bytes"] == 0
    assert found["computing"]["given"]["kernels"].startswith("cpu ")
    assert "int8" in found["quantized"]["packed layers"]
    assert found["quantized"]["source sha256"] == source_digest(CASE1)
    assert main(["inspect", str(CASE1), "--precision", "fp16"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "asked fp16" in out
    assert "in place of fp16" in out


def test_damaged_files_end_in_one_error(copy: Path) -> None:
    """Truncated, lengthened, bit-flipped and with hostile headers: an error of ours or numbers, never anything else."""
    path = copy / "model.safetensors"
    good = path.read_bytes()
    size = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + size])
    random = np.random.default_rng(7)
    names = [name for name in header if name != "__metadata__"]
    refused = 0
    for turn in range(300):
        kind = turn % 5
        data = bytearray(good)
        if kind == 0:
            data = data[: int(random.integers(len(good)))]
        elif kind == 1:
            data[int(random.integers(8 + size))] ^= 1 << int(random.integers(8))
        elif kind == 2:
            data[int(random.integers(8 + size, len(good)))] ^= 1 << int(random.integers(8))
        else:
            hostile = json.loads(json.dumps(header))
            name = names[int(random.integers(len(names)))]
            if kind == 3:  # another type, shape or place
                entry = hostile[name]
                entry[["dtype", "shape", "data_offsets"][int(random.integers(3))]] = [
                    "I8",
                    "BF16",
                    "F32",
                    "I32",
                    "F64",
                    [],
                    [0],
                    [2**62, 2**62],
                    [-1, 4],
                    [0, 2**63],
                    None,
                    {},
                    1e300,
                ][int(random.integers(13))]
            else:  # another name
                hostile[name + "x" if turn % 2 else names[0]] = hostile.pop(name)
            text = json.dumps(hostile).encode()
            data = bytearray(len(text).to_bytes(8, "little") + text) + data[8 + size :]
        path.write_bytes(data)
        try:
            engine = load_engine(copy)
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error)
            continue
        except ConfigError as error:  # the precision is part of the header
            assert "packed" in str(error)
            continue
        context = _core.Context(engine)
        context.prefill(np.arange(4))
        context.logits()
        del context, engine
    assert refused > 150
