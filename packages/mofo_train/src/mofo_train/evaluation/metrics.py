"""Accuracies of predictions: top-k, EPIC-100's verb, noun and action, per class, and the confusion matrix.

Everything works on all scores at once, in one fixed order, so the figures do not depend on how a data set was split
over processes. Shares are in [0, 1]; only tables multiply by 100.

EPIC-100 (Damen et al. 2022, section 4.1 and the challenge's evaluation): an action is a (verb, noun) pair and counts
where both are right; *unseen* are the participants without training clips; *tail* are the rare verb classes for verbs,
the rare noun classes for nouns, and clips with either for actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
Flags = NDArray[np.bool_]
_CHUNK_VALUES = 2**24


@dataclass(frozen=True)
class Accuracy:
    """How often the label is among the best scores.

    Attributes:
        top1: Share of clips whose label has the best score.
        top5: Share of clips whose label is among the five best (1 where there are five classes or fewer).
        num_clips: Clips counted.
    """

    top1: float
    top5: float
    num_clips: int

    @classmethod
    def of_ranks(cls, ranks: Labels) -> Accuracy | None:
        """Count ranks as `label_ranks` returns them; None for no clips."""
        if len(ranks) == 0:
            return None
        return cls(float((ranks < 1).mean()), float((ranks < 5).mean()), len(ranks))

    def as_json(self) -> dict[str, float]:
        """Return the fields."""
        return asdict(self)


def label_ranks(scores: Scores, labels: Labels) -> Labels:
    """Return how many classes come before each clip's label.

    Args:
        scores: (N, C), finite; higher is better. Of equal scores the lower class comes first.
        labels: (N,) in [0, C).

    Returns:
        int64 (N,): 0 where the label is the best class.

    Raises:
        ValueError: Shapes that do not fit, a label out of range, or a score that is no number.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f"scores must be (N, C) and labels (N,), got {scores.shape} and {labels.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite, got infinity or NaN")
    bad = (labels < 0) | (labels >= scores.shape[1])
    if bad.any():
        raise ValueError(f"labels must be in [0, {scores.shape[1]}), got {labels[bad][0]} in row {bad.argmax()}")
    own = scores[np.arange(len(scores)), labels][:, None]
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    return cast(Labels, ((scores > own) | ((scores == own) & earlier)).sum(1).astype(np.int64))


def softmax(logits: Scores) -> NDArray[np.float64]:
    """Return the softmax over the last axis, float64."""
    raised = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return cast("NDArray[np.float64]", raised / raised.sum(-1, keepdims=True))


