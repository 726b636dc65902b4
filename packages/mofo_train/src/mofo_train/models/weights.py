"""Weights of the original VideoMAE, of MOFO, of Hugging Face and our own, read and written under each other's names.

Our names are those of VideoMAE's pretraining model (`encoder.blocks.0.attn.qkv.weight`, `decoder...`, `mask_token`),
for classifiers too, plus `fc_norm`, `head`, `pooling.inside_mca` and `pooling.outside_mca`. Files are told apart by
their names, not by their suffix. Pickles are read with `weights_only`; the one class they may contain is
`argparse.Namespace`, in which VideoMAE's training script keeps its arguments.
"""

from __future__ import annotations

import argparse
import json
import logging
import pickle
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mofo_train.errors import CheckpointError
from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models.vit import SIZES, sinusoid_table

State = dict[str, Tensor]
_LOG = logging.getLogger(__name__)
Layout = Literal["ours", "videomae", "huggingface"]
CLASSIFIER_PARTS = ("fc_norm.", "head.", "pooling.")
_CONTAINERS = ("model", "module", "state_dict", "model_state")
_WRAPPERS = ("module.", "_orig_mod.", "backbone.", "model.")
_PROBLEMS_SHOWN = 3
# Parameters of MOFO's released classifier that its forward pass never uses.
_UNUSED = re.compile(r"^(soft_att_local|soft_att_global|patch_yab)\.")
_MOFO_PARTS = {"local_MCA.0.": "pooling.inside_mca.", "global_MCA.0.": "pooling.outside_mca."}
_FINETUNED = re.compile(r"^(patch_embed|blocks|norm)\.")
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


@dataclass(frozen=True)
class LoadReport:
    """What loading left over.

    Attributes:
        missing: Parameters of the model that the checkpoint lacks; they keep their initial values.
        unused: Entries of the checkpoint that the model has no place for.
    """

    missing: tuple[str, ...]
    unused: tuple[str, ...]


def load_checkpoint(path: str | Path) -> State:
    """Read the weights of a checkpoint, in our names; parameters that MOFO's network never uses are named and left out.

    Args:
        path: A `.pth` of VideoMAE or MOFO, a `.safetensors` or folder of Hugging Face's `VideoMAEForPreTraining` or
            `VideoMAEForVideoClassification`, or weights of ours.

    Returns:
        Name -> tensor, on the CPU.

    Raises:
        CheckpointError: The file is missing, unreadable or unsafe, or holds no VideoMAE weights.
    """
    path = Path(path)
    state = read_named_weights(path)
    theirs = any(key.startswith("videomae.") for key in state)
    state = _from_huggingface(state) if theirs else _from_videomae(state, path)
    state = without_fixed_positions(state, path)
    if "encoder.patch_embed.proj.weight" not in state:
        shown = ", ".join(list(state)[:3]) or "nothing"
        raise CheckpointError(f"{path} must hold the weights of a VideoMAE model, got entries like {shown}")
    return state


def read_named_weights(path: str | Path) -> State:
    """Read a checkpoint of any program under its own names, without the wrappers around them.

    Groups of weights, as in `{"trunk": {...}, "heads": {...}}`, become prefixes: `trunk.`, `heads.`.

    Raises:
        CheckpointError: The file is missing, unreadable or unsafe, or holds no named weights.
    """
    path = Path(path)
    return _unwrap(_read(path), path)


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


