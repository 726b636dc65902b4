"""Whose names -> ours, and back."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from mofo_train.errors import CheckpointError
from mofo_train.models.vit import sinusoid_table
from mofo_train.models.weights.files import State

_LOG = logging.getLogger(__name__)
# Parameters of MOFO's released classifier that change nothing: two are never used, one yields a constant of ones.
_UNUSED = re.compile(r"^(soft_att_local|soft_att_global|patch_yab)\.")
_MOFO_PARTS = {"local_MCA.0.": "pooling.inside_mca.", "global_MCA.0.": "pooling.outside_mca."}
_FINETUNED = re.compile(r"^(patch_embed|blocks|norm)\.")
_MMACTION_PARTS = {"patch_embed.projection.": "encoder.patch_embed.proj.", "cls_head.fc_cls.": "head."}
_MMACTION_MLP = {".mlp.layers.0.0.": ".mlp.fc1.", ".mlp.layers.1.": ".mlp.fc2."}
_HF_BLOCK = re.compile(r"^(?:videomae\.encoder\.layer|decoder\.decoder_layers)\.(\d+)\.(.+)$")
_HF_LEAVES = {
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}
_HF_BIASES = {
    "q_bias": "attn.q_bias",
    "query.bias": "attn.q_bias",
    "v_bias": "attn.v_bias",
    "value.bias": "attn.v_bias",
}
_HF_PARTS = {
    "videomae.embeddings.patch_embeddings.projection.": "encoder.patch_embed.proj.",
    "videomae.layernorm.": "encoder.norm.",
    "classifier.": "head.",
}


def to_our_names(state: State, path: Path) -> State:
    """Rename weights of VideoMAE, MOFO, mmaction2 or Hugging Face to ours; drop what changes nothing in their networks.

    Raises:
        CheckpointError: The positions are learned, or the file holds no VideoMAE weights.
    """
    if any(key.startswith("videomae.") for key in state):
        renamed = _from_huggingface(state)
    elif any(key.startswith("patch_embed.projection.") for key in state):
        renamed = _from_mmaction(state)
    else:
        renamed = _from_videomae(state, path)
    renamed = without_fixed_positions(renamed, path)
    if "encoder.patch_embed.proj.weight" not in renamed:
        shown = ", ".join(list(renamed)[:3]) or "nothing"
        raise CheckpointError(f"{path} must hold the weights of a VideoMAE model, got entries like {shown}")
    return renamed


def _from_videomae(state: State, path: Path) -> State:
    unused = [name for name in state if _UNUSED.match(name)]
    if unused:
        _LOG.warning("%s: ignored, they change nothing in MOFO's network: %s", path, ", ".join(unused))
    renamed = {}
    for name, value in state.items():
        if _UNUSED.match(name):
            continue
        ours = _swap_prefix(name, _MOFO_PARTS)
        renamed[f"encoder.{ours}" if _FINETUNED.match(ours) else ours] = value
    return renamed


def to_videomae(state: State) -> State:
    """Rename weights from our names to those of the original VideoMAE, or of MOFO."""
    if "mask_token" in state:
        return dict(state)
    names = {"encoder.": "", **{ours: theirs for theirs, ours in _MOFO_PARTS.items()}}
    return {_swap_prefix(name, names): value for name, value in state.items()}


def _from_mmaction(state: State) -> State:
    renamed: State = {}
    for name, value in state.items():
        ours = _swap_prefix(name, _MMACTION_PARTS)
        for theirs, own in _MMACTION_MLP.items():
            ours = ours.replace(theirs, own)
        renamed[f"encoder.{ours}" if _FINETUNED.match(ours) else ours] = value
    return renamed


def _swap_prefix(name: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def _from_huggingface(state: State) -> State:
    renamed: State = {}
    for name, value in state.items():
        match = _HF_BLOCK.match(name)
        if match is None:
            renamed[_swap_prefix(name, _HF_PARTS)] = value
            continue
        side = "encoder" if name.startswith("videomae.") else "decoder"
        block, leaf = f"{side}.blocks.{match[1]}.", match[2]
        if not leaf.startswith("attention.attention."):
            stem, kind = leaf.rsplit(".", 1)
            renamed[f"{block}{_HF_LEAVES.get(stem, stem)}.{kind}"] = value
        elif leaf.endswith("query.weight"):
            stem = name[: -len("query.weight")]
            parts = [state[f"{stem}{kind}.weight"] for kind in ("query", "key", "value")]
            renamed[block + "attn.qkv.weight"] = torch.cat(parts)
        elif not leaf.endswith(".weight"):
            short = leaf.removeprefix("attention.attention.")
            renamed[block + _HF_BIASES.get(short, short)] = value
    return renamed


def to_huggingface(state: State) -> State:
    """Rename weights from our names to those of Hugging Face's VideoMAE.

    The biases of queries and values stand there twice: transformers 4 reads `q_bias` and `v_bias`, transformers 5
    `query.bias` and `value.bias`.

    Raises:
        CheckpointError: The model pools by motion, which Hugging Face's has no place for.
    """
    leaves = {ours: theirs for theirs, ours in _HF_LEAVES.items()}
    parts = {ours: theirs for theirs, ours in _HF_PARTS.items()}
    renamed: State = {}
    for name, value in state.items():
        if name.startswith("pool"):
            raise CheckpointError(f"layout huggingface must have a place for every weight, got {name} of MOFO's fusion")
        match = re.match(r"^(encoder|decoder)\.blocks\.(\d+)\.(.+)$", name)
        if match is None:
            renamed[_swap_prefix(name, parts)] = value
            continue
        layers = "videomae.encoder.layer" if match[1] == "encoder" else "decoder.decoder_layers"
        block, leaf = f"{layers}.{match[2]}.", match[3]
        attention = block + "attention.attention."
        if leaf == "attn.qkv.weight":
            for kind, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[f"{attention}{kind}.weight"] = part.contiguous()
        elif leaf in ("attn.q_bias", "attn.v_bias"):
            for theirs in (theirs for theirs, ours in _HF_BIASES.items() if ours == leaf):
                renamed[attention + theirs] = value.clone()
        else:
            stem, kind = leaf.rsplit(".", 1)
            renamed[f"{block}{leaves[stem]}.{kind}"] = value
    return renamed


def without_fixed_positions(state: State, path: Path) -> State:
    """Drop stored position tables, after checking that they are the fixed ones.

    Raises:
        CheckpointError: A table is learned, or of another kind.
    """
    kept = {}
    for name, value in state.items():
        if not name.endswith(("pos_embed", "position_embeddings")):
            kept[name] = value
            continue
        table = value.squeeze(0)
        if table.ndim != 2 or not torch.allclose(table.float(), sinusoid_table(*table.shape), atol=1e-4):
            raise CheckpointError(f"{path} must use fixed sine-cosine positions, got other values in {name}")
    return kept
