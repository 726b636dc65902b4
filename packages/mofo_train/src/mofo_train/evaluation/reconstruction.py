"""Pictures of what pretraining sees and predicts: input with its box, what is visible, and the reconstruction."""

from __future__ import annotations

import torch
from torch import Tensor

from mofo_train.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from mofo_train.guidance.tubelets import ClipShape, patchify, unpatchify

_HIDDEN_GREY = 0.5
_GAP_PX = 4
_BOX_COLOUR = (1.0, 0.2, 0.2)


def reconstruct(
    frames: Tensor, mask: Tensor, prediction: Tensor, clip: ClipShape, *, normalised: bool = True
) -> Tensor:
    """Turn predicted tubelets into colours.

    A normalised prediction says how a tubelet looks apart from its own mean and contrast. To show it, the mean and
    contrast of the *visible* tubelets of the clip are used for all: nothing of the hidden pixels leaks into the
    picture, whose hidden parts are therefore right in structure, not in brightness.

    Args:
        frames: float (B, 3, T, H, W) normalised.
        mask: bool (B, num_tokens).
        prediction: (B, num_hidden, values) of the model.
        clip: The shape of a clip.
        normalised: Predictions are tubelets normalised by themselves, not pixels.

    Returns:
        float32 (B, 3, T, H, W) in [0, 1]: visible pixels as they are, hidden ones as predicted.
    """
    if not normalised:
        pixels = patchify(frames, clip)
        pixels[mask] = prediction.flatten(0, 1).to(pixels.dtype)
        return _colours(unpatchify(pixels, clip)).clamp(0, 1)
    tubelets = patchify(_colours(frames), clip).unflatten(2, (-1, 3))  # type: ignore[no-untyped-call]
    shown = tubelets.clone()
    for row in range(len(frames)):
        visible = tubelets[row][~mask[row]]
        mean = visible.mean((0, 1))
        contrast = visible.std(1).mean(0)
        shown[row][mask[row]] = prediction[row].float().unflatten(1, (-1, 3)) * contrast + mean  # type: ignore[no-untyped-call]
    return unpatchify(shown.flatten(2), clip).clamp(0, 1)


def picture(
    frames: Tensor, mask: Tensor, boxes: Tensor, prediction: Tensor, clip: ClipShape, *, normalised: bool = True
) -> Tensor:
    """Draw one clip as three rows (input and box, visible part, reconstruction) over its tubelets.

    Args:
        frames: float (3, T, H, W) normalised.
        mask: bool (num_tokens,).
        boxes: (T, 4) xyxy pixels.
        prediction: (num_hidden, values).
        clip: The shape of a clip.
        normalised: As in `reconstruct`.

    Returns:
        uint8 (3, height, width).
    """
    colours = _colours(frames[None])
    hidden = patchify(colours, clip).masked_fill(mask[None, :, None], _HIDDEN_GREY)
    rebuilt = reconstruct(frames[None], mask[None], prediction[None], clip, normalised=normalised)
    rows = [_with_boxes(colours[0], boxes), unpatchify(hidden, clip)[0], rebuilt[0]]
    strips = []
    for row in rows:
        cells = [torch.nn.functional.pad(row[:, time], (0, _GAP_PX, 0, _GAP_PX), value=1.0) for time in _times(clip)]
        strips.append(torch.cat(cells, dim=2))
    return (torch.cat(strips, dim=1) * 255).round().to(torch.uint8)


def _times(clip: ClipShape) -> range:
    return range(0, clip.num_frames, clip.tubelet_frames)


def _colours(frames: Tensor) -> Tensor:
    shape = (1, 3, 1, 1, 1)
    std, mean = frames.new_tensor(IMAGENET_STD).view(shape), frames.new_tensor(IMAGENET_MEAN).view(shape)
    return (frames * std + mean).float()


def _with_boxes(frames: Tensor, boxes: Tensor) -> Tensor:
    drawn = frames.clone()
    colour = frames.new_tensor(_BOX_COLOUR)[:, None]
    for time, (x1, y1, x2, y2) in enumerate(boxes.round().long().tolist()):
        if x2 > x1 and y2 > y1:
            drawn[:, time, y1, x1:x2] = colour
            drawn[:, time, y2 - 1, x1:x2] = colour
            drawn[:, time, y1:y2, x1] = colour
            drawn[:, time, y1:y2, x2 - 1] = colour
    return drawn
