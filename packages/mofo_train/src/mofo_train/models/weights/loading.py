"""Weights of any program -> into a model."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from mofo_train.errors import CheckpointError
from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models.weights.files import State, WeightsKind, read_named_weights
from mofo_train.models.weights.names import to_our_names

_LOG = logging.getLogger(__name__)
CLASSIFIER_PARTS = ("fc_norm.", "head.", "pooling.")
AUTOENCODER_PARTS = ("decoder.", "encoder_to_decoder.", "mask_token", "encoder.norm.")
"""Prefixes of what predicts pixels: no classifier that averages its tokens has a place for it."""
_PROBLEMS_SHOWN = 3


@dataclass(frozen=True)
class LoadReport:
    """What loading left over.

    Attributes:
        missing: Parameters of the model that the checkpoint lacks; they keep their initial values.
        unused: Entries of the checkpoint that the model has no place for.
    """

    missing: tuple[str, ...]
    unused: tuple[str, ...]


def load_checkpoint(path: str | Path, kind: WeightsKind | None = None) -> State:
    """Read the weights of a checkpoint, in our names; what changes nothing in MOFO's network is named and left out.

    Args:
        path: A `.pth` of VideoMAE, MOFO or mmaction2, a `.safetensors` or folder of Hugging Face's
            `VideoMAEForPreTraining` or `VideoMAEForVideoClassification`, or weights of ours.
        kind: `model`, or `ema` for the moving average of a file that holds both; None = the model's, or the average
            where there is nothing else.

    Returns:
        Name -> tensor, on the CPU.

    Raises:
        CheckpointError: The file is missing, unreadable or unsafe, holds no VideoMAE weights or not of that kind, or a
            weight is not a number.
    """
    path = Path(path)
    return to_our_names(read_named_weights(path, kind), path)


def load_into(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    optional: tuple[str, ...] = (),
    published: Callable[[str], str] | None = None,
    source: str = "checkpoint",
) -> LoadReport:
    """Copy weights into a model; entries that it has no place for are named in the log.

    Args:
        model: A `MaskedAutoencoder` or `Classifier`, or another system's network.
        state: Weights in our names, or in those of `published`.
        optional: Prefixes of parameters that may be missing (`CLASSIFIER_PARTS` to start finetuning).
        published: Name in our model -> name in another system's file. Entries without a place are refused then: what
            is not understood must not be passed over.
        source: Where the weights come from, for messages.

    Returns:
        What was left over on either side.

    Raises:
        CheckpointError: Shapes differ, or parameters are missing or unknown; names the first of each.
    """
    own = model.state_dict()
    names = {name: published(name) if published else name for name in own}
    wrong = [
        f"{names[name]} {tuple(state[names[name]].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if names[name] in state and state[names[name]].shape != value.shape
    ]
    missing = tuple(name for name in own if names[name] not in state)
    needed = [f"{names[name]} is missing" for name in missing if not name.startswith(optional or ("\0",))]
    known = set(names.values())
    unused = tuple(name for name in state if name not in known)
    unknown = [f"{name} is unknown" for name in unused] if published else []
    if wrong or needed or unknown:
        problems = "; ".join(_first_of(kind) for kind in (wrong, needed, unknown) if kind)
        raise CheckpointError(
            f"{source} must fit the model, got {problems}; check the recipe's model name and size"
            + (", and --system" if published else "")
        )
    model.load_state_dict({name: state[names[name]] for name in own if names[name] in state}, strict=False)
    if unused:
        _LOG.warning("%s: ignored, the model has no place for %s", source, _groups_of(unused))
    return LoadReport(missing, unused)


def _groups_of(names: Iterable[str]) -> str:
    """Write names by their first part, with counts: `decoder (28), encoder.norm (2), mask_token`."""
    groups = Counter(
        ".".join(name.split(".")[: 2 if name.startswith(("encoder.", "pooling.")) else 1]) for name in names
    )
    return ", ".join(group if count == 1 else f"{group} ({count})" for group, count in groups.items())


def _first_of(problems: list[str]) -> str:
    more = f" and {len(problems) - _PROBLEMS_SHOWN} more" if len(problems) > _PROBLEMS_SHOWN else ""
    return "; ".join(problems[:_PROBLEMS_SHOWN]) + more


def clip_of_embedding(embedding: Tensor, clip: ClipShape, path: Path) -> ClipShape:
    """Cut a clip into the tubelets that the embedding of a file, (dim, 3, frames, side, side), reads.

    Raises:
        CheckpointError: It embeds no tubelets, or they do not tile the clip.
    """
    if embedding.ndim != 5:
        raise CheckpointError(
            f"{path} must embed tubelets of video, got an embedding of shape {tuple(embedding.shape)}"
        )
    try:
        return ClipShape(clip.num_frames, clip.image_px, embedding.shape[3], embedding.shape[2])
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; check model.num_frames and model.image_px of the recipe") from None
