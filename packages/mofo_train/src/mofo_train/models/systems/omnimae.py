"""OmniMAE's classifier (Girdhar et al. 2023), so that its published finetuned weights can be tested.

Layout of the released code (facebookresearch/omnivore, `omnimae_model.py` and `vision_transformer.py`): `trunk.` and
`head.`; the tubelet embedding is the second entry of a sequence, the positions are fixed sines and cosines over all
tokens and no class token stands before them; queries, keys and values have a bias each; the mean over all tokens goes
through `norm` into the head. This is VideoMAE's classifier but for the bias of the keys, which adds the same to all
scores of a query and is cancelled by softmax: our blocks leave it out. Colours are normalised as ours are.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from mofo_train.errors import CheckpointError
from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models.classifier import Classifier
from mofo_train.models.vit import VitSize
from mofo_train.models.weights import State, clip_of_embedding, load_into, read_named_weights
from mofo_train.models.weights.names import without_fixed_positions

_EMBEDDING = "trunk.patch_embed.proj.1.weight"
_POSITIONS = "trunk.pos_embed"
_QKV_BIAS = re.compile(r"^(trunk\.blocks\.\d+\.attn\.)qkv\.bias$")


def load_omnimae(path: Path, size: VitSize, clip: ClipShape, num_classes: int) -> Classifier:
    """Read finetuned weights in the released layout.

    Args:
        path: The `.torch` file.
        size: Width, depth and heads.
        clip: Frames and side of a clip; the side of a patch is the file's (14 pixels in ViT-H).
        num_classes: Classes of its head.

    Returns:
        A classifier that averages all tokens.

    Raises:
        CheckpointError: Unreadable, another layout, learned positions, or another size, clip or number of classes.
    """
    state = read_named_weights(path)
    if _EMBEDDING not in state:
        shown = ", ".join(list(state)[:3]) or "nothing"
        raise CheckpointError(f"{path} must hold OmniMAE's weights (with {_EMBEDDING}), got entries like {shown}")
    clip = clip_of_embedding(state[_EMBEDDING], clip, path)
    _check_tokens(state, clip, path)
    model = Classifier(size, clip, num_classes)
    state = _with_split_biases(without_fixed_positions(state, path))
    load_into(model, state, published=_published, source=str(path))
    return model


def _check_tokens(state: State, clip: ClipShape, path: Path) -> None:
    """Refuse clips of another length or size than the weights were trained on."""
    tokens = state[_POSITIONS].shape[1] if _POSITIONS in state else clip.num_tokens
    if tokens != clip.num_tokens:
        raise CheckpointError(
            f"{path} must be of clips of {clip.num_tokens} tokens, as the recipe's, got {tokens}; check "
            "model.num_frames and model.image_px of the recipe"
        )


def _with_split_biases(state: State) -> dict[str, Tensor]:
    split = {}
    for name, value in state.items():
        match = _QKV_BIAS.match(name)
        if match is None:
            split[name] = value
        else:
            split[f"{match[1]}q_bias"], _, split[f"{match[1]}v_bias"] = value.chunk(3)
    return split


def _published(name: str) -> str:
    """Name in our classifier -> name in the file, once biases are split."""
    if name.startswith("encoder.patch_embed."):
        return name.replace("encoder.patch_embed.proj.", "trunk.patch_embed.proj.1.")
    return name.replace("encoder.", "trunk.").replace("fc_norm.", "trunk.norm.")