def marginals(
    action_probabilities: Scores, pairs: Labels, num_verbs: int, num_nouns: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum the probabilities of actions over nouns and over verbs.

    Args:
        action_probabilities: (N, A), rows summing to 1.
        pairs: int64 (A, 2), the verb and noun class of each action.
        num_verbs: Verb classes, 97 in EPIC-100.
        num_nouns: Noun classes, 300 in EPIC-100.

    Returns:
        float64 (N, num_verbs) and (N, num_nouns), rows summing to 1.
    """
    to_verb = np.zeros((len(pairs), num_verbs))
    to_verb[np.arange(len(pairs)), pairs[:, 0]] = 1
    to_noun = np.zeros((len(pairs), num_nouns))
    to_noun[np.arange(len(pairs)), pairs[:, 1]] = 1
    probabilities = action_probabilities.astype(np.float64)
    return probabilities @ to_verb, probabilities @ to_noun


def pair_ranks(verb_logits: Scores, noun_logits: Scores, verbs: Labels, nouns: Labels) -> Labels:
    """Return how many (verb, noun) pairs come before each clip's own, by the product of the two softmaxes.

    All pairs compete, as in the challenge's evaluation. The normalisers are the same for all pairs of a clip, so sums
    of logits are compared.

    Args:
        verb_logits: (N, V).
        noun_logits: (N, M).
        verbs: (N,) verb classes.
        nouns: (N,) noun classes.

    Returns:
        int64 (N,).
    """
    num_verbs, num_nouns = verb_logits.shape[1], noun_logits.shape[1]
    step = max(1, _CHUNK_VALUES // (num_verbs * num_nouns))
    parts = []
    for start in range(0, len(verbs), step):
        rows = slice(start, start + step)
        sums = verb_logits[rows].astype(np.float64)[:, :, None] + noun_logits[rows].astype(np.float64)[:, None, :]
        parts.append(label_ranks(sums.reshape(len(sums), -1), verbs[rows] * num_nouns + nouns[rows]))
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


@dataclass(frozen=True)
class VerbNounRanks:
    """The rank of each clip's verb, noun and action, int64 (N,) each."""

    verb: Labels
    noun: Labels
    action: Labels

    @classmethod
    def by_two_heads(cls, verb_logits: Scores, noun_logits: Scores, verbs: Labels, nouns: Labels) -> VerbNounRanks:
        """Rank by a verb head and a noun head, actions by their product."""
        action = pair_ranks(verb_logits, noun_logits, verbs, nouns)
        return cls(label_ranks(verb_logits, verbs), label_ranks(noun_logits, nouns), action)

    @classmethod
    def by_marginals(
        cls, action_logits: Scores, pairs: Labels, num_verbs: int, num_nouns: int, verbs: Labels, nouns: Labels
    ) -> VerbNounRanks:
        """Rank by one head over actions; verbs and nouns are the marginals of its softmax.

        An action that is no class of the head ranks behind all of them.
        """
        verb_scores, noun_scores = marginals(softmax(action_logits), pairs, num_verbs, num_nouns)
        classes = {(int(verb), int(noun)): place for place, (verb, noun) in enumerate(pairs)}
        own = [classes.get(pair, -1) for pair in zip(verbs.tolist(), nouns.tolist(), strict=True)]
        labels = np.array(own, np.int64).reshape(-1)
        ranks = label_ranks(action_logits, np.maximum(labels, 0))
        ranks[labels < 0] = len(pairs)
        return cls(label_ranks(verb_scores, verbs), label_ranks(noun_scores, nouns), ranks)


def epic_report(ranks: VerbNounRanks, flags: Mapping[str, Flags]) -> dict[str, dict[str, Accuracy | None]]:
    """Report EPIC-100's groups of clips.

    Args:
        ranks: Ranks of verbs, nouns and actions.
        flags: Any of `unseen_participant`, `tail_verb`, `tail_noun`, bool (N,) each; groups without flags are left out.

    Returns:
        `overall`, `unseen` and `tail`, each with `verb`, `noun` and `action`; None for a group without clips.
    """
    everyone = np.ones(len(ranks.verb), bool)
    groups = {"overall": dict.fromkeys(("verb", "noun", "action"), everyone)}
    if "unseen_participant" in flags:
        groups["unseen"] = dict.fromkeys(("verb", "noun", "action"), flags["unseen_participant"])
    if "tail_verb" in flags and "tail_noun" in flags:
        either = flags["tail_verb"] | flags["tail_noun"]
        groups["tail"] = {"verb": flags["tail_verb"], "noun": flags["tail_noun"], "action": either}
    return {
        group: {kind: Accuracy.of_ranks(getattr(ranks, kind)[chosen]) for kind, chosen in kinds.items()}
        for group, kinds in groups.items()
    }


def confusion_matrix(scores: Scores, labels: Labels) -> NDArray[np.int64]:
    """Count clips by label (rows) and best class (columns): int64 (C, C)."""
    label_ranks(scores, labels)
    num_classes = scores.shape[1]
    cells = labels * num_classes + scores.argmax(1)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_report(confusion: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Describe each class from a confusion matrix.

    Returns:
        Per class: `class_index`, `num_clips`, `recall` (= its top-1), `precision`, `confused_with` (the class that
        most of its misses went to); None where there is nothing to divide or confuse.
    """
    rows = []
    for index, counts in enumerate(confusion):
        total, chosen, right = int(counts.sum()), int(confusion[:, index].sum()), int(counts[index])
        misses = counts.copy()
        misses[index] = 0
        rows.append(
            {
                "class_index": index,
                "num_clips": total,
                "recall": right / total if total else None,
                "precision": right / chosen if chosen else None,
                "confused_with": int(misses.argmax()) if misses.any() else None,
            }
        )
    return rows


def mean_class_accuracy(confusion: NDArray[np.int64]) -> float:
    """Return the mean recall over the classes that have clips."""
    totals = confusion.sum(1)
    there = totals > 0
    return float((confusion.diagonal()[there] / totals[there]).mean()) if there.any() else float("nan")
