"""Datasets: what is written is read back, a killed writer leaves whole episodes, what does not fit is refused."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as parquet
import pytest

from live_arm import LiveArm
from wallx_edge.cli import main
from wallx_edge.dataset import Dataset, DatasetWriter
from wallx_edge.dataset.layout import merged, statistics
from wallx_edge.errors import ConfigError
from wallx_edge.export import export
from wallx_edge.recording import read_mcap, segments_of

Capture = pytest.CaptureFixture[str]
FPS, SIZE = 10, (48, 64)
LENGTHS = (14, 9)
CAMERAS = {"face_view": SIZE, "wrist_view": SIZE}


def picture(episode: int, frame: int, role: str) -> np.ndarray:
    """Smooth, and another one for each frame."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    level = 40 * episode + 12 * frame + (90 if role == "wrist_view" else 0)
    return np.stack([(level + x) % 256, (2 * level) % 256 + 0 * x, 200 - y], axis=2).clip(0, 255).astype(np.uint8)


def values(episode: int, frame: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng([episode, frame])
    return random.standard_normal(3), random.standard_normal(2)


def write(folder: Path) -> Path:
    with DatasetWriter(
        folder, fps=FPS, state_names="abc", action_names=["p", "q"], cameras=CAMERAS, robot_type="so101"
    ) as writer:
        for episode, length in enumerate(LENGTHS):
            for frame in range(length):
                state, action = values(episode, frame)
                images = {role: picture(episode, frame, role) for role in CAMERAS}
                subtask = "" if frame < 2 else "grasp" if frame < 6 else "lift"
                writer.add_frame(state=state, action=action, images=images, task=f"task {episode}", subtask=subtask)
            writer.end_episode()
        writer.add_frame(state=state, action=action, images=images, task="never ended")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("dataset") / "made")


def test_everything_is_read_back(folder: Path) -> None:
    dataset = Dataset.load(folder)
    assert (dataset.fps, dataset.robot_type, tuple(dataset.lengths)) == (FPS, "so101", LENGTHS)
    assert dataset.names == {"observation.state": ("a", "b", "c"), "action": ("p", "q")}
    assert dataset.cameras == CAMERAS and len(dataset) == sum(LENGTHS)
    index = 0
    for episode, length in enumerate(LENGTHS):
        for number in range(length):
            frame = dataset.frame(index)
            state, action = values(episode, number)
            assert np.array_equal(frame.state, state.astype(np.float32))
            assert np.array_equal(frame.action, action.astype(np.float32))
            assert (frame.episode, frame.index, frame.task) == (episode, index, f"task {episode}")
            assert frame.time == pytest.approx(number / FPS)
            assert frame.subtask == ("" if number < 2 else "grasp" if number < 6 else "lift")
            for role, image in frame.images.items():
                # the neighbours differ by 12 and 24: it is this frame's picture, but for the codec's loss
                assert np.abs(image.astype(int) - picture(episode, number, role)).mean() < 5
            index += 1
    with pytest.raises(ConfigError, match=r"no frame 23, there are 23"):
        dataset.frame(23)


