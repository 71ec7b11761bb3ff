"""The loop's benchmark: what it counts is what happened."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import pytest

from wallx_edge import _core
from wallx_edge.bench import loop
from wallx_edge.bench.loop import SETUPS, bench_loop
from wallx_edge.cli import main
from wallx_edge.errors import ConfigError, SafetyStop


def test_a_block_measures_both_loops_and_finds_no_call_for_memory() -> None:
    blocks = 0

    def count() -> None:
        nonlocal blocks
        blocks += 1

    found = bench_loop("loopback", rate_hz=200.0, blocks=1, duration=0.5, threads=1, on_block=count)
    assert blocks == 1
    assert (found["rate_hz"], found["title"]) == (200.0, SETUPS["loopback"].title)
    assert 10 <= found["ticks"] <= 150
    assert found["lateness_p99_us"] >= found["lateness_p50_us"] > 0
    assert found["p99_ratio"] == pytest.approx(found["lateness_p99_us"] / found["bare_p99_us"])
    assert (found["allocations"], found["frees"], found["mappings"]) == (0, 0, 0)


def test_calls_that_were_not_counted_are_an_error_and_not_a_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wallx_edge.bench.loop._counting_library", lambda: "")
    with pytest.raises(Exception, match="LD_PRELOAD had no effect"):
        bench_loop("loopback", rate_hz=100.0, blocks=1, duration=0.2, threads=0)


def test_the_bare_loop_counts_its_wake_ups() -> None:
    run = _core.bare_loop(500.0, 0.1, priority=0)
    assert run["lateness"].sum() == run["ticks"] > 0
    with pytest.raises(ConfigError, match="priority is 100"):
        _core.bare_loop(500.0, 0.1, priority=100)


@pytest.mark.parametrize(("option", "value"), [("--rate", "5"), ("--busy", "65"), ("--blocks", "0")])
def test_impossible_options_are_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "loop", option, value]) == 1
    assert f"{option} is {value}" in capsys.readouterr().err


def test_a_block_in_which_the_robot_was_stopped_is_told_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = loop._child, 0

    def child(task: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise SafetyStop("joint 'a' has not answered")
        return real(task)

    monkeypatch.setattr(loop, "_child", child)
    found = bench_loop("loopback", rate_hz=100.0, blocks=2, duration=0.2, threads=0)
    assert found["stops"] == ["joint 'a' has not answered"]
    assert len(found["runs"]["loop"]) == 1
    calls = 0
    with pytest.raises(SafetyStop, match="every block was stopped: joint 'a'"):
        bench_loop("loopback", rate_hz=100.0, blocks=1, duration=0.2, threads=0)
