"""Meta-World: everything but the simulation itself without it; with it, one clip of two opposite verbs."""

import csv
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from motionbox.cli import main
from motionbox.commands.synth import synth
from motionbox.inputs.manifest import load_manifest
from motionbox.synthetic.metaworld import MetaWorldConfig, write_metaworld_set
from motionbox.synthetic.metaworld.episodes import clip_moments, moving_geoms, states_at
from motionbox.synthetic.metaworld.plan import plan_metaworld
from motionbox.synthetic.metaworld.render import camera_path
from motionbox.synthetic.metaworld.scenes import NOUNS, SCENES, part_of, scenes_of

HAS_METAWORLD = importlib.util.find_spec("metaworld") is not None
needs_metaworld = pytest.mark.skipif(not HAS_METAWORLD, reason="metaworld is not installed (motionbox[metaworld])")


def test_there_are_more_than_thirty_tasks_and_none_twice():
    tasks = [task for scene in SCENES for task in (*scene.tasks, *scene.opposite_tasks)]
    assert len(tasks) == len(set(tasks)) >= 30
    assert len(NOUNS) == len(set(NOUNS))
    assert all(first != second for first, second in (scene.verbs for scene in SCENES))


def test_the_halves_share_no_noun_and_make_the_whole():
    choose, report = scenes_of("choose"), scenes_of("report")
    assert {*choose} | {*report} == {*SCENES}
    assert not {*choose} & {*report}
    assert abs(len(choose) - len(report)) <= 1
    assert all(part_of(scene) == "choose" for scene in choose)
    assert all(part_of(scene) == "report" for scene in report)
    with pytest.raises(ValueError, match="part must be one of all, choose, report, got 'half'"):
        MetaWorldConfig(part="half")


@pytest.mark.parametrize("clips_per_task", [1, 2, 12])
def test_opposites_come_from_runs_of_the_same_tasks_so_that_a_frame_cannot_tell_them_apart(clips_per_task):
    """Of two opposite verbs, each run of a task is seen as often as the one as, backwards, as the other."""
    plans = plan_metaworld(MetaWorldConfig(clips_per_task))
    assert Counter((plan.noun, plan.verb) for plan in plans) == dict.fromkeys(
        ((scene.noun, verb) for scene in SCENES for verb in scene.verbs), clips_per_task
    )
    for scene in SCENES:
        first, second = (
            Counter((plan.task, plan.split) for plan in plans if (plan.noun, plan.verb) == (scene.noun, verb))
            for verb in scene.verbs
        )
        assert first == second
        for plan in plans:
            if plan.noun == scene.noun:
                assert plan.backwards == ((plan.task in scene.tasks) != (plan.verb == scene.verbs[0]))


def test_every_task_is_used_and_a_fifth_is_for_validation():
    plans = plan_metaworld(MetaWorldConfig(20))
    assert {plan.task for plan in plans} == {t for scene in SCENES for t in (*scene.tasks, *scene.opposite_tasks)}
    assert Counter(plan.split for plan in plans) == {"train": 16 * 2 * len(SCENES), "validation": 4 * 2 * len(SCENES)}
    assert 0.4 < np.mean([plan.camera_moves for plan in plans]) < 0.6
    assert not any(plan.camera_moves for plan in plan_metaworld(MetaWorldConfig(2, camera_motion=False)))
    assert len({plan.entropy for plan in plans}) == len(plans)


def test_a_larger_set_holds_the_smaller_one():
    small, large = (plan_metaworld(MetaWorldConfig(count)) for count in (3, 5))
    runs = {(plan.entropy, plan.task, plan.verb, plan.backwards) for plan in large}
    assert all((plan.entropy, plan.task, plan.verb, plan.backwards) in runs for plan in small)


@given(st.integers(10, 200), st.integers(2, 60), st.integers(0, 99))
def test_moments_are_even_and_within_the_run(num_steps, num_frames, seed):
    moved = np.clip((np.arange(num_steps) - 0.4 * num_steps) / (0.3 * num_steps), 0, 1)
    moments = clip_moments(moved, num_frames, np.random.default_rng(seed))
    assert moments.shape == (num_frames,)
    assert moments.min() >= 0
    assert moments.max() <= num_steps - 1
    steps = np.diff(moments)
    np.testing.assert_allclose(steps, steps[0], atol=1e-9)


