"""The session's bench: half a minute of acting and thinking, what is shared, and that it would notice."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

from wallx_edge.bench.seams import measure_seams, seam_summary
from wallx_edge.bench.session import LIMITS, measure_sharing, problems, run_for


def test_half_a_minute_leaves_nothing_behind_and_memory_flat(tmp_path: Path) -> None:
    found = run_for(30.0, tmp_path)
    assert problems(found) == []
    assert found["answers"] >= 5


def test_a_leak_a_lost_frame_and_a_thread_are_noticed() -> None:
    good = {
        "memory_growth": 0.009,
        "frames_missing": 0,
        "inferences_missing": 0,
        "threads_left": [],
        "answers": 3,
        "kinds": {"chunk": 2},
    }
    assert problems(good) == []
    for change in (
        {"memory_growth": 0.011},
        {"frames_missing": 1},
        {"inferences_missing": -1},
        {"threads_left": ["policy"]},
        {"answers": 0},
        {"kinds": {}},
    ):
        assert len(problems({**good, **change})) == 1


def test_a_subtask_computes_no_picture_of_its_observation_again(tiny_checkpoint: Path) -> None:
    found = measure_sharing(tiny_checkpoint, rounds=2)
    assert found["pictures_computed_by_policy"] == 4
    assert found["pictures_computed_by_reasoner"] == LIMITS["pictures_computed_by_reasoner"] == 0
    assert found["subtask_tokens_shared"] > 0.8 * found["subtask_prompt_tokens"]


def test_a_summary_has_the_worst_of_all_delays() -> None:
    results = [measure_seams(mode, delay, duration=4.0) for delay in (2, 5) for mode in ("latest", "rtc")]
    worst = seam_summary(results)
    assert worst["jump_ratio"] <= LIMITS["jump_ratio"]
    results[-1]["jump_rad"], results[-1]["holds"] = 10.0, 2
    assert seam_summary(results)["jump_ratio"] > 1
    assert seam_summary(results)["holds"] == 2