def test_foreign_readers_count_what_the_metadata_claims(folder: Path) -> None:
    info = json.loads((folder / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (2, 23, 2)
    rows = [parquet.read_table(path) for path in sorted((folder / "data").rglob("*.parquet"))]
    assert sum(table.num_rows for table in rows) == 23
    assert set(rows[0].column_names) == {k for k, f in info["features"].items() if f["dtype"] != "video"}
    assert np.concatenate([t["index"].to_numpy() for t in rows]).tolist() == list(range(23))
    assert np.concatenate([t["task_index"].to_numpy() for t in rows]).tolist() == [0] * 14 + [1] * 9
    said = rows[0]["language_persistent"][3].as_py()
    assert [(s["style"], s["content"], pytest.approx(s["timestamp"])) for s in said] == [
        ("subtask", "grasp", 0.2),
        ("subtask", "lift", 0.6),
    ]
    episodes = [
        parquet.read_table(path).to_pylist()[0] for path in sorted((folder / "meta/episodes").rglob("*.parquet"))
    ]
    assert [(e["dataset_from_index"], e["dataset_to_index"], e["length"]) for e in episodes] == [
        (0, 14, 14),
        (14, 23, 9),
    ]
    for role in CAMERAS:
        for episode in episodes:
            key = f"videos/observation.images.{role}/"
            place = {k: episode[key + k] for k in ("chunk_index", "file_index")}
            path = folder / info["video_path"].format(video_key=f"observation.images.{role}", **place)
            with av.open(str(path)) as container:
                times = [frame.time for frame in container.decode(video=0)]
            assert len(times) == episode["length"]
            assert np.allclose(times, np.arange(len(times)) / FPS, atol=1e-4)
            assert episode[key + "to_timestamp"] == pytest.approx(len(times) / FPS)
    assert not list(folder.rglob("*.part")), "the episode that was not ended left something"


def test_statistics_are_those_of_all_frames(folder: Path) -> None:
    stats = json.loads((folder / "meta/stats.json").read_text())
    states = np.stack([values(e, f)[0] for e, n in enumerate(LENGTHS) for f in range(n)])
    for name, expected in (
        ("mean", states.mean(0)),
        ("std", states.std(0)),
        ("min", states.min(0)),
        ("max", states.max(0)),
    ):
        assert np.allclose(stats["observation.state"][name], expected, atol=1e-6)
    assert stats["observation.state"]["count"] == [23]
    assert np.shape(stats["observation.images.face_view"]["mean"]) == (3, 1, 1)
    assert 0 < stats["observation.images.face_view"]["mean"][0][0][0] < 1
    parts = [np.random.default_rng(i).normal(i, 1 + i, (10 + 50 * i, 2)) for i in range(3)]
    whole = np.concatenate(parts)
    found = merged([statistics(part, len(part)) for part in parts])
    assert np.allclose(found["std"], whole.std(0)) and np.allclose(found["mean"], whole.mean(0))
    assert found["count"] == [180]


# writes one episode, begins another and waits for its end
KILLED = """
import sys, time
sys.path.insert(0, sys.argv[2])
from test_dataset import *
writer = DatasetWriter(sys.argv[1], fps=FPS, state_names="abc", action_names="pq", cameras=CAMERAS)
for episode in range(2):
    for frame in range(8):
        state, action = values(episode, frame)
        images = {role: picture(episode, frame, role) for role in CAMERAS}
        writer.add_frame(state=state, action=action, images=images, task="t")
    if episode == 0:
        writer.end_episode()
print("now", flush=True)
time.sleep(60)
"""


def test_a_killed_writer_leaves_the_episodes_before(tmp_path: Path) -> None:
    made = tmp_path / "made"
    command = [sys.executable, "-c", KILLED, str(made), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"now\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    dataset = Dataset.load(made)
    assert dataset.lengths == [8]
    assert np.array_equal(dataset.frame(7).state, values(0, 7)[0].astype(np.float32))


def _info(change: Callable[[dict], None]) -> Callable[[Path], None]:  # type: ignore[type-arg]
    def damage(folder: Path) -> None:
        path = folder / "meta/info.json"
        info = json.loads(path.read_text())
        change(info)
        path.write_text(json.dumps(info))

    return damage


def _without(folder: Path, column: str) -> None:
    for path in (folder / "meta/episodes").rglob("*.parquet"):
        parquet.write_table(parquet.read_table(path).drop([column]), path)


VIDEO = "videos/observation.images.face_view/chunk-000/file-001.mp4"


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (_info(lambda i: i.update(codebase_version="v2.1")), r"codebase_version is 'v2\.1', this reads v3\.0 only"),
        (_info(lambda i: i.pop("fps")), r"info\.json: KeyError 'fps'"),
        (_info(lambda i: i.update(total_frames=24)), "have 23 frames, info.json says 24"),
        (_info(lambda i: i.update(total_episodes=3)), "has 2 of the 3 episodes"),
        (_info(lambda i: i["features"]["action"].update(shape=[3])), "action has 2 columns, info.json says 3"),
        (_info(lambda i: i["features"]["observation.images.face_view"].update(shape=[50, 64, 3])), "pictures of"),
        (_info(lambda i: i["features"].update(x={"dtype": "image", "shape": [1]})), "kept as single pictures"),
        (
            _info(lambda i: i["features"].update({"observation.images.top": {"dtype": "video", "shape": [2, 2, 3]}})),
            "top",
        ),
        (_info(lambda i: i.update(fps=0)), "fps is 0"),
        (_info(lambda i: i.update(data_path="data/{nothing}")), "do not fit each other: KeyError"),
        (lambda f: _without(f, "length"), "do not fit each other: KeyError 'length'"),
        (lambda f: _without(f, "dataset_to_index"), "do not fit each other: KeyError 'dataset_to_index'"),
        (lambda f: (f / "meta/info.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "meta/info.json").write_text("[]"), "no table"),
        (lambda f: (f / "meta/info.json").unlink(), "cannot be read"),
        (lambda f: (f / "meta/tasks.parquet").write_bytes(b"PAR1"), "cannot be read"),
        (lambda f: (f / VIDEO).unlink(), "file-001.mp4 of episode 1 is missing"),
        (lambda f: (f / "data/chunk-000/file-000.parquet").unlink(), "file-000.parquet of episode 0 is missing"),
        (lambda f: (f / "data/chunk-000/file-001.parquet").write_bytes(b"x" * 99), "file-001.parquet cannot be read"),
        (lambda f: (f / VIDEO).write_bytes(b"x" * 99), "file-001.mp4 cannot be decoded"),
        (lambda f: shutil.copy(f / VIDEO.replace("001", "000"), f / VIDEO) and None, None),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    damage: Callable[[Path], None], text: str | None, folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    damage(copy)
    if text is None:  # a video that is longer than its episode is none of its business
        assert Dataset.load(copy).frame(22).index == 22
        return
    with pytest.raises(ConfigError, match=text):
        Dataset.load(copy).frame(22)


def test_a_subtask_ends_where_none_is_said(tmp_path: Path) -> None:
    said = ["x", "x", "", "", "y", ""]
    image = {"face_view": picture(0, 0, "face_view")}
    with DatasetWriter(
        tmp_path / "d", fps=FPS, state_names="a", action_names="b", cameras={"face_view": SIZE}
    ) as writer:
        for number, subtask in enumerate(said):
            value = np.array([float(number)])
            writer.add_frame(state=value, action=-value, images=image, task="t", subtask=subtask)
        writer.end_episode()
    dataset = Dataset.load(tmp_path / "d")
    frames = [dataset.frame(i) for i in range(6)]
    assert [frame.subtask for frame in frames] == said
    assert [frame.action.tolist() for frame in frames] == [[-float(i)] for i in range(6)]


def test_bad_frames_are_refused_and_an_episode_can_be_dropped(tmp_path: Path) -> None:
    state, action = values(0, 0)
    images = {role: picture(0, 0, role) for role in CAMERAS}
    good = {"state": state, "action": action, "images": images, "task": "t"}
    with DatasetWriter(tmp_path / "d", fps=FPS, state_names="abc", action_names="pq", cameras=CAMERAS) as writer:
        for change, text in (
            ({"state": action}, r"observation.state has shape \(2,\)"),
            ({"action": np.array([1.0, np.nan])}, "expected finite numbers"),
            ({"images": {"face_view": images["face_view"]}}, "pictures of face_view, the dataset has"),
            ({"images": {**images, "face_view": np.zeros((48, 62, 3), np.uint8)}}, "pixels, the dataset has"),
            ({"images": {**images, "face_view": np.zeros((48, 64, 3))}}, "face_view"),
            ({"task": ""}, "without a task"),
        ):
            with pytest.raises(ConfigError, match=text):
                writer.add_frame(**{**good, **change})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="without frames"):
            writer.end_episode()
        for _ in range(3):
            writer.add_frame(**good)  # type: ignore[arg-type]
        writer.drop_episode()
        writer.add_frame(**good)  # type: ignore[arg-type]
        writer.end_episode()
    assert Dataset.load(tmp_path / "d").lengths == [1]
    with pytest.raises(ConfigError, match="is not an empty folder"):
        DatasetWriter(tmp_path / "d", fps=FPS, state_names="a", action_names="b", cameras={})
    with pytest.raises(ConfigError, match="fps is 0"):
        DatasetWriter(tmp_path / "e", fps=0, state_names="a", action_names="b", cameras={})
    with pytest.raises(ConfigError, match="needs even sides"):
        DatasetWriter(tmp_path / "e", fps=5, state_names="a", action_names="b", cameras={"c": (3, 4)})


def test_a_run_is_exported(arm: LiveArm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert main(["run", str(arm.config.path), "--task", "follow the block", "--duration", "2"]) == 0
    ((path, _),) = segments_of(tmp_path / "state" / "wallx-edge" / "recordings", "robot")
    whole = path.read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[: len(whole) * 3 // 4])
    capsys.readouterr()
    assert main(["export", str(path), str(cut), str(tmp_path / "made"), "--fps", "20", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["episodes"], said["fps"], said["skipped"], said["cut"]) == (2, 20, {}, [str(cut)])
    dataset = Dataset.load(tmp_path / "made")
    assert dataset.robot_type == "so101" and dataset.names["action"][0] == "shoulder_pan"
    assert dataset.lengths[0] > 30 and 0 < dataset.lengths[1] < dataset.lengths[0]
    frame = dataset.frame(20)
    assert frame.task == "follow the block" and set(frame.images) == {"face_view", "wrist_view"}
    ticks = [m.json for m in read_mcap(path, ("/loop",)).messages]
    commands = np.array([t["command"] for t in ticks if t["command"]], np.float32)
    measured = np.array([t["measured"] for t in ticks], np.float32)
    assert np.abs(commands - frame.action).max(axis=1).min() == 0
    assert np.abs(measured - frame.state).max(axis=1).min() == 0
    # the state is where the arm was while the action is where it was sent
    assert np.abs(frame.state - frame.action).max() < 0.3
    arm.story()
    # what gives no episode
    with pytest.raises(ConfigError, match="is no MCAP file"):
        export([arm.config.path], tmp_path / "none")
    assert main(["export", str(path), str(tmp_path / "made")]) == 1
    assert "is not an empty folder" in capsys.readouterr().err


def test_eval_records_what_succeeded(tmp_path: Path, capsys: Capture) -> None:
    made = tmp_path / "made"
    command = ["eval", "reach", "--episodes", "2", "--record", str(made), "--json"]
    assert main(command) == 0
    assert all(o["is_success"] for o in json.loads(capsys.readouterr().out)["outcomes"])
    dataset = Dataset.load(made)
    assert len(dataset.lengths) == 2 and dataset.fps == 20
    frame = dataset.frame(len(dataset) - 1)
    assert frame.subtask.startswith("reach the") and frame.images["face_view"].shape == (224, 224, 3)
    assert main(command) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main([*command[:-2], str(tmp_path / "other"), "--workers", "2"]) == 1
    assert "one dataset from one process" in capsys.readouterr().err
