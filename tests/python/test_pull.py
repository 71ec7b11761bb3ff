"""Pull fetches what the engine needs and nothing else, continues where it stopped, and believes only digests."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_hub import COMMIT, FakeHub, fake_hub
from golden import CASE1
from wallx_edge import pull as module
from wallx_edge.cli import main
from wallx_edge.errors import CheckpointError, ConfigError, WallxError
from wallx_edge.pull import fetch, plan

huggingface_hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
tqdm = pytest.importorskip("tqdm", reason="comes with it")

REPO = "someone/wall-oss-tiny"
FAST_REPO = "someone/fast"
FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # the library's bars, shown or not, leave a thread
    with fake_hub() as running:
        running.repos[REPO] = {name: (CASE1 / name).read_bytes() for name in FILES}
        running.repos[REPO] |= {"README.md": b"words", "assets/model.safetensors": b"elsewhere", "optimizer.bin": b"1"}
        running.repos[FAST_REPO] = {file.name: file.read_bytes() for file in (CASE1 / "fast_tokenizer").iterdir()}
        running.repos[FAST_REPO]["processing_action_tokenizer.py"] = b"raise SystemExit"
        yield running
        huggingface_hub.close_session()  # its connections to the server


def found(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_fetches_what_the_engine_needs_and_the_engine_loads_it(hub: FakeHub, tmp_path: Path) -> None:
    chosen = plan(REPO, tmp_path / "new" / "one", endpoint=hub.address)
    assert not (tmp_path / "new").exists()
    assert [f.target for f in chosen.files if f.commit == COMMIT] == [f.target for f in chosen.files]
    assert chosen.left_out == ("README.md", "assets/model.safetensors", "optimizer.bin")
    assert chosen.missing_bytes == sum((CASE1 / name).stat().st_size for name in FILES)
    seen: dict[str, int] = {}
    fetched = fetch(chosen, lambda what, count: seen.update({what: seen.get(what, 0) + count}))
    assert sorted(fetched) == found(chosen.folder) == sorted(FILES)
    for name in FILES:
        assert (chosen.folder / name).read_bytes() == (CASE1 / name).read_bytes()
    assert seen == {"fetch": chosen.missing_bytes, "check": chosen.missing_bytes}
    assert main(["inspect", str(chosen.folder)]) == 0


def test_what_is_there_and_intact_is_not_fetched_again(hub: FakeHub, tmp_path: Path) -> None:
    fetch(plan(REPO, tmp_path, endpoint=hub.address))
    hub.sent.clear()
    again = plan(REPO, tmp_path, endpoint=hub.address)
    assert again.missing_bytes == 0
    assert fetch(again) == []
    assert hub.sent == []


def test_a_file_of_the_right_size_and_wrong_content_is_fetched_again(hub: FakeHub, tmp_path: Path) -> None:
    fetch(plan(REPO, tmp_path, endpoint=hub.address))
    content = bytearray((CASE1 / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    assert fetch(plan(REPO, tmp_path, endpoint=hub.address)) == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == (CASE1 / "model.safetensors").read_bytes()


@pytest.mark.parametrize("ignores_ranges", [False, True])
def test_a_stopped_pull_is_continued(ignores_ranges: bool, hub: FakeHub, tmp_path: Path) -> None:
    content = (CASE1 / "model.safetensors").read_bytes()
    first = plan(REPO, tmp_path, endpoint=hub.address)

    def stop(what: str, count: int) -> None:
        if what == "fetch" and count > 1_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(first, stop)
    part = next(tmp_path.glob(".model.safetensors.*.part"))
    # what a stopped process had written; the library passes on blocks of 10 MB
    part.write_bytes(content[:1_234_567])
    assert not (tmp_path / "model.safetensors").exists()
    hub.sent.clear()
    hub.ignores_ranges = ignores_ranges
    second = plan(REPO, tmp_path, endpoint=hub.address)
    assert second.missing_bytes == len(content) - 1_234_567
    seen: dict[str, int] = {"fetch": 0}
    assert fetch(second, lambda what, count: seen.update({what: seen.get(what, 0) + count})) == ["model.safetensors"]
    assert hub.sent == [("model.safetensors", "bytes=1234567-")]
    assert (tmp_path / "model.safetensors").read_bytes() == content
    assert found(tmp_path) == sorted(FILES)
    assert seen["fetch"] == second.missing_bytes


def test_a_part_of_another_version_is_not_continued(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / ".model.safetensors.0123456789abcdef.part").write_bytes(b"of something else")
    fetch(plan(REPO, tmp_path, endpoint=hub.address))
    assert ("model.safetensors", "") in hub.sent
    assert (tmp_path / "model.safetensors").read_bytes() == (CASE1 / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer_config.json"])
def test_a_damaged_file_never_gets_its_name(name: str, hub: FakeHub, tmp_path: Path) -> None:
    hub.damaged = {name}
    with pytest.raises(WallxError, match=f"{name}: what {hub.address} sent is not the file that it lists"):
        fetch(plan(REPO, tmp_path, endpoint=hub.address))
    assert not (tmp_path / name).exists()
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part"))
    hub.damaged = set()
    fetch(plan(REPO, tmp_path, endpoint=hub.address))
    assert found(tmp_path) == sorted(FILES)


def test_the_disk_is_checked_first(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda folder: 70_000_000)
    chosen = plan(REPO, tmp_path / "new", endpoint=hub.address)
    with pytest.raises(ConfigError, match=r"0\.00 GB to fetch, 0\.07 GB free; choose a folder on another disk"):
        fetch(chosen)
    assert hub.sent == []
    assert not (tmp_path / "new").exists()


def test_shards_statistics_and_the_action_tokenizer_come_along(hub: FakeHub, tmp_path: Path) -> None:
    extra = {
        "model-00001-of-00002.safetensors": b"1",
        "model-00002-of-00002.safetensors": b"2",
        "model.safetensors.index.json": b"{}",
        "normalizer_action.pth": b"3",
        "config.yml": b"4",
        "fast_tokenizer/tokenizer.json": b"5",
        "fast_tokenizer/extra.py": b"6",
        "pytorch_model.bin": b"7",
        "../model.safetensors": b"8",
    }
    del hub.repos[REPO]["model.safetensors"]
    hub.repos[REPO] |= extra
    own = plan(REPO, tmp_path, endpoint=hub.address)
    left_out = {"fast_tokenizer/extra.py", "pytorch_model.bin", "../model.safetensors"}
    assert {f.target for f in own.files} == set(FILES) - {"model.safetensors"} | set(extra) - left_out
    assert left_out < set(own.left_out)
    other = plan(REPO, tmp_path, fast_repo=FAST_REPO, endpoint=hub.address)
    fetch(other)
    assert (tmp_path / "fast_tokenizer" / "tokenizer.json").read_bytes() == hub.repos[FAST_REPO]["tokenizer.json"]
    assert sorted(p.name for p in (tmp_path / "fast_tokenizer").iterdir()) == [
        "processor_config.json",
        "tokenizer.json",
    ]


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "preprocessor_config.json", "model.safetensors"])
def test_a_repository_that_is_no_checkpoint_is_refused(missing: str, hub: FakeHub, tmp_path: Path) -> None:
    del hub.repos[REPO][missing]
    with pytest.raises(CheckpointError, match=f"no {missing.replace('model.', 'model[*].')} among its 7 files"):
        plan(REPO, tmp_path, endpoint=hub.address)


def test_wrong_names_are_refused(hub: FakeHub, tmp_path: Path) -> None:
    for repo, text in (("a/b/c", "a/b/c"), ("../etc", "etc"), ("someone/nothing", "Repository Not Found")):
        with pytest.raises(ConfigError, match=text):
            plan(repo, tmp_path, endpoint=hub.address)
    with pytest.raises(ConfigError, match="Revision Not Found"):
        plan(REPO, tmp_path, revision="v9", endpoint=hub.address)
    with pytest.raises(CheckpointError, match="not a FAST action tokenizer"):
        plan(REPO, tmp_path, fast_repo=REPO, endpoint=hub.address)


@pytest.mark.parametrize("answer", [(200, b"<html>"), (403, b""), (200, b"{}"), (200, b"[1]")])
def test_an_answer_that_is_none_is_one_message(answer: tuple[int, bytes], hub: FakeHub, tmp_path: Path) -> None:
    hub.answers_with = answer
    with pytest.raises(WallxError) as caught:
        plan(REPO, tmp_path, endpoint=hub.address)
    assert REPO in str(caught.value)


def command(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own: the library reads its settings when it is imported."""
    return subprocess.run(
        [sys.executable, "-c", "import sys; from wallx_edge.cli import main; sys.exit(main())", "pull", *args],
        env=os.environ | {"NO_PROXY": "127.0.0.1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_uses_the_mirror_of_the_library(hub: FakeHub, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    done = command(REPO, str(folder), "--dry-run", HF_ENDPOINT=hub.address)
    assert done.returncode == 0, done.stderr
    assert hub.address in done.stdout and "model.safetensors" in done.stdout
    assert not folder.exists()
    done = command(REPO, str(folder), "--json", "--fast", FAST_REPO, HF_ENDPOINT=hub.address)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert sorted(report["fetched"]) == sorted(
        [*FILES, "fast_tokenizer/processor_config.json", "fast_tokenizer/tokenizer.json"]
    )
    assert found(folder) == sorted(report["fetched"])


def test_offline_it_says_what_it_would_do(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    done = command(REPO, str(folder), HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "nothing was written" in done.stderr and "model*.safetensors" in done.stderr and str(folder) in done.stderr
    assert "Traceback" not in done.stderr
    done = command(REPO, str(folder), "--dry-run", HF_HUB_OFFLINE="1")
    assert done.returncode == 0
    assert "it would fetch config.json" in done.stdout
    assert not folder.exists()


def test_without_the_extra_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["pull", REPO]) == 1
    assert capsys.readouterr().err == "error: pull needs the hub's library: pip install 'wallx-edge[hub]'\n"
