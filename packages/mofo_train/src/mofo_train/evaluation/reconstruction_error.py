"""How well a pretrained model fills in what is hidden, inside and outside the motion box, beside what needs no model.

VideoMAE's loss (Tong et al. 2022, section 3.1), split by the box of MOFO's masks. Two predictions that need no model
stand beside it: each hidden tubelet's own mean colour, which knows part of the answer, and the mean colour of what is
visible of the clip, which does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Sampler

from mofo_train.config import PretrainConfig, load_recipe, override_recipe
from mofo_train.data.dataset import PretrainClips
from mofo_train.data.loader import Batch, create_loader
from mofo_train.data.reader import ClipReader
from mofo_train.data.sampler import SampleKey
from mofo_train.data.sources import open_clips
from mofo_train.data.transforms import normalise
from mofo_train.data.views import FixedBatches
from mofo_train.errors import CheckpointError
from mofo_train.evaluation.reconstruction import picture
from mofo_train.evaluation.report import check_report_folder
from mofo_train.guidance.inside import inside_tubes
from mofo_train.guidance.mask_kinds import MASKS, draw_mask, num_hidden_tokens
from mofo_train.guidance.tubelets import ClipShape, patchify
from mofo_train.models import MaskedAutoencoder, create_pretrain_model, load_checkpoint, load_into
from mofo_train.models.mae import hidden_pixels, hidden_targets, split_tokens
from mofo_train.runtime.checkpoints import read_checkpoint
from mofo_train.runtime.precision import DTYPES
from mofo_train.runtime.ranks import Ranks
from mofo_train.runtime.seeds import step_seed
from motionbox.storage import StorePath

TEST_SPLIT = "validation"
_BATCH_CLIPS = 8
_PLACES = ("inside", "outside")
_TITLES = {"own_mean": "each tubelet's own mean", "visible_colour": "mean colour of the visible"}


def evaluate_pretraining(
    checkpoint: Path,
    ranks: Ranks,
    out: Path,
    *,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    store: StorePath | None = None,
    data_root: Path | None = None,
) -> dict[str, Any]:
    """Measure the errors of a pretraining checkpoint on the test split and write `report.json` and a picture.

    Args:
        checkpoint: Folder of a pretraining's checkpoint, or weights of another program with `recipe`.
        ranks: This process among all; all return the same.
        out: Folder of the report.
        recipe: Name or path of a pretraining recipe; None = that of the run the checkpoint is of.
        overrides: `section.key=value`; `data.split=train` for the clips it learned from.
        store: Motion boxes; None = `stores/<dataset>`.
        data_root: Folder of the videos; None = that of the store.

    Returns:
        As in `ReconstructionErrors.as_json`, and `source`.

    Raises:
        CheckpointError: No such checkpoint, one of another model, or `out` holds another report.
        DataError: The store is missing or of another data set, or lacks the split.
    """
    config = load_pretraining(checkpoint, recipe, overrides)
    source: dict[str, Any] = {"checkpoint": str(checkpoint), "config": config.model_dump(mode="json")}
    check_report_folder(out, source)
    reader = open_clips(config.data, store, data_root, guidance=config.guidance)
    net = config.model
    model = create_pretrain_model(
        net.name, num_frames=net.num_frames, image_px=net.image_px, decoder_depth=net.decoder_depth
    )
    saved = (checkpoint / "checkpoint.json").is_file()
    state = read_checkpoint(checkpoint).model if saved else load_checkpoint(checkpoint)
    load_into(model, state, source=str(checkpoint))
    found = measure_errors(model, config, reader, ranks)
    source |= {"left_out": reader.clips.left_out, "unreadable": found.unreadable}
    report = {**found.as_json(), "source": source}
    if ranks.is_first:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        if found.picture is not None:
            Image.fromarray(found.picture.permute(1, 2, 0).numpy()).save(out / "reconstruction.png")
    return report


def load_pretraining(checkpoint: Path, recipe: str | None, overrides: Sequence[str]) -> PretrainConfig:
    """Read the recipe of a pretraining checkpoint, with the test split where the recipe names one to learn from.

    Raises:
        CheckpointError: The checkpoint's run does not say its recipe.
    """
    if recipe is not None:
        split = load_recipe(PretrainConfig, recipe).data.split
        return load_recipe(PretrainConfig, recipe, _on_test_split(split, overrides))
    path = checkpoint.parent.parent / "recipe.json"
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} must say how {checkpoint} was made, got: {error}; name --recipe") from None
    return override_recipe(PretrainConfig, values, _on_test_split(values["data"]["split"], overrides), str(path))


def _on_test_split(split: str | None, overrides: Sequence[str]) -> tuple[str, ...]:
    return tuple(overrides) if split is None else (f"data.split={TEST_SPLIT}", *overrides)


@dataclass
class ReconstructionErrors:
    """Squared errors of predictions of hidden tubelets, in the units of the recipe's target.

    Attributes:
        num_clips: Clips that could be read.
        num_crops: Crops of them.
        num_tokens: float64 (2,), hidden tubelets inside the box and outside.
        sums: Prediction (`model`, `own_mean`, `visible_colour`) -> float64 (2,), sum of their mean squared errors.
        unreadable: Clip id -> why, of the clips that could not be read.
        picture: uint8 (3, height, width) of this process' first clip.
    """

    num_tokens: Tensor
    num_clips: int = 0
    num_crops: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    picture: Tensor | None = None

    def book(self, errors: dict[str, Tensor], inside: Tensor) -> None:
        """Add the errors (n, m) of hidden tubelets, given which of them are inside, bool (n, m)."""
        places = torch.stack([inside, ~inside]).to(torch.float64)
        self.num_tokens += places.sum((1, 2))
        for name, error in errors.items():
            total = (places * error).sum((1, 2))
            self.sums[name] = self.sums[name] + total if name in self.sums else total

    def join(self, ranks: Ranks) -> ReconstructionErrors:
        """Add up what all processes booked; the picture stays this one's."""
        parts = ranks.gather((self.num_tokens, self.num_clips, self.num_crops, self.sums, self.unreadable))
        names = dict.fromkeys(name for part in parts for name in part[3])
        nothing = torch.zeros(2, dtype=torch.float64)
        return ReconstructionErrors(
            torch.stack([part[0] for part in parts]).sum(0),
            sum(part[1] for part in parts),
            sum(part[2] for part in parts),
            {name: torch.stack([part[3].get(name, nothing) for part in parts]).sum(0) for name in names},
            {clip_id: reason for part in parts for clip_id, reason in part[4].items()},
            self.picture,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures.

        Returns:
            `num_clips`, `num_crops`, and for `inside` and `outside` (None where no hidden tubelet lies) `num_tubelets`,
            `errors` by prediction, and `model_below`: 1 - the model's error / that of each other prediction.
        """
        report: dict[str, Any] = {"num_clips": self.num_clips, "num_crops": self.num_crops}
        for place, name in enumerate(_PLACES):
            count = float(self.num_tokens[place])
            errors = {kind: float(total[place]) / max(count, 1) for kind, total in self.sums.items()}
            below = {kind: 1 - errors["model"] / error for kind, error in errors.items() if kind != "model" and error}
            figures = {"num_tubelets": int(count), "errors": errors, "model_below": below}
            report[name] = figures if count else None
        return report


@torch.no_grad()
def measure_errors(
    model: MaskedAutoencoder, config: PretrainConfig, reader: ClipReader, ranks: Ranks
) -> ReconstructionErrors:
    """Measure the errors on every clip of a reader, its frames, crops and masks drawn from the recipe's seed.

    They do not depend on the number of ranks or workers.

    Args:
        model: The model; put into evaluation mode.
        config: The recipe: frames, crops, masks and target.
        reader: The clips.
        ranks: This process among all.
    """
    model.to(ranks.device).eval()
    reads = MASKS[config.mask.kind].reads
    clips = PretrainClips(
        reader, config.model, config.data, seed=config.seed, reads=reads, patch_px=model.clip.patch_px
    )
    batches = _KeyBatches(len(reader), ranks)
    found = ReconstructionErrors(torch.zeros(2, dtype=torch.float64))
    loader: Any = create_loader(clips, batches, num_workers=config.data.num_workers, pin=False)
    crops = config.data.crops_per_clip
    for keys, batch in zip(batches, loader, strict=True):
        errors, inside, image = _errors_of(model, config, batch, keys[0].position, ranks.device)
        asked = [key.clip for key in keys for _ in range(crops)]
        own = [row for row, clip in enumerate(asked) if batch.clips[row] == clip]  # the others stand in for unreadable
        found.book({name: error[own] for name, error in errors.items()}, inside[own])
        found.num_clips += len(own) // crops
        found.num_crops += len(own)
        names = {reader.clip_ids[clip] for clip in asked}
        found.unreadable |= {clip_id: reason for clip_id, reason in batch.bad if clip_id in names}
        found.picture = image if found.picture is None else found.picture
    return found.join(ranks)


class _KeyBatches(Sampler[list[SampleKey]]):
    """Every clip once, in order, in batches that are dealt out to the ranks whole."""

    def __init__(self, num_clips: int, ranks: Ranks) -> None:
        self._batches = FixedBatches(num_clips, _BATCH_CLIPS, rank=ranks.rank, world_size=ranks.world_size)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return ([SampleKey(0, clip, clip) for clip in batch] for batch in self._batches)


def _errors_of(
    model: MaskedAutoencoder, config: PretrainConfig, batch: Batch, place: int, device: torch.device
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return a batch's errors by prediction (B, m), which hidden tubelets are inside (B, m), and its first picture."""
    clip = model.clip
    batch = batch.to(device)
    frames, boxes = normalise(batch.frames), batch.boxes
    generator = torch.Generator(device)
    generator.manual_seed(step_seed(config.seed, place))
    share = config.guidance.max_share
    touched = inside_tubes(clip, boxes, batch.areas, max_share=share, generator=generator)
    mask = draw_mask(config.mask, clip, touched, batch.motion, generator)
    num_hidden = num_hidden_tokens(config.mask, clip)
    dtype = DTYPES[config.run.precision]
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        prediction = model(frames, mask, num_hidden=num_hidden).float()
    hidden = split_tokens(mask, num_hidden)[1]
    inside = touched.gather(1, hidden % clip.num_patches)
    normalised = config.target == "normalised"
    truth = (hidden_targets if normalised else hidden_pixels)(frames, mask, clip, num_hidden=num_hidden)
    predictions = {"model": prediction, **simple_predictions(truth, frames, mask, clip, normalised=normalised)}
    errors = {name: (value - truth).square().mean(2).double().cpu() for name, value in predictions.items()}
    image = picture(frames[0], mask[0], batch.boxes[0], prediction[0], clip, normalised=normalised)
    return errors, inside.cpu(), image.cpu()


def simple_predictions(
    truth: Tensor, frames: Tensor, mask: Tensor, clip: ClipShape, *, normalised: bool
) -> dict[str, Tensor]:
    """Predict hidden tubelets without a model.

    Args:
        truth: float32 (B, m, tubelet values), the hidden tubelets as the recipe's target has them.
        frames: float (B, 3, T, H, W), normalised as for the model.
        mask: bool (B, num_tokens), `True` = hidden, the same number in every row.
        clip: The shape of a clip.
        normalised: The target is tubelets normalised by themselves, not pixels.

    Returns:
        `own_mean`, each hidden tubelet's mean by channel; for pixels also `visible_colour`, the mean by channel of the
        clip's visible tubelets, which says nothing in units of a hidden tubelet's own contrast. Both broadcast against
        `truth`.
    """
    own = truth.unflatten(2, (-1, 3)).mean(2, keepdim=True).expand(-1, -1, truth.shape[2] // 3, -1).flatten(2)  # type: ignore[no-untyped-call]
    if normalised:
        return {"own_mean": own}
    visible = patchify(frames, clip)[~mask].reshape(len(frames), -1, 3).float().mean(1)
    return {"own_mean": own, "visible_colour": visible.repeat(1, truth.shape[2] // 3)[:, None]}


def error_lines(report: dict[str, Any]) -> list[str]:
    """Return the figures of a report, a line for each place."""
    config = report["source"]["config"]
    split = config["data"]["split"] or "all"
    lines = [f"target {config['target']}, split {split}: {report['num_clips']} clips, {report['num_crops']} crops"]
    for place in _PLACES:
        if report[place] is None:
            continue
        errors, below = report[place]["errors"], report[place]["model_below"]
        others = [
            f"{_TITLES[name]} {errors[name]:.4f} (model {abs(share):.1%} {'below' if share >= 0 else 'above'})"
            for name, share in below.items()
        ]
        lines.append("  ".join([f"{place:<8} model {errors['model']:.4f}", *others]))
    return lines
