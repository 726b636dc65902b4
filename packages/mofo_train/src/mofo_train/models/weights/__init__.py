"""Weights of the original VideoMAE, of MOFO, Hugging Face, mmaction2 and our own, read and written under each's names.

Our names are those of VideoMAE's pretraining model (`encoder.blocks.0.attn.qkv.weight`, `decoder...`, `mask_token`),
for classifiers too, plus `fc_norm`, `head`, `pooling.inside_mca` and `pooling.outside_mca`. In the order of the data:
`files` (a file -> named weights), `names` (whose names -> ours and back), `loading` (into a model), `saving`.
"""

from mofo_train.models.weights.files import State, WeightsKind, checkpoint_of, read_named_weights
from mofo_train.models.weights.loading import (
    AUTOENCODER_PARTS,
    CLASSIFIER_PARTS,
    LoadReport,
    clip_of_embedding,
    load_checkpoint,
    load_into,
)
from mofo_train.models.weights.saving import Layout, ModelCard, save_checkpoint

__all__ = [
    "AUTOENCODER_PARTS",
    "CLASSIFIER_PARTS",
    "Layout",
    "LoadReport",
    "ModelCard",
    "State",
    "WeightsKind",
    "checkpoint_of",
    "clip_of_embedding",
    "load_checkpoint",
    "load_into",
    "read_named_weights",
    "save_checkpoint",
]
