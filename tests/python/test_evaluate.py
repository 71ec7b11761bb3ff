"""Evaluation: what counts as done, what training never shows, who succeeds, and that nothing depends on the machine."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import arm_model
from daemons import PROGRAM
from wallx_edge.cli import main
from wallx_edge.embodiment import load_embodiment
from wallx_edge.errors import ConfigError
from wallx_edge.evaluate import TASKS, VARIANTS, make_scene, run_episode
from wallx_edge.evaluate.campaign import Campaign, against, interval, jobs_of, run_jobs, summarize
from wallx_edge.evaluate.expert import Expert, reach_of
from wallx_edge.evaluate.tasks import AREA, Progress, Scene
from wallx_edge.sim.so101 import SO101
from wallx_edge.sim.world import World
from wallx_edge.types import ActionChunk, Observation

Capture = pytest.CaptureFixture[str]


def put(world: World, name: str, position: tuple[float, float, float]) -> None:
    at = int(world.model.joint(world.model.body(name).jntadr[0]).qposadr[0])
    state = world.state
    state[at : at + 3] = position
    world.show(state)


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_does_every_task_and_the_blind_one_none(task: str) -> None:
    for seed in (0, 1):
        outcome = run_episode(make_scene(task, seed), seed)
        assert outcome.is_success and outcome.progress == 1.0, outcome
        assert outcome.error == "" and outcome.refused == 0
        assert outcome.seam < 0.01
    blind = run_episode(make_scene(task, 0), 0, "blind")
    assert not blind.is_success and blind.progress < 1.0


class _Holding(Expert):
    """The expert that never lets go."""

    def act(self, observation: Observation, *args: Any, **options: Any) -> ActionChunk:
        chunk = super().act(observation, *args, **options)
        rows = chunk.rows.copy()
        has_closed = np.flatnonzero(rows[:, 5] < -0.9)
        self.is_closed = getattr(self, "is_closed", False) or bool(has_closed.size)
        if self.is_closed:
            rows[(has_closed[0] if has_closed.size else 0) :, 5] = -0.95
        return replace(chunk, rows=rows)


@pytest.mark.parametrize("task", ["pick_place", "place_by_colour"])
def test_what_is_held_where_it_belongs_is_not_placed(task: str) -> None:
    def make(scene: Scene, world: World, progress: Progress) -> Expert:
        return _Holding(scene, world, progress, load_embodiment("so101"))

    for seed in (0, 1):
        outcome = run_episode(make_scene(task, seed), seed, make)
        assert not outcome.is_success and outcome.progress == 0.5, outcome


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_the_expert_does_not_mind_what_training_never_shows(variant: str) -> None:
    assert run_episode(make_scene("place_by_colour", 5, variant), 5).is_success


def test_equal_seeds_are_equal_bits_also_on_a_busy_machine() -> None:
    scene = make_scene("pick_place", 4)
    first = run_episode(scene, 4)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(1000))"]) for _ in range(4)]
    try:
        again = run_episode(scene, 4)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert again == first
    assert run_episode(make_scene("pick_place", 5), 5).commands != first.commands


def test_the_outcomes_do_not_depend_on_the_number_of_processes() -> None:
    campaign = Campaign(("reach", "place_by_colour"), episodes=2)
    alone = [outcome.as_json() for outcome in run_jobs(jobs_of(campaign), 1)]
    command = [*PROGRAM, "eval", *campaign.tasks, "--episodes", "2", "--workers", "2", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["outcomes"] == alone


def test_a_fleet_gives_the_same_outcomes() -> None:
    pytest.importorskip("ray", reason="the extra fleet is not installed")
    jobs = jobs_of(Campaign(("reach",), episodes=2))
    command = [*PROGRAM, "eval", "reach", "--episodes", "2", "--fleet", "local", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["outcomes"] == [outcome.as_json() for outcome in run_jobs(jobs, 1)]


def test_reached_is_near_for_half_a_second() -> None:
    scene = make_scene("reach", 0)
    world = SO101.make_world(scene.world)
    progress = Progress(scene, world)
    name = scene.goals[0].thing
    x, y, z = world.tool
    put(world, name, (x, y, z - 0.019))
    for now in (0.0, 0.2, 0.45):
        progress.see(now)
        assert not progress.is_success
    put(world, name, (x, y, z - 0.021))
    progress.see(0.55)
    put(world, name, (x, y, z - 0.019))
    for now in (0.6, 0.9, 1.05):
        progress.see(now)
        assert not progress.is_success, "the time near it begins anew"
    progress.see(1.11)
    assert progress.is_success and progress.share == 1.0


def test_placed_is_down_near_and_at_rest() -> None:
    scene = make_scene("place_by_colour", 0)
    world = SO101.make_world(scene.world)
    goal = scene.goals[0]
    (x, y), half = world.pose(goal.target)[0][:2], 0.0125
    down = half + 0.004

    def is_placed(positions: list[tuple[float, float, float]]) -> bool:
        progress = Progress(scene, world)
        for i, position in enumerate(positions):
            put(world, goal.thing, position)
            progress.see(0.1 * i)
        return progress.is_success

    assert is_placed([(x, y, down)] * 6)
    assert is_placed([(x + 0.028, y, down)] * 6)
    assert not is_placed([(x + 0.032, y, down)] * 6), "beside it"
    assert not is_placed([(x, y, down + 0.02)] * 6), "held above it"
    assert not is_placed([(x, y, down)] * 3), "not for long enough"
    assert not is_placed([(x + 0.003 * i, y, down) for i in range(6)]), "still moving"
    other = next(t.position for t in scene.world.things if t.shape == "plate" and t.name != goal.target)
    assert not is_placed([(*other, down)] * 6), "the other plate"
    lifted = Progress(scene, world)
    put(world, goal.thing, (x, y, 0.1))
    lifted.see(0.0)
    assert lifted.share == 0.5


def test_waste_counts_anywhere_within_the_walls() -> None:
    scene = make_scene("collect_waste", 2)
    world = SO101.make_world(scene.world)
    (x, y), progress = world.pose("bin")[0][:2], Progress(scene, world)
    for i, goal in enumerate(scene.goals):
        put(world, goal.thing, (x + 0.03 * (i - 1), y + 0.02, 0.0125 + 0.004))
    for i in range(6):
        progress.see(0.1 * i)
    assert progress.done == (True, True, True)
    put(world, scene.goals[0].thing, (x, y + 0.056, 0.0125))
    for i in range(6, 12):
        progress.see(0.1 * i)
    assert progress.done == (False, True, True)


def test_training_never_shows_what_is_held_out() -> None:
    def blocks(variant: str) -> set[tuple[str, str]]:
        found = set()
        for seed in range(60):
            for task in ("reach", "pick_place", "place_by_colour", "collect_waste"):
                for thing in make_scene(task, seed, variant).world.things:
                    if thing.shape in ("box", "cylinder") and "brick" not in thing.name:
                        found.add((thing.name.split()[0], thing.shape))
        return found

    def corners(variant: str) -> list[bool]:
        spots = [t.position for s in range(60) for t in make_scene("reach", s, variant).world.things]
        return [x > 0.26 and y > 0.02 for x, y in spots]

    assert len(blocks("train")) == 5 and not blocks("train") & blocks("combination")
    assert not any(corners("train")) and all(corners("area"))
    said = {v: {make_scene("reach", s, v).instruction.split(" the ")[0] for s in range(60)} for v in VARIANTS}
    assert not said["train"] & said["phrasing"]
    assert all(len(make_scene("reach", s, "distractors").world.things) == 5 for s in range(20))
    positions = {make_scene("reach", s, "camera").world.cameras[0].position for s in range(20)}
    assert len(positions) == 20
    assert make_scene("reach", 7) == make_scene("reach", 7) != make_scene("reach", 8)


def test_things_stand_apart_and_where_the_arm_reaches() -> None:
    (x_min, x_max), (y_min, y_max) = AREA
    assert (x_max - x_min, y_max - y_min) == pytest.approx((0.20, 0.25))
    spots = []
    for task in TASKS:
        for seed in range(40):
            scene = make_scene(task, seed)
            things = scene.world.things
            for i, one in enumerate(things):
                for other in things[:i]:
                    assert np.hypot(*np.subtract(one.position, other.position)) > 0.03
            spots += [t.position for t in things if not t.is_fixed]
    x, y = np.array(spots).T
    assert x.min() < 0.15 and x.max() > 0.33 and y.min() < -0.12 and y.max() > 0.12
    world, embodiment = SO101.make_world(make_scene("reach", 0).world), load_embodiment("so101")
    reach = reach_of(world, embodiment)
    for a in np.linspace(x_min, x_max, 9):
        for b in np.linspace(y_min, y_max, 9):
            joints = reach.over((a, b, 0.016))
            assert joints is not None, (a, b)
            state = world.state
            state[:5] = joints
            world.show(state)
            assert np.abs(world.tool - [a, b, 0.016]).max() < 1e-9
    assert reach.over((0.6, 0.0, 0.02)) is None


def test_intervals_are_wilsons() -> None:
    # by hand: (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    assert interval(10, 10) == pytest.approx((0.7224672, 1.0))
    assert interval(5, 10) == pytest.approx((0.2365931, 0.7634069), abs=1e-6)
    assert interval(0, 0) == (0.0, 1.0)


def test_pairs_are_paired() -> None:
    outcomes = [run_episode(make_scene("reach", s), s) for s in (0, 1)]
    others = [{**o.as_json(), "is_success": o.seed == 1} for o in outcomes] + [{**outcomes[0].as_json(), "seed": 99}]
    found = against(outcomes, others)
    assert (found["pairs"], found["only_this"], found["only_other"]) == (2, 1, 0)
    assert found["difference"] == 0.5
    (summary,) = summarize([*outcomes, replace(outcomes[0], is_success=False, error="why", progress=0.0)])
    assert (summary.episodes, summary.successes, summary.errors) == (3, 2, 1)
    assert summary.progress == pytest.approx(2 / 3)


def test_the_verb_leaves_a_page_with_films(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "page"
    command = ["eval", "reach", "--episodes", "2", "--workers", "1"]
    # in a process of its own: matplotlib keeps its fonts open
    ended = subprocess.run(
        [*PROGRAM, *command, "--out", str(out), "--json"], capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == report
    assert [o["seed"] for o in report["outcomes"]] == [0, 1]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "outcomes.png" in page and "reach-train-0.mp4" in page and "2 of 2" in page
    with av.open(str(out / "reach-train-0.mp4")) as film:
        assert len(list(film.decode(video=0))) > 20
    assert main([*command, "--against", str(out / "report.json")]) == 0
    assert "2 pairs, success differs by +0.000" in capsys.readouterr().out.replace("\n", " ")


def test_a_checkpoint_is_evaluated_seeing_and_not(tmp_path: Path, capsys: Capture) -> None:
    folder = arm_model.write(tmp_path / "model")
    command = ["eval", "place_by_colour", "--episodes", "1", "--workers", "1", "--policy", str(folder), "--json"]
    outcomes = []
    for more in ([], [], ["--blank"], ["--precision", "int8"]):
        assert main([*command, *more]) == 0
        outcomes.append(json.loads(capsys.readouterr().out)["outcomes"][0])
    first, again, blank, coarse = outcomes
    assert first == again and not first["is_success"] and first["chunks"] > 10
    assert len({o["commands"] for o in (first, blank, coarse)}) == 3


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["fly"], "no task 'fly'; there are reach"),
        (["reach", "--variants", "dark"], "no variant 'dark'"),
        (["reach", "--episodes", "0"], "episodes is 0, expected 1"),
        (["reach", "--seed", "-1"], "seed is -1"),
        (["reach", "--policy", "nobody"], "neither expert, blind nor a checkpoint's folder"),
        (["reach", "--blank"], "are for a checkpoint"),
        (["reach", "--workers", "-2"], "--workers is -2"),
        (["reach", "--against", "nothing.json"], "is no report"),
    ],
)
def test_bad_wishes_are_refused_before_anything_runs(words: list[str], text: str, capsys: Capture) -> None:
    assert main(["eval", *words]) == 1
    assert text in capsys.readouterr().err


def test_scenes_that_do_not_exist_are_refused() -> None:
    for task, seed, variant, text in (
        ("fly", 0, "train", "no task"),
        ("reach", -1, "train", "seed"),
        ("reach", 0, "x", "no variant"),
    ):
        with pytest.raises(ConfigError, match=text):
            make_scene(task, seed, variant)
