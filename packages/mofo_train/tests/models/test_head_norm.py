from __future__ import annotations

import pytest
import torch

from mofo_train.finetune_config import ClassifierConfig
from mofo_train.models import create_classifier
from mofo_train.models.from_recipe import create_model
from mofo_train.models.head_norm import create_head_norm


def test_batch_takes_away_what_clips_have_in_common_and_layer_does_not() -> None:
    shared = torch.tensor([30.0, -10.0, 5.0, 0.0])
    signal = torch.tensor([[0.1, 0.0, 0.2, 0.0], [-0.1, 0.0, -0.2, 0.0], [0.1, 0.0, -0.2, 0.0], [-0.1, 0.0, 0.2, 0.0]])
    by_batch = create_head_norm("batch", 4)(shared + signal)
    assert torch.allclose(by_batch, signal.sign(), atol=1e-3)
    by_layer = create_head_norm("layer", 4)(shared + signal)
    assert (by_layer - by_layer.mean(0)).abs().max() < 0.02 * by_layer.abs().max()


def test_batch_answers_one_clip_at_a_time_in_testing() -> None:
    norm = create_head_norm("batch", 3)
    vectors = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)) * 3 + 7
    for _ in range(200):
        norm(vectors)
    norm.eval()
    alone = torch.cat([norm(vector[None]) for vector in vectors])
    expected = (vectors - vectors.mean(0)) / vectors.std(0)
    assert torch.allclose(alone, expected, atol=1e-2)
    assert not list(norm.parameters())


@pytest.mark.parametrize("probe", ["none", "attentive"])
def test_a_recipe_chooses_the_norm(probe: str) -> None:
    config = ClassifierConfig.model_validate(
        {"name": "videomae_mini", "num_frames": 4, "image_px": 24, "probe": probe, "head_norm": "batch"}
    )
    assert isinstance(create_model(config, 5).fc_norm, torch.nn.BatchNorm1d)
    assert isinstance(create_classifier("videomae_mini", 5, num_frames=4, image_px=24).fc_norm, torch.nn.LayerNorm)
