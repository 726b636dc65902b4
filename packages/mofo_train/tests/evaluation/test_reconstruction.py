from __future__ import annotations

import torch

from mofo_train.data.transforms import normalise
from mofo_train.evaluation.reconstruction import picture, reconstruct
from mofo_train.guidance.tubelets import ClipShape, patchify
from mofo_train.models.mae import hidden_pixels, hidden_targets

CLIP = ClipShape(4, 32)


def _clip() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (1, 3, 4, 32, 32), generator=generator, dtype=torch.uint8)
    mask = torch.tensor([[True, False, True, True] * 2])
    return frames, mask


def test_visible_pixels_stay_and_hidden_ones_come_from_the_prediction_alone() -> None:
    frames, mask = _clip()
    rebuilt = patchify(reconstruct(normalise(frames), mask, torch.zeros(1, 6, 1536), CLIP), CLIP)
    original = patchify(frames.float() / 255, CLIP)
    assert torch.allclose(rebuilt[~mask], original[~mask], atol=1e-6)
    changed = frames.clone()
    tubelets = patchify(changed, CLIP)
    tubelets[mask] = 7
    from mofo_train.guidance.tubelets import unpatchify

    again = reconstruct(normalise(unpatchify(tubelets, CLIP)), mask, torch.zeros(1, 6, 1536), CLIP)
    assert torch.equal(patchify(again, CLIP)[mask], rebuilt[mask]), "no hidden pixel leaks into the picture"


def test_a_perfect_prediction_has_the_right_structure() -> None:
    frames, mask = _clip()
    normal = normalise(frames)
    rebuilt = patchify(reconstruct(normal, mask, hidden_targets(normal, mask, CLIP), CLIP), CLIP)[mask]
    original = patchify(frames.float() / 255, CLIP)[mask]
    for one, other in zip(rebuilt, original, strict=True):
        red = torch.corrcoef(torch.stack([one[0::3], other[0::3]]))[0, 1]
        assert red > 0.97


def test_predicted_pixels_are_shown_as_they_are() -> None:
    frames, mask = _clip()
    normal = normalise(frames)
    rebuilt = reconstruct(normal, mask, hidden_pixels(normal, mask, CLIP), CLIP, normalised=False)
    assert torch.allclose(rebuilt, frames.float() / 255, atol=1e-5)


def test_picture_shows_box_and_hidden_part() -> None:
    frames, mask = _clip()
    boxes = torch.tensor([[4, 6, 20, 30]] * 4, dtype=torch.float32)
    image = picture(normalise(frames)[0], mask[0], boxes, torch.zeros(6, 1536), CLIP)
    assert image.shape == (3, 3 * 36, 2 * 36)
    assert image[:, 6, 10].tolist() == [255, 51, 51]
    assert (image[:, 36 + 2, 2] == 128).all(), "a hidden tubelet is grey"
    assert torch.equal(image[:, 36 + 8, 16:32], frames[0, :, 0, 8, 16:32]), "a visible one is shown"