def save_checkpoint(
    state: Mapping[str, Tensor], path: str | Path, layout: Layout, *, num_frames: int = 16, image_px: int = 224
) -> None:
    """Write weights for another program.

    Args:
        state: Weights in our names.
        path: `ours`: a `.safetensors` file; `videomae`: a `.pth` file with container `model`; `huggingface`: a folder
            for `from_pretrained`.
        layout: Whose names to use.
        num_frames: Frames of a clip, for Hugging Face's config.
        image_px: Side of a frame, for Hugging Face's config.

    Raises:
        CheckpointError: The weights cannot be expressed in that layout, or the file cannot be written.
    """
    path = Path(path)
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    private = path.with_name(f".writing-{path.name}")
    try:
        if layout == "ours":
            save_file(plain, private)
        elif layout == "videomae":
            torch.save({"model": _to_videomae(plain)}, private)
        else:
            renamed, config = to_huggingface(plain), huggingface_config(plain, num_frames, image_px)
            private.mkdir()
            save_file(renamed, private / "model.safetensors", metadata={"format": "pt"})
            (private / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        private.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(private) if private.is_dir() else private.unlink(missing_ok=True)
        reason = str(error).split("\n", 1)[0]
        raise CheckpointError(
            f"checkpoint {path} must be writable, got: {reason}; free space, or choose a folder that is there"
        ) from None


def _read(path: Path) -> Any:
    if path.is_dir():
        inside = [path / name for name in ("model.safetensors", "pytorch_model.bin") if (path / name).is_file()]
        if not inside:
            raise CheckpointError(f"{path} must contain model.safetensors or pytorch_model.bin, got neither")
        path = inside[0]
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} does not exist") from None
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n", 1)[0]
        raise CheckpointError(f"checkpoint {path} must be a plain file of weights, got: {reason}") from None
    except Exception as error:  # what the unpickler raises on bytes that are no pickle depends on the bytes
        reason = (str(error) or type(error).__name__).split("\n", 1)[0]
        raise CheckpointError(f"checkpoint {path} must be readable, got: {reason}; copy it again") from None


def _unwrap(content: Any, path: Path) -> State:
    for container in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"checkpoint {path} must hold named weights, got {type(content).__name__}")
    state: State = {}
    for key, value in _ungrouped(content).items():
        name = key
        while name.startswith(_WRAPPERS):
            name = name.split(".", 1)[1]
        state[name] = value
    return state


def _ungrouped(content: Mapping[str, Any]) -> State:
    """Return the tensors of a mapping and of the mappings in it, whose names become prefixes."""
    found: State = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            found[key] = value
        elif isinstance(value, Mapping):
            found |= {f"{key}.{name}": part for name, part in value.items() if isinstance(part, Tensor)}
    return found


def _from_videomae(state: State, path: Path) -> State:
    unused = [name for name in state if _UNUSED.match(name)]
    if unused:
        _LOG.warning("%s: ignored, MOFO's network never uses %s", path, ", ".join(unused))
    renamed = {}
    for name, value in state.items():
        if _UNUSED.match(name):
            continue
        ours = _swap_prefix(name, _MOFO_PARTS)
        renamed[f"encoder.{ours}" if _FINETUNED.match(ours) else ours] = value
    return renamed


def _to_videomae(state: State) -> State:
    if "mask_token" in state:
        return dict(state)
    names = {"encoder.": "", **{ours: theirs for theirs, ours in _MOFO_PARTS.items()}}
    return {_swap_prefix(name, names): value for name, value in state.items()}


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
    """Rename weights from our names to those of Hugging Face's VideoMAE."""
    leaves = {ours: theirs for theirs, ours in _HF_LEAVES.items()}
    parts = {ours: theirs for theirs, ours in _HF_PARTS.items()}
    renamed: State = {}
    for name, value in state.items():
        if "_mca." in name:
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
            renamed[attention + ("query.bias" if leaf == "attn.q_bias" else "value.bias")] = value
        else:
            stem, kind = leaf.rsplit(".", 1)
            renamed[f"{block}{leaves[stem]}.{kind}"] = value
    return renamed


def huggingface_config(state: State, num_frames: int, image_px: int) -> dict[str, Any]:
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
        config["id2label"] = {str(index): f"class {index}" for index in range(len(state["head.bias"]))}
    return config


def _num_blocks(state: State, side: str) -> int:
    return len({name.split(".")[2] for name in state if name.startswith(f"{side}.blocks.")})


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
