import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier

from motionbox.synthetic.actions import VERBS, ActionTracks, action_tracks

NUM_FRAMES = 36
CHANCE = 1 / len(VERBS)


def states(tracks: ActionTracks) -> np.ndarray:
    return np.stack([tracks.x, tracks.y, tracks.height, tracks.turn, tracks.lid, tracks.reach], axis=1)


@pytest.fixture(scope="module")
def many_states() -> tuple[np.ndarray, np.ndarray]:
    verbs = np.arange(1800) % len(VERBS)
    tracks = [action_tracks(VERBS[verb], NUM_FRAMES, np.random.default_rng([1, i])) for i, verb in enumerate(verbs)]
    return np.stack([states(track) for track in tracks]), verbs


def accuracy(features: np.ndarray, verbs: np.ndarray) -> float:
    forest = RandomForestClassifier(80, min_samples_leaf=8, random_state=0, n_jobs=1)
    half = len(verbs) // 2
    return float(forest.fit(features[:half], verbs[:half]).score(features[half:], verbs[half:]))


def test_the_full_state_of_a_random_frame_does_not_tell_the_verb(many_states):
    """Even someone who knows the exact hidden state of one frame does no better than guessing."""
    states_, verbs = many_states
    frame = np.random.default_rng(0).integers(NUM_FRAMES, size=len(verbs))
    assert accuracy(states_[np.arange(len(verbs)), frame], verbs) < CHANCE + 0.05


def test_the_motion_tells_the_verb(many_states):
    states_, verbs = many_states
    motion = np.concatenate([states_[:, -1] - states_[:, 0], np.abs(np.diff(states_, axis=1)).sum(axis=1)], axis=1)
    assert accuracy(motion, verbs) > 0.95


@pytest.mark.parametrize(
    ("verb", "dimension", "sign"),
    [
        ("push left", "x", -1),
        ("push right", "x", 1),
        ("lift", "height", 1),
        ("put down", "height", -1),
        ("rotate clockwise", "turn", 1),
        ("rotate counter-clockwise", "turn", -1),
        ("open", "lid", 1),
        ("close", "lid", -1),
    ],
)
def test_a_verb_plays_its_own_dimension_and_no_other(verb, dimension, sign):
    for seed in range(40):
        tracks = action_tracks(verb, NUM_FRAMES, np.random.default_rng(seed))
        assert sign * (getattr(tracks, dimension)[-1] - getattr(tracks, dimension)[0]) > 0.1
        for other in {"x", "y", "height", "turn", "lid"} - {dimension}:
            assert np.ptp(getattr(tracks, other)) == 0


def test_shaking_goes_to_and_fro():
    for seed in range(40):
        tracks = action_tracks("shake", NUM_FRAMES, np.random.default_rng(seed))
        path = tracks.x if np.ptp(tracks.x) > np.ptp(tracks.y) else tracks.y
        steps = np.diff(path)
        assert np.count_nonzero(np.diff(np.sign(steps[steps != 0]))) >= 3
        assert np.ptp(tracks.height) == np.ptp(tracks.turn) == np.ptp(tracks.lid) == 0


@given(st.sampled_from(VERBS), st.integers(2, 60), st.integers(0, 2**32))
def test_tracks_stay_in_their_ranges_and_nothing_floats(verb, num_frames, seed):
    tracks = action_tracks(verb, num_frames, np.random.default_rng(seed))
    assert all(len(getattr(tracks, name)) == num_frames for name in ("x", "y", "height", "turn", "lid", "reach"))
    assert tracks.x.min() >= 0.1
    assert tracks.x.max() <= 0.9
    for share in (tracks.height, tracks.lid, tracks.reach):
        assert share.min() >= 0
        assert share.max() <= 1
    assert not ((tracks.height > 0.05) & (tracks.reach > 0.05)).any(), "an object in the air without a hand"


@given(st.sampled_from([v for v in VERBS if v != "shake"]), st.integers(0, 2**32))
def test_the_hand_holds_on_while_the_object_moves(verb, seed):
    tracks = action_tracks(verb, NUM_FRAMES, np.random.default_rng(seed))
    moving = np.abs(np.diff(states(tracks)[:, :5], axis=0)).max(axis=1) > 1e-3
    assert tracks.reach[1:][moving].max(initial=0) == 0
    assert tracks.reach[:-1][moving].max(initial=0) == 0


def test_misuse_is_named():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"verb must be one of push left.*got 'fry'"):
        action_tracks("fry", 10, rng)
    with pytest.raises(ValueError, match="num_frames must be at least 2, got 1"):
        action_tracks("open", 1, rng)
