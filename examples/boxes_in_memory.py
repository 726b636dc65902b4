"""Flow, motion map, boxes and areas of frames in memory: no store, no data set, no files.

python examples/boxes_in_memory.py [VIDEO]      without a video it draws a clip
"""

import sys

import numpy as np

import motionbox as mb


def frames_of(path: str | None) -> tuple[np.ndarray, float]:
    """Return RGB frames uint8 (T, H, W, 3) and their rate."""
    if path is None:
        from motionbox.synthetic import SyntheticConfig, draw_clip, plan_clips

        config = SyntheticConfig(num_clips=1, seed=3)
        plan = plan_clips(config)[0]
        return np.stack(draw_clip(plan, config).frames)[:24], plan.fps
    from motionbox.video import probe, read_colour_frames

    return np.stack([frame.rgb for frame in read_colour_frames(path)]), probe(path).fps


def main() -> None:
    frames, fps = frames_of(sys.argv[1] if len(sys.argv) > 1 else None)
    grey = frames[:2].mean(axis=3).astype(np.uint8)
    flow = mb.compute_flow(grey[0], grey[1])  # (H, W, 2), pixels per frame step
    boundaries = mb.motion_map(flow)  # equation 1 of the paper
    print(f"flow up to {np.abs(flow).max():.1f} px, motion boundaries up to {boundaries.max():.2f}")

    boxes, confidence = mb.clip_boxes(frames, fps, preset="tuned")  # (T, 4), xyxy
    areas = mb.motion_areas(frames, fps, preset="tuned")  # (T, h, w), 0 outside, 255 strongest
    share = (areas > 0).mean()
    print(f"{len(boxes)} boxes, the first {boxes[0].tolist()}; confidence {confidence:.2f}; areas cover {share:.0%}")


if __name__ == "__main__":
    main()
