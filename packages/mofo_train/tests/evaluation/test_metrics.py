from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from mofo_train.evaluation import metrics as acc


def random_scores(seed: int, clips: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(clips, classes)).astype(np.float32), rng.integers(classes, size=clips)


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(6, 40))
@settings(max_examples=30, deadline=None)
def test_top_k_equals_scikit_learn(seed: int, clips: int, classes: int) -> None:
    scores, labels = random_scores(seed, clips, classes)
    result = acc.Accuracy.of_ranks(acc.label_ranks(scores, labels))
    assert result is not None
    for k, ours in ((1, result.top1), (5, result.top5)):
        theirs = top_k_accuracy_score(labels, scores, k=k, labels=np.arange(classes))
        assert ours == pytest.approx(theirs, abs=1e-12)


def test_confusion_and_class_report_equal_scikit_learn() -> None:
    scores, labels = random_scores(1, 300, 7)
    labels[labels == 3] = 2  # one class without clips
    ours = acc.confusion_matrix(scores, labels)
    best = scores.argmax(1)
    np.testing.assert_array_equal(ours, confusion_matrix(labels, best, labels=np.arange(7)))
    report = acc.class_report(ours)
    precision, recall, _, support = precision_recall_fscore_support(labels, best, labels=np.arange(7), zero_division=0)
    for index, row in enumerate(report):
        assert row["num_clips"] == support[index]
        assert row["recall"] == (None if index == 3 else pytest.approx(recall[index]))
        assert row["precision"] == pytest.approx(precision[index])
    present = labels != 3
    assert acc.mean_class_accuracy(ours) == pytest.approx(balanced_accuracy_score(labels[present], best[present]))


def test_the_confused_class_is_the_one_most_misses_went_to() -> None:
    confusion = np.array([[5, 1, 2], [0, 4, 0], [0, 3, 0]])
    assert [row["confused_with"] for row in acc.class_report(confusion)] == [2, None, 1]


def official_ranking(verb_logits: np.ndarray, noun_logits: np.ndarray, row: int) -> list[tuple[int, int]]:
    """Pairs best first, written as the challenge defines them: probability of the verb times that of the noun."""
    verb, noun = (np.exp(x[row].astype(np.float64)) for x in (verb_logits, noun_logits))
    verb, noun = verb / verb.sum(), noun / noun.sum()
    pairs = [(v, n) for v in range(len(verb)) for n in range(len(noun))]
    return sorted(pairs, key=lambda pair: -verb[pair[0]] * noun[pair[1]])


def test_actions_of_two_heads_rank_as_the_product_of_softmaxes() -> None:
    verb_logits, verbs = random_scores(2, 40, 5)
    noun_logits, nouns = random_scores(3, 40, 8)
    ranks = acc.pair_ranks(verb_logits, noun_logits, verbs, nouns)
    expected = [official_ranking(verb_logits, noun_logits, r).index((verbs[r], nouns[r])) for r in range(40)]
    np.testing.assert_array_equal(ranks, expected)


def test_long_lists_are_ranked_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    verb_logits, verbs = random_scores(2, 41, 5)
    noun_logits, nouns = random_scores(3, 41, 8)
    whole = acc.pair_ranks(verb_logits, noun_logits, verbs, nouns)
    monkeypatch.setattr(acc, "_CHUNK_VALUES", 130)
    np.testing.assert_array_equal(acc.pair_ranks(verb_logits, noun_logits, verbs, nouns), whole)


def test_marginals_sum_over_the_other_part_of_the_action() -> None:
    pairs = np.array([[0, 1], [0, 2], [1, 1]])
    verb, noun = acc.marginals(np.array([[0.5, 0.2, 0.3]]), pairs, 3, 3)
    np.testing.assert_allclose(verb, [[0.7, 0.3, 0]])
    np.testing.assert_allclose(noun, [[0, 0.8, 0.2]])


def test_marginals_can_choose_a_verb_that_the_best_action_has_not() -> None:
    pairs = np.array([[0, 0], [1, 1], [1, 2]])
    logits = np.log(np.array([[0.4, 0.3, 0.3]]))
    ranks = acc.VerbNounRanks.by_marginals(logits, pairs, 2, 3, np.array([1]), np.array([0]))
    assert (ranks.verb[0], ranks.noun[0]) == (0, 0)
    assert ranks.action[0] == 3, "(1, 0) is no class of the head: behind all of them"


def test_epic_groups_follow_the_official_definition() -> None:
    rng = np.random.default_rng(5)
    ranks = acc.VerbNounRanks(*(rng.integers(0, 8, size=200) for _ in range(3)))
    flags = {name: rng.random(200) < 0.3 for name in ("unseen_participant", "tail_verb", "tail_noun")}
    report = acc.epic_report(ranks, flags)
    tail_action = report["tail"]["action"]
    either = flags["tail_verb"] | flags["tail_noun"]
    assert tail_action is not None
    assert tail_action.num_clips == either.sum()
    assert tail_action.top1 == pytest.approx((ranks.action[either] == 0).mean())
    tail_verb, unseen = report["tail"]["verb"], report["unseen"]["noun"]
    assert tail_verb is not None
    assert unseen is not None
    assert tail_verb.top5 == pytest.approx((ranks.verb[flags["tail_verb"]] < 5).mean())
    assert unseen.top1 == pytest.approx((ranks.noun[flags["unseen_participant"]] == 0).mean())
    assert set(acc.epic_report(ranks, {})) == {"overall"}


def test_equal_scores_prefer_the_lower_class() -> None:
    assert acc.label_ranks(np.zeros((2, 4)), np.array([0, 3])).tolist() == [0, 3]


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((2, 3)), np.array([0, 3]), r"in \[0, 3\), got 3 in row 1"),
        (np.zeros((2, 3)), np.array([0]), "got \\(2, 3\\)"),
        (np.array([[0, np.nan]]), np.array([0]), "finite"),
    ],
)
def test_bad_scores_are_refused(scores: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        acc.label_ranks(scores, labels)
