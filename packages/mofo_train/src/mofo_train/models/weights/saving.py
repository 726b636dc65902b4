"""Weights -> a file or folder for another program."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mofo_train.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from mofo_train.errors import CheckpointError
from mofo_train.models.vit import SIZES
from mofo_train.models.weights.files import State
from mofo_train.models.weights.names import to_huggingface, to_videomae

Layout = Literal["ours", "videomae", "huggingface"]
_BILINEAR = 2  # in Pillow's numbers


@dataclass(frozen=True)
class ModelCard:
    """What a folder for Hugging Face says of its weights.

    Attributes:
        class_names: Name of each output of a classifier; empty = their numbers.
        recipe: The recipe of the training, section by section; empty = unknown.
        figures: Name -> value, in words.
        licence: Licence of the weights, as the Hub spells it; None = not said.
    """

    class_names: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)
    licence: str | None = None


def save_checkpoint(
    state: Mapping[str, Tensor],
    path: str | Path,
    layout: Layout,
    *,
    num_frames: int = 16,
    image_px: int = 224,
    card: ModelCard | None = None,
) -> None:
    """Write weights for another program; the folder of the file is made.

    Args:
        state: Weights in our names.
        path: `ours`: a `.safetensors` file; `videomae`: a `.pth` file with container `model`; `huggingface`: a folder
            for `from_pretrained` and the Hub, with config, processor settings and model card.
        layout: Whose names to use.
        num_frames: Frames of a clip, for Hugging Face's config.
        image_px: Side of a frame, for Hugging Face's config.
        card: What the model card says.

    Raises:
        CheckpointError: The weights cannot be expressed in that layout, or the file cannot be written.
    """
    path = Path(path)
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    if layout != "ours":
        _refuse_what_others_lack(plain, layout)
    path = Path(os.path.realpath(path))  # a link stays one
    private = path.with_name(f".writing-{path.name}")
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise OSError("there is something that is no file")
        path.parent.mkdir(parents=True, exist_ok=True)
        if layout == "ours":
            save_file(plain, private)
        elif layout == "videomae":
            torch.save({"model": to_videomae(plain)}, private)
        else:
            _write_huggingface(plain, private, num_frames, image_px, card or ModelCard())
        private.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        with suppress(OSError):
            shutil.rmtree(private) if private.is_dir() else private.unlink(missing_ok=True)
        reason = str(error).split("\n", 1)[0]
        raise CheckpointError(
            f"checkpoint {path} must be writable, got: {reason}; free space, or choose another folder"
        ) from None


def _refuse_what_others_lack(state: State, layout: Layout) -> None:
    """Raise CheckpointError for weights that another program would read and compute something else with."""
    embedding = state.get("encoder.patch_embed.proj.weight")
    small = [
        name for name, size in SIZES.items() if size.small and embedding is not None and size.dim == len(embedding)
    ]
    if small:
        raise CheckpointError(
            f"layout must be ours for {small[0]}, whose position code no other program has, got {layout}"
        )
    if "fc_norm.running_mean" in state:
        raise CheckpointError(
            f"layout must be ours for model.head_norm batch, which no other program has, got {layout}"
        )


def _write_huggingface(state: State, folder: Path, num_frames: int, image_px: int, card: ModelCard) -> None:
    weights = to_huggingface(state)
    config = huggingface_config(state, num_frames, image_px, card.class_names)
    processor = {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": image_px},
        "resample": _BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": image_px, "width": image_px},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    }
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for name, values in (("config.json", config), ("preprocessor_config.json", processor)):
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card_text(config, card), encoding="utf-8")


def huggingface_config(
    state: State, num_frames: int, image_px: int, class_names: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the `config.json` of Hugging Face's model that these weights (in our names) fit."""
    dim, _, tubelet_frames, patch_px, _ = state["encoder.patch_embed.proj.weight"].shape
    size = next((size for size in SIZES.values() if size.dim == dim), None)
    if size is None:
        raise CheckpointError(f"width must be one of a known model, got {dim}")
    config: dict[str, Any] = {
        "model_type": "videomae",
        "architectures": ["VideoMAEForPreTraining" if "mask_token" in state else "VideoMAEForVideoClassification"],
        "image_size": image_px,
        "num_frames": num_frames,
        "patch_size": patch_px,
        "tubelet_size": tubelet_frames,
        "hidden_size": dim,
        "intermediate_size": 4 * dim,
        "num_hidden_layers": _num_blocks(state, "encoder"),
        "num_attention_heads": size.num_heads,
        "layer_norm_eps": 1e-6,
        "use_mean_pooling": "mask_token" not in state,
        "decoder_hidden_size": size.decoder_dim,
        "decoder_intermediate_size": 4 * size.decoder_dim,
        "decoder_num_hidden_layers": _num_blocks(state, "decoder") or size.decoder_depth,
        "decoder_num_attention_heads": size.decoder_num_heads,
    }
    if "head.bias" in state:
        num_classes = len(state["head.bias"])
        names = class_names or tuple(f"class {index}" for index in range(num_classes))
        if len(names) != num_classes:
            raise CheckpointError(f"class names must be {num_classes}, one for each output, got {len(names)}")
        config["id2label"] = {str(index): name for index, name in enumerate(names)}
        config["label2id"] = {name: index for index, name in enumerate(names)}
    return config


def _num_blocks(state: State, side: str) -> int:
    return len({name.split(".")[2] for name in state if name.startswith(f"{side}.blocks.")})


def _card_text(config: Mapping[str, Any], card: ModelCard) -> str:
    """Write the model card: front matter for the Hub, then data, recipe, figures and licence for people."""
    is_classifier = config["architectures"] == ["VideoMAEForVideoClassification"]
    task = "video-classification" if is_classifier else "feature-extraction"
    matter = [f"pipeline_tag: {task}", "library_name: transformers", "tags: [videomae, mofo, video]"]
    if card.licence is not None:
        matter.insert(0, f"license: {card.licence}")
    what = "Finetuned classifier" if is_classifier else "Pretrained masked autoencoder"
    lines = ["---", *matter, "---", "", f"# {what}, VideoMAE layout, trained with mofo-train", ""]
    shape = f"{config['num_frames']} frames of {config['image_size']} x {config['image_size']} pixels"
    lines += [f"Reads {shape}, RGB, normalised with ImageNet's mean and standard deviation.", ""]
    data = card.recipe.get("data", {})
    lines += ["## Data", "", f"Data set `{data['dataset']}`, split `{data.get('split')}`." if data else "Not recorded."]
    lines += ["", "## Recipe", ""]
    lines += ["```json", json.dumps(card.recipe, indent=2), "```"] if card.recipe else ["Not recorded."]
    lines += ["", "## Figures", ""]
    lines += [f"- {name}: {value}" for name, value in card.figures.items()] or ["None were recorded."]
    lines += ["", "## Licence", "", card.licence or "Not stated by whoever converted these weights."]
    return "\n".join(lines) + "\n"