def test_moments_are_about_the_motion():
    moved = np.clip((np.arange(200) - 120) / 40, 0, 1)
    for seed in range(20):
        moments = clip_moments(moved, 30, np.random.default_rng(seed))
        assert 107 <= moments[0] <= 128
        assert 152 <= moments[-1] <= 172


def test_states_between_steps_are_interpolated():
    states = np.array([[0.0, 10.0], [1.0, 20.0], [2.0, 40.0]])
    np.testing.assert_allclose(
        states_at(states, np.array([0.0, 0.5, 1.25, 2.0])), [[0, 10], [0.5, 15], [1.25, 25], [2, 40]]
    )


def test_only_what_moves_counts():
    poses = np.zeros((5, 3, 12))
    poses[:, :, 3:] = np.eye(3).reshape(-1)
    poses[:, 0, 0] = np.linspace(0, 0.003, 5)  # three millimetres: does not count
    poses[:, 1, 2] = np.linspace(0, 0.01, 5)
    angle = np.radians(5)
    poses[4, 2, 3:] = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    ).ravel()
    assert moving_geoms(poses).tolist() == [False, True, True]


def test_a_still_camera_stands_still_and_a_moving_one_moves():
    around = np.array([0.1, 0.6, 0.2])
    still, moving = (camera_path(around, 30, np.random.default_rng(3), moving=moves) for moves in (False, True))
    for part in ("target", "distance", "azimuth", "elevation"):
        assert np.ptp(getattr(still, part), axis=0).max() == 0
        assert np.ptp(getattr(moving, part), axis=0).max() > 0
    for seed in range(30):
        path = camera_path(around, 30, np.random.default_rng(seed), moving=True)
        assert np.abs(path.target - around).max() < 0.4
        assert path.distance.min() > 0.5
        assert (np.cos(np.radians(path.azimuth - 90)) < 0.98).all(), "the robot's back is in the way"


@pytest.mark.skipif(HAS_METAWORLD, reason="metaworld is installed")
def test_without_metaworld_it_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["synth", "--metaworld", "-o", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "pip install 'motionbox[metaworld]'" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metaworld", "--footage", "x"], "choose one"),
        (["--part", "choose"], "--part is for --metaworld"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, options, message):
    result = CliRunner().invoke(synth, ["-o", str(tmp_path / "out"), *options])
    assert result.exit_code == 2
    assert message in result.output


@needs_metaworld
@pytest.mark.slow
def test_a_drawer_opens_and_closes(tmp_path: Path, monkeypatch):
    """One clip of each verb of a drawer, the second killed before it is done: labels, masks, and the same again."""
    import cv2

    from motionbox.synthetic.metaworld import plan, writer

    drawer = [clip for clip in plan_metaworld(MetaWorldConfig(1)) if clip.noun == "drawer"]
    monkeypatch.setattr(writer, "plan_metaworld", lambda _: drawer)
    config = MetaWorldConfig(1, side_px=96)
    for name in ("a", "b"):
        assert write_metaworld_set(tmp_path / name, config).num_drawn == 2
    assert write_metaworld_set(tmp_path / "a", config).num_drawn == 0
    for file in ("annotations.csv", "boxes.json", "masks/00000/000007.png", "masks/00001/000044.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    rows = list(csv.DictReader((tmp_path / "a" / "annotations.csv").open()))
    assert [(row["verb"], row["played"]) for row in rows] == [("open", "forwards"), ("close", "backwards")]
    assert load_manifest("metaworld", tmp_path / "a").num_rows == 2
    for row in rows:
        files = sorted((tmp_path / "a" / "masks" / row["clip_id"]).iterdir())
        masks = np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]) > 0
        assert masks.shape == (plan.NUM_FRAMES, 96, 96)
        assert 0.01 < masks.mean() < 0.6
