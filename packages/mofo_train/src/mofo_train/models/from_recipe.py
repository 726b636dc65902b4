"""The network that a recipe asks for, with the weights that it starts from."""

from __future__ import annotations

from mofo_train.finetune_config import ClassifierConfig
from mofo_train.models import Classifier, create_classifier, load_checkpoint, load_into
from mofo_train.models.probe import AttentiveClassifier
from mofo_train.models.vit import size_of
from mofo_train.models.weights import AUTOENCODER_PARTS


def create_model(config: ClassifierConfig, num_outputs: int) -> Classifier | AttentiveClassifier:
    """Create the network of a recipe with the weights of `init`, parts of it frozen for a probe.

    Raises:
        CheckpointError: `init` is missing or of another model.
    """
    if config.probe == "attentive":
        size = size_of(config.name)
        clip = size.clip_shape(config.num_frames, config.image_px)
        model: Classifier | AttentiveClassifier = AttentiveClassifier(
            size, clip, num_outputs, head_norm=config.head_norm
        )
    else:
        model = create_classifier(
            config.name,
            num_outputs,
            config.fusion,
            num_frames=config.num_frames,
            image_px=config.image_px,
            drop_path=config.drop_path if config.probe == "none" else 0.0,
            grad_checkpointing=config.grad_checkpointing,
            head_norm=config.head_norm,
        )
    if config.init is not None:
        state = load_checkpoint(config.init, config.init_weights)
        # A head of other classes, or none, is no fault of a checkpoint to start from.
        own = model.state_dict()
        if "head.weight" in state and state["head.weight"].shape != own["head.weight"].shape:
            state = {name: value for name, value in state.items() if not name.startswith("head.")}
        # Nor is what predicted the hidden pixels.
        state = {name: value for name, value in state.items() if name in own or not name.startswith(AUTOENCODER_PARTS)}
        fresh = tuple(name for name in own if not name.startswith("encoder."))
        load_into(model, state, optional=fresh, source=str(config.init))
    if config.probe != "none":
        model.encoder.requires_grad_(False)
    return model
