from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from motionbox.config import FlowConfig
from motionbox.flow import create_flow_estimator
from motionbox.scoring.box_agreement import agreement_clips, clip_box_ious


def test_same_flow_gives_the_same_boxes_and_other_flow_others(tmp_path: Path) -> None:
    clips = agreement_clips(tmp_path, 6)
    assert [len(clip.frames) for clip in clips] == [6] * 3
    dis = create_flow_estimator(FlowConfig(method="dis"))

    def of_a_corner(frame0: npt.NDArray[Any], _frame1: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        flow = np.zeros((*frame0.shape, 2), np.float32)
        flow[:60, -60:] = 3
        return flow

    ious = clip_box_ious(clips, {"dis": dis, "again": dis, "corner": of_a_corner}, "dis")
    assert ious["dis"] == ious["again"] == [1.0] * 3
    assert max(ious["corner"]) < 0.2


def test_clips_are_the_first_frames_of_the_videos(testdata: Path) -> None:
    clips = {clip.name: clip for clip in agreement_clips(testdata, 2)}
    assert len(clips) == len(list((testdata / "clips").iterdir()))
    epic = clips["epic_P01_06_90_456x256_60_h264"]
    assert (epic.info.width, epic.info.height, len(epic.frames)) == (456, 256, 2)
    assert epic.frames[0].time_seconds == 0
