"""What keeping the flow costs: bytes and processor time for each flow, and memory, for a unit of 4,096 flows.

`python flow_store.py [float16|uint8] VIDEO...`: DIS flow of the first frames of each video, written over and over.
"""

import resource
import sys
import tempfile
import time
from itertools import islice, pairwise
from pathlib import Path

import cv2

from motionbox.extraction.plan import MAX_UNIT_FRAMES
from motionbox.flow import compute_flow
from motionbox.store.flow_form import FlowCoder
from motionbox.store.writing.flow_writer import FlowWriter
from motionbox.video import read_frames

BLOCK_FRAMES = 240
BOUND_PX = 20.0


def main() -> None:
    """Measure and print one line for each video."""
    form, *videos = sys.argv[1:]
    cv2.setNumThreads(1)
    for video in videos:
        frames = [frame.grey for frame in islice(read_frames(Path(video)), 49)]
        flows = [compute_flow(a, b, method="dis") for a, b in pairwise(frames)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            coder, writer = FlowCoder(form, BOUND_PX), FlowWriter(Path(folder) / "attempt", form)
            for first in range(0, MAX_UNIT_FRAMES, BLOCK_FRAMES):
                numbers = range(first, min(first + BLOCK_FRAMES, MAX_UNIT_FRAMES))
                writer.add(first, [coder.code(flows[number % len(flows)]) for number in numbers])
            files = writer.finish()
        milliseconds = (time.process_time() - begin) * 1000 / MAX_UNIT_FRAMES
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        num_bytes = sum(entry["bytes"] for entry in files.values()) / MAX_UNIT_FRAMES
        height, width = flows[0].shape[:2]
        print(
            f"{Path(video).name}, {width}x{height}, {form}: {num_bytes / 1000:.0f} kB and {milliseconds:.1f} ms "
            f"for each flow, {len(files)} files, memory + {grown:.0f} MiB"
        )


if __name__ == "__main__":
    main()
