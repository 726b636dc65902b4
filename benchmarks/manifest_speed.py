"""Time `load_manifest` on annotation files of the official sizes, generated into a temporary folder.

`python benchmarks/manifest_speed.py` writes 89,977 EPIC-KITCHENS-100 rows of 700 videos and 220,847
Something-Something V2 records with their (empty) media files, and prints rows, seconds and processor seconds.
"""

from __future__ import annotations

import csv
import json
import random
import tempfile
import time
from pathlib import Path

from motionbox.inputs.epic100 import SPLIT_FILES
from motionbox.inputs.manifest import load_manifest
from motionbox.inputs.schema import merge_spans

HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)
EPIC_CLIPS = {"train": 67217, "validation": 9668, "test": 13092}
SSV2_CLIPS = {"train": 168913, "validation": 24777, "test": 27157}


def write_epic(root: Path) -> None:
    """Write annotation CSVs of the official size and one empty MP4 per video."""
    rng = random.Random(0)  # noqa: S311  (no secret)
    videos = [f"P{i % 37 + 1:02d}_{i // 37 + 1:02d}" for i in range(700)]
    for video in videos:
        path = root / "EPIC-KITCHENS" / video[:3] / "videos" / f"{video}.MP4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    number = 0
    for split, num_clips in EPIC_CLIPS.items():
        with (root / SPLIT_FILES[split]).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER.split(","))
            for _ in range(num_clips):
                video, start = rng.choice(videos), rng.randrange(0, 150_000)
                stop = start + rng.randrange(50, 1000)
                times = [f"00:{c // 6000:02d}:{c // 100 % 60:02d}.{c % 100:02d}" for c in (start, stop)]
                numbers = [max(1, c * 60 // 100) for c in (start, stop)]
                verb, noun = rng.randrange(97), rng.randrange(300)
                labels = ["take plate", "take", verb, "plate", noun, "['plate']", f"[{noun}]"]
                writer.writerow([f"{video}_{number}", video[:3], video, "00:00:00.560", *times, *numbers, *labels])
                number += 1


def write_ssv2(root: Path) -> None:
    """Write annotation JSON of the official size and one empty WebM per video."""
    (root / "labels.json").write_text(json.dumps({f"Doing something number {i}": str(i) for i in range(174)}))
    folder = root / "20bn-something-something-v2"
    folder.mkdir()
    number = 0
    for split, num_clips in SSV2_CLIPS.items():
        records = []
        for _ in range(num_clips):
            number += 1
            (folder / f"{number}.webm").touch()
            template = f"Doing [something] number {number % 174}"
            record = {"id": str(number)}
            if split != "test":
                record |= {"label": f"doing a cup number {number % 174}", "template": template}
            records.append(record)
        (root / f"{split}.json").write_text(json.dumps(records))


def main() -> None:
    """Generate, load and print."""
    for dataset, write in (("epic100", write_epic), ("ssv2", write_ssv2)):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            begin, processor = time.perf_counter(), time.process_time()
            table = load_manifest(dataset, folder)
            seconds, processor = time.perf_counter() - begin, time.process_time() - processor
            begin = time.perf_counter()
            num_spans = merge_spans(table, margin_seconds=1.0).num_rows
            print(
                f"{dataset}: {table.num_rows} rows in {seconds:.2f} s ({processor:.2f} s of processor time); "
                f"{num_spans} spans in {time.perf_counter() - begin:.2f} s"
            )


if __name__ == "__main__":
    main()
