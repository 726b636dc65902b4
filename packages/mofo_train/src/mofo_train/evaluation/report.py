"""Figures of a test by each data set's own rules, written and said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mofo_train.data.labels import LabelSpace
from mofo_train.errors import CheckpointError
from mofo_train.evaluation.metrics import (
    Accuracy,
    VerbNounRanks,
    class_report,
    confusion_matrix,
    epic_report,
    label_ranks,
    mean_class_accuracy,
)
from mofo_train.evaluation.predictions import Predictions


def describe(predictions: Predictions, space: LabelSpace) -> dict[str, Any]:
    """Compute every figure from predictions.

    Clips without a label count for nothing but `num_unlabelled`.

    Returns:
        `num_clips`, `num_unlabelled`, `heads` (per head top-1, top-5, mean per class) and, where verbs and nouns are
        known, `verb_noun`: EPIC-100's groups, by `method` `marginals` or `two_heads`. Shares in [0, 1]; None for a
        group without clips.
    """
    known = np.ones(len(predictions), bool)
    for head in space.heads:
        known &= predictions.labels[head] >= 0
    labelled = predictions.take(np.flatnonzero(known))
    result: dict[str, Any] = {"num_clips": len(labelled), "num_unlabelled": int((~known).sum()), "heads": {}}
    for head in space.heads:
        scores, labels = labelled.logits[head], labelled.labels[head]
        accuracy = Accuracy.of_ranks(label_ranks(scores, labels))
        result["heads"][head] = None
        if accuracy is not None:
            mean = mean_class_accuracy(confusion_matrix(scores, labels))
            result["heads"][head] = {**accuracy.as_json(), "mean_class": mean}
    ranks = _verb_noun_ranks(labelled, space)
    if ranks is not None:
        groups = epic_report(ranks, labelled.flags)
        result["verb_noun"] = {
            "method": "marginals" if "action" in space.heads else "two_heads",
            **{
                group: {kind: None if accuracy is None else accuracy.as_json() for kind, accuracy in kinds.items()}
                for group, kinds in groups.items()
            },
        }
    return result


def right_answers(predictions: Predictions, space: LabelSpace) -> dict[str, NDArray[np.bool_]]:
    """Say which clips are right, by the table's metrics.

    Returns:
        `verb_top1`, `noun_top1` and `action_top1` where verbs and nouns are known, else `<head>_top1` and
        `<head>_top5`: bool (N,), False for a clip without label.
    """
    known = _labelled(predictions, space)
    labelled = predictions.take(np.flatnonzero(known))
    pairs = _verb_noun_ranks(labelled, space)
    if pairs is not None:
        ranks = {f"{kind}_top1": getattr(pairs, kind) < 1 for kind in ("verb", "noun", "action")}
    else:
        ranks = {}
        for head in space.heads:
            own = label_ranks(labelled.logits[head], labelled.labels[head])
            ranks |= {f"{head}_top1": own < 1, f"{head}_top5": own < 5}
    return {metric: _spread(right, known) for metric, right in ranks.items()}


def true_classes(predictions: Predictions, space: LabelSpace) -> dict[str, NDArray[np.int64]]:
    """Return the class of each clip that has one, by the table's metrics as `right_answers` has them, int64 (N,) each.

    That of an action is a number of its own for each pair of verb and noun, the same whichever clips are tested.
    """
    labels = predictions.take(np.flatnonzero(_labelled(predictions, space))).labels
    if "action" in space.heads or {"verb", "noun"} <= set(space.heads):
        verb, noun = labels["verb"], labels["noun"]
        return {"verb_top1": verb, "noun_top1": noun, "action_top1": verb * space.num_nouns + noun}
    return {f"{head}_{k}": labels[head] for head in space.heads for k in ("top1", "top5")}


def _labelled(predictions: Predictions, space: LabelSpace) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = np.all([predictions.labels[head] >= 0 for head in space.heads], axis=0)
    return known


def _spread(values: NDArray[np.bool_], places: NDArray[np.bool_]) -> NDArray[np.bool_]:
    whole = np.zeros(len(places), bool)
    whole[places] = values
    return whole


def _verb_noun_ranks(predictions: Predictions, space: LabelSpace) -> VerbNounRanks | None:
    labels = predictions.labels
    if "action" in space.heads and space.pairs is not None:
        return VerbNounRanks.by_marginals(
            predictions.logits["action"],
            space.pairs,
            space.num_verbs,
            space.num_nouns,
            labels["verb"],
            labels["noun"],
        )
    if {"verb", "noun"} <= set(space.heads):
        logits = predictions.logits
        return VerbNounRanks.by_two_heads(logits["verb"], logits["noun"], labels["verb"], labels["noun"])
    return None


def check_report_folder(out: Path, source: dict[str, Any]) -> None:
    """Refuse a folder that holds the report of something else.

    Args:
        out: The folder; need not exist.
        source: `source` of the report to be written there; `checkpoint`, `system` and `config` must be the same.

    Raises:
        CheckpointError: It is another's; nothing is overwritten.
    """
    path = out / "report.json"
    if not path.exists():
        return
    try:
        other = json.loads(path.read_text(encoding="utf-8")).get("source", {})
    except (ValueError, AttributeError):
        other = {}
    if any(other.get(name) != source.get(name) for name in ("checkpoint", "system", "config")):
        whose = other.get("checkpoint", "another program or command")
        raise CheckpointError(
            f"out must hold a report of the same checkpoint and recipe, got {out} with one of {whose}; "
            "choose another folder"
        )


def write_report(predictions: Predictions, space: LabelSpace, report: dict[str, Any], out: Path) -> None:
    """Write `report.json`, and for each head with labels `classes-<head>.csv` and `confusion-<head>.png`."""
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for head in space.heads:
        known = np.flatnonzero(predictions.labels[head] >= 0)
        if len(known) == 0:
            continue
        part = predictions.take(known)
        confusion = confusion_matrix(part.logits[head], part.labels[head])
        names = space.class_names.get(head, tuple(str(index) for index in range(len(confusion))))
        with (out / f"classes-{head}.csv").open("w", newline="", encoding="utf-8") as file:
            rows = class_report(confusion)
            writer = csv.DictWriter(file, ["name", *rows[0]])
            writer.writeheader()
            for name, row in zip(names, rows, strict=True):
                other = row["confused_with"]
                writer.writerow({"name": name, **row, "confused_with": None if other is None else names[other]})
        draw_confusion(confusion, names, out / f"confusion-{head}.png")


def draw_confusion(confusion: NDArray[np.int64], names: tuple[str, ...], path: Path) -> None:
    """Draw a confusion matrix, rows normalised, classes named where there are few enough to read."""
    from matplotlib.figure import Figure

    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    size = min(12.0, 3.0 + 0.35 * len(names))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, vmin=0, vmax=1, cmap="magma", interpolation="nearest")
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    if len(names) <= 40:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    figure.colorbar(picture, ax=axes, shrink=0.7, label="share of the label's clips")
    figure.savefig(path, dpi=120)


def percent(share: float | None) -> str:
    """Write a share as per cent with one decimal, `-` for None."""
    return "-" if share is None else f"{100 * share:.1f}"


def report_lines(report: dict[str, Any]) -> list[str]:
    """Return the figures of `describe`, a line each."""
    lines = []
    for head, values in report["heads"].items():
        if values is not None:
            lines.append(
                f"{head:<8} top-1 {percent(values['top1'])}  top-5 {percent(values['top5'])}  "
                f"mean of classes {percent(values['mean_class'])}  ({values['num_clips']} clips)"
            )
    groups = report.get("verb_noun", {})
    for group in ("overall", "unseen", "tail"):
        cells = groups.get(group) or {}
        parts = [
            f"{kind} {percent(value['top1'])}/{percent(value['top5'])}"
            for kind, value in cells.items()
            if value is not None
        ]
        if parts:
            lines.append(f"{group:<8} {'  '.join(parts)}  (top-1/top-5, by {groups['method']})")
    return lines
