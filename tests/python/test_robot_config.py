"""RobotConfig: a full file, the defaults, and every way to get one wrong."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest

from wallx_edge.buses import BusConfig
from wallx_edge.errors import ConfigError
from wallx_edge.policy import PolicyConfig
from wallx_edge.robot_config import RobotConfig

MINIMAL = """
[robot]
embodiment = "so101"
calibration = "my_arm.json"

[bus]
port = "/dev/ttyACM0"

[policy]
checkpoint = "model"

[[camera]]
role = "face_view"
kind = "pattern"
"""

FULL = """
[robot]
embodiment = "arms/mine.toml"
unit = "left"

[bus]
port = "/dev/ttyUSB3"
baud_rate = 500000

[control]
rate_hz = 250.0

[policy]
checkpoint = "/models/flow"
resolution = 224
horizon = 16
step = 0.05
statistics = "so101"
num_steps = 7
attention = "causal"
time_grid = "legacy"
rope_layout = "contiguous"
execute_rows = 9
seed = 5

[[camera]]
role = "wrist_view"
kind = "opencv"
device = 2

[[camera]]
role = "face_view"
kind = "folder"
path = "pictures"
"""

PORT = 'port = "/dev/ttyACM0"'


def load(folder: Path, text: str) -> RobotConfig:
    file = folder / "robot.toml"
    file.write_text(text)
    return RobotConfig.load(file)


def edited(old: str, new: str, text: str = MINIMAL) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


def test_a_full_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    config = load(tmp_path, FULL)
    assert config.path == tmp_path / "robot.toml"
    assert config.embodiment == str(tmp_path / "arms/mine.toml")
    assert config.calibration == tmp_path / "home/wallx-edge/calibration/mine/left.json"
    assert config.bus == BusConfig(port="/dev/ttyUSB3", baud_rate=500000)
    assert config.rate_hz == 250.0
    assert config.checkpoint == Path("/models/flow")
    assert config.policy == PolicyConfig(
        cameras=("wrist_view", "face_view"),
        resolution=224,
        horizon=16,
        step=0.05,
        statistics="so101",
        num_steps=7,
        attention="causal",
        time_grid="legacy",
        rope_layout="contiguous",
        seed=5,
    )
    assert config.session.execute_rows == 9
    assert list(config.cameras) == ["wrist_view", "face_view"]
    assert config.cameras["wrist_view"].values == {"role": "wrist_view", "kind": "opencv", "device": 2}
    assert config.cameras["face_view"].values == {"role": "face_view", "kind": "folder", "path": "pictures"}


def test_defaults_and_relative_paths(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    assert config.embodiment == "so101"
    assert config.calibration == tmp_path / "my_arm.json"
    assert config.checkpoint == tmp_path / "model"
    assert (config.bus, config.rate_hz) == (BusConfig("serial", "/dev/ttyACM0", 1_000_000), 200.0)
    assert config.policy == PolicyConfig(cameras=("face_view",))
    assert config.session.execute_rows is None  # half of whatever the checkpoint's horizon is


def test_each_camera_may_have_its_own_resolution(tmp_path: Path) -> None:
    text = MINIMAL.replace('"model"', '"model"\nresolution = {face_view = 448}')
    assert load(tmp_path, text).policy.resolution == {"face_view": 448}


def test_what_the_variants_leave_open_can_be_said(tmp_path: Path) -> None:
    keys = 'time_scale = 0.999\nstate_bins = 512\nmasked = ["height", "head_actions"]\nhas_embodied_prologue = true\n'
    policy = load(tmp_path, MINIMAL.replace('"model"', f'"model"\n{keys}camera_labels = {{face_view = "eye"}}')).policy
    assert (policy.time_scale, policy.state_bins, policy.has_embodied_prologue) == (0.999, 512, True)
    assert policy.masked == ("height", "head_actions")
    assert policy.camera_labels == {"face_view": "eye"}
    assert load(tmp_path, MINIMAL.replace('"model"', '"model"\ncamera_labels = {}')).policy.camera_labels == {}
    for line, text in (
        ("time_scale = 1.5", "policy.time_scale is 1.5"),
        ("time_scale = 0", "time_scale is 0"),
        ("state_bins = 1", "state_bins is 1, must be 2..65536"),
        ('masked = "height"', "masked is 'height', must be a list of slot names"),
        ("masked = [1]", "masked is [1]"),
        ("has_embodied_prologue = 1", "has_embodied_prologue is 1, must be true or false"),
        ('camera_labels = {side = "x"}', "'side' is not a known key"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, MINIMAL.replace('"model"', f'"model"\n{line}'))
        assert text in str(caught.value)


def test_a_robot_that_no_checkpoint_drives_yet_needs_neither_policy_nor_camera(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL[: MINIMAL.index("[policy]")])
    assert config.embodiment == "so101"
    assert config.cameras == {}
    with pytest.raises(ConfigError, match=r"'policy' is missing: no checkpoint"):
        _ = config.checkpoint


def test_a_relative_port_is_the_same_one_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ports = set()
    for name, folder in (("robot.toml", "."), (str(tmp_path / "robot.toml"), "/")):
        (tmp_path / "robot.toml").write_text(edited('"/dev/ttyACM0"', '"arm"'), encoding="utf-8")
        monkeypatch.chdir(folder)
        ports.add(RobotConfig.load(name).bus.port)
    assert ports == {str(tmp_path / "arm")}


def test_an_embodiment_with_a_slash_is_a_path_beside_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, edited('"so101"', '"arms/mine"'))
    assert config.embodiment == str(tmp_path / "arms/mine")


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        # unknown keys at every level, missing tables and keys
        ("[robot]", "surprise = 1\n[robot]", "'surprise' is not a known key"),
        ("[robot]", "[robot]\nspeed = 1", "robot: 'speed' is not a known key"),
        ("[bus]", "[bus]\nparity = 1", "bus: 'parity' is not a known key"),
        ("[bus]", "[control]\nrate = 100\n[bus]", "control: 'rate' is not a known key"),
        ("[policy]", "[policy]\nsteps = 10", "policy: 'steps' is not a known key"),
        ('[bus]\nport = "/dev/ttyACM0"', "", "'bus' is missing"),
        ('[policy]\ncheckpoint = "model"', "", "'policy' is missing"),
        ('[[camera]]\nrole = "face_view"\nkind = "pattern"', "", "'camera' is missing"),
        ('embodiment = "so101"\n', "", "robot: 'embodiment' is missing"),
        ('port = "/dev/ttyACM0"', "", "bus: 'port' is missing"),
        ('checkpoint = "model"', "", "policy: 'checkpoint' is missing"),
        ('role = "face_view"', "", "camera[0]: role is None"),
        ('kind = "pattern"', "", "camera[0]: kind is None"),
        # wrong types
        ('"/dev/ttyACM0"', "3", "bus: port is 3, must be a non-empty text"),
        ('"so101"', '""', "robot: embodiment is ''"),
        ("[bus]", "[control]\nrate_hz = '200'\n[bus]", "control: rate_hz is '200', must be a finite number"),
        ('"model"', '"model"\nhorizon = 16.0', "policy: horizon is 16.0, must be a whole number"),
        ('"model"', '"model"\nstatistics = ""', "policy: statistics is ''"),
        ('[[camera]]\nrole = "face_view"\nkind = "pattern"', "[camera]\nrole = 'face_view'", "camera must be one"),
        # out of range
        ("[bus]", "[control]\nrate_hz = 19\n[bus]", "control: rate_hz is 19, must be 20..1000"),
        ("[bus]", "[control]\nrate_hz = 1001\n[bus]", "control: rate_hz is 1001, must be 20..1000"),
        ("[bus]", "[control]\nrate_hz = nan\n[bus]", "control: rate_hz is nan, must be a finite number"),
        ('"/dev/ttyACM0"', '"/dev/ttyACM0"\nbaud_rate = 300', "bus: baud_rate is 300, must be 9600..4000000"),
        # buses
        (PORT, 'kind = "carrier-pigeon"\nport = "a"', "bus: kind is 'carrier-pigeon', must be one of"),
        (PORT, 'kind = "slcan"', "bus: 'port' is missing"),
        (PORT, 'port = "a"\nbit_rate = 1000000', "bus: 'bit_rate' is not a known key"),
        (PORT, 'kind = "socketcan"\nport = "can0"\nbaud_rate = 9600', "'baud_rate' is not a known key"),
        (PORT, 'kind = "slcan"\nport = "a"\nbit_rate = 9999', "bit_rate is 9999, must be 10000..1000000"),
        (PORT, 'kind = "slcan"\nport = "a"\ndata_bit_rate = 9', "data_bit_rate is 9, must be 500000.."),
        (PORT, 'kind = "mailbox"\nport = "a"', "bus: adapter is '', must be a non-empty text"),
        (PORT, 'kind = "mailbox"\nport = "a"\nadapter = "x"', "adapter is 'x', must be one of pyserial"),
        (PORT, 'kind = "mailbox"\nport = "0"\nadapter = "python-can"', "bus: interface is None"),
        (PORT, 'port = "a"\nadapter = "pyserial"', "bus: 'adapter' is not a known key"),
        (PORT, 'kind = "pyserial"\nport = "loop://"', "up to 50 Hz, and control.rate_hz is 200"),
        ('"model"', '"model"\nhorizon = 1', "policy: horizon is 1, must be 2..128"),
        ('"model"', '"model"\nhorizon = 129', "policy: horizon is 129, must be 2..128"),
        ('"model"', '"model"\nresolution = 0', "policy: resolution is 0, must be 1..4096, or -1"),
        ('"model"', '"model"\nresolution = -2', "policy: resolution is -2"),
        ('"model"', '"model"\nstep = 0.0', "policy: step is 0 s, must be above 0"),
        ('"model"', '"model"\nstep = 1.5', "policy: step is 1.5 s, must be at most 1 s"),
        ('"model"', '"model"\nnum_steps = 0', "policy: num_steps is 0"),
        ('"model"', '"model"\ntime_grid = "legacy"\nnum_steps = 1', "policy: num_steps is 1, must be 2..1000"),
        (
            '"model"',
            '"model"\nattention = "both"',
            "policy: attention is 'both', must be one of checkpoint, bi",
        ),
        ('"model"', '"model"\ntime_grid = "x"', "policy: time_grid is 'x'"),
        ('"model"', '"model"\nrope_layout = "x"', "policy: rope_layout is 'x'"),
        ('"model"', '"model"\nhorizon = 32\nexecute_rows = 33', "policy: execute_rows is 33, must be 1..32"),
        ('"model"', '"model"\nexecute_rows = 129', "policy: execute_rows is 129, must be 1..128"),
        ('"model"', '"model"\nresolution = {side_view = 3}', "policy.resolution: 'side_view' is not a known key"),
        ('"model"', '"model"\nresolution = {face_view = 0}', "policy.resolution: face_view is 0, must be 1..4096"),
        ('"model"', '"model"\nexecute_rows = 0', "policy: execute_rows is 0"),
        ('"model"', '"model"\nseed = -1', "policy: seed is -1"),
        # things that contradict each other
        ('"my_arm.json"', '"my_arm.json"\nunit = "a"', "robot: calibration and unit: exactly one"),
        ('calibration = "my_arm.json"', "", "robot: calibration and unit: exactly one"),
        (
            '"pattern"',
            '"pattern"\n[[camera]]\nrole = "face_view"\nkind = "opencv"',
            "camera[1]: role is 'face_view', which another camera has",
        ),
    ],
)
def test_a_bad_file_is_refused_with_its_place(old: str, new: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, edited(old, new))
    assert str(caught.value).startswith(str(tmp_path / "robot.toml"))
    assert text in str(caught.value)


def test_a_value_in_place_of_a_table_is_refused(tmp_path: Path) -> None:
    text = 'bus = "/dev/ttyACM0"\n' + edited('[bus]\nport = "/dev/ttyACM0"', "")
    with pytest.raises(ConfigError, match=r"robot\.toml: bus is '/dev/ttyACM0', must be a table"):
        load(tmp_path, text)


@pytest.mark.parametrize("unit", ["../other", "", ".."])
def test_a_unit_stays_in_its_folder(unit: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unit"):
        load(tmp_path, edited('calibration = "my_arm.json"', f'unit = "{unit}"'))


@pytest.mark.parametrize("value", ["[]", "[1]", "3"])
def test_cameras_must_be_tables(value: str, tmp_path: Path) -> None:
    text = f"camera = {value}\n" + edited('[[camera]]\nrole = "face_view"\nkind = "pattern"', "")
    with pytest.raises(ConfigError, match=r"robot\.toml: camera"):
        load(tmp_path, text)


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        RobotConfig.load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"robot\.toml is not TOML"):
        load(tmp_path, "[robot")


@pytest.mark.parametrize(
    ("table", "rate_hz", "bus"),
    [
        ('kind = "socketcan"\nport = "can0"', 200, BusConfig("socketcan", "can0")),
        (
            'kind = "slcan"\nport = "/dev/ttyACM1"\nbaud_rate = 115200\nbit_rate = 500000\ndata_bit_rate = 5000000',
            200,
            BusConfig("slcan", "/dev/ttyACM1", 115200, 500_000, 5_000_000),
        ),
        (
            'kind = "udp_multicast"\nport = "239.74.163.2"\ninterface = "lo"',
            200,
            BusConfig("udp_multicast", "239.74.163.2", interface="lo"),
        ),
        ('kind = "pyserial"\nport = "loop://"', 50, BusConfig("mailbox", "loop://", adapter="pyserial")),
        (
            'kind = "mailbox"\nadapter = "python-can"\ninterface = "kvaser"\nport = "0"',
            200,
            BusConfig("mailbox", "0", interface="kvaser", adapter="python-can"),
        ),
    ],
)
def test_every_kind_of_bus(table: str, rate_hz: float, bus: BusConfig, tmp_path: Path) -> None:
    text = edited('port = "/dev/ttyACM0"', table).replace("[policy]", f"[control]\nrate_hz = {rate_hz}\n[policy]")
    assert load(tmp_path, text).bus == bus


def test_a_replayed_log_is_beside_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, edited('port = "/dev/ttyACM0"', 'kind = "replay"\nport = "arm.log"'))
    assert config.bus.port == str(tmp_path / "arm.log")
