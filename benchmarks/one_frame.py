"""How much of a generated set's labels a single frame tells: the control of "verbs are told by motion alone".

    python benchmarks/one_frame.py data/metaworld
    python benchmarks/one_frame.py data/synthetic

A random forest sees thumbnails of random frames (colour, 20x16, and its gradients); it is trained on `train` and tested
on `validation`. Printed beside it: chance (the most frequent label) and, for the verb, the accuracy of one who knows
the noun and guesses among its verbs.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from motionbox.video import read_colour_frames

NUM_DRAWS = 3  # frames of a clip that are drawn for training


def thumbnails(path: Path, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return features of some random frames of a video, (n, d)."""
    frames = [frame.rgb for frame in read_colour_frames(path)]
    rows = []
    for index in rng.integers(len(frames), size=NUM_DRAWS):
        small = cv2.resize(frames[index], (20, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
        grey = small.mean(axis=2)
        rows.append(np.concatenate([small.ravel(), np.diff(grey, axis=0).ravel(), np.diff(grey, axis=1).ravel()]))
    return np.array(rows, np.float32)


def main(root: Path) -> None:
    """Print the accuracies of a set."""
    rng = np.random.default_rng(0)
    rows = list(csv.DictReader((root / "annotations.csv").open()))
    features = [thumbnails(root / row["path"], rng) for row in rows]
    train = [k for k, row in enumerate(rows) if row["split"] == "train"]
    test = [k for k, row in enumerate(rows) if row["split"] == "validation"]
    lines = [f"{root}: {len(train)} clips to train on, {len(test)} to test on, {NUM_DRAWS} frames each"]
    for label in ("verb", "noun"):
        names = [row[label] for row in rows]
        forest = RandomForestClassifier(300, min_samples_leaf=2, n_jobs=1, random_state=0)
        forest.fit(np.concatenate([features[k] for k in train]), np.repeat([names[k] for k in train], NUM_DRAWS))
        guessed = forest.predict(np.concatenate([features[k] for k in test]))
        accuracy = np.mean(guessed == np.repeat([names[k] for k in test], NUM_DRAWS))
        most = Counter(names[k] for k in train).most_common(1)[0][0]
        chance = np.mean([names[k] == most for k in test])
        lines.append(f"  {label}: {accuracy:.3f} of one frame; chance {chance:.3f}")
    lines.append(f"  verb, knowing the noun and nothing else: {knowing_the_noun(rows, train, test):.3f}")
    sys.stdout.write("\n".join(lines) + "\n")


def knowing_the_noun(rows: list[dict[str, str]], train: list[int], test: list[int]) -> float:
    """Return the accuracy of guessing each noun's most frequent verb."""
    seen = Counter((rows[k]["noun"], rows[k]["verb"]) for k in train)
    best = {noun: max((n, verb) for (other, verb), n in seen.items() if other == noun)[1] for noun, _ in seen}
    return float(np.mean([best.get(rows[k]["noun"]) == rows[k]["verb"] for k in test]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
