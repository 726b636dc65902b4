"""What `mofo-train bench --peers` is compared with, re-timed in one process on the same weights, clips and masks.

`OriginalSchedule` runs the operations of the original VideoMAE code in their order (its repository, modeling_pretrain
and engine_for_pretraining, is research code for one old set of versions and cannot be imported beside ours): every
tubelet is embedded by a strided convolution and most are thrown away, attention is written out, all tokens pass the
last decoder block, targets are made of all tubelets, AdamW runs one tensor at a time. `original_sample` does the same
for its loader. `loop_over_clips` is the released MOFO fusion.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mofo_train.data.transforms import IMAGENET_MEAN, IMAGENET_STD, multi_scale_crop
from mofo_train.models import MaskedAutoencoder
from mofo_train.models.layers.linear import linear
from mofo_train.models.mca import MultiCrossAttention
from mofo_train.models.vit import Attention, Block

_SCALES = (1.0, 0.875, 0.75, 0.66)


class OriginalSchedule(nn.Module):
    """The original VideoMAE's operations on the parameters of one of our models."""

    def __init__(self, model: MaskedAutoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions and targets, each (B, num_hidden, values)."""
        model = self.model
        embedding = model.encoder.patch_embed.proj
        x = F.conv3d(frames, embedding.weight, embedding.bias, stride=embedding.stride).flatten(2).transpose(1, 2)
        x = x + model.encoder.positions.type_as(x).clone().detach()
        batch, _, dim = x.shape
        x = x[~mask].reshape(batch, -1, dim)
        for block in model.encoder.blocks:
            x = _block(cast(Block, block), x)
        x = F.linear(model.encoder.norm(x), model.encoder_to_decoder.weight)
        positions = model.positions.expand(batch, -1, -1).type_as(x).clone().detach()
        dim = x.shape[2]
        hidden = positions[mask].reshape(batch, -1, dim)
        x = torch.cat([x + positions[~mask].reshape(batch, -1, dim), model.mask_token + hidden], dim=1)
        for block in model.decoder.blocks:
            x = _block(cast(Block, block), x)
        head = model.decoder.head
        prediction = F.linear(model.decoder.norm(x[:, -hidden.shape[1] :]), head.weight, head.bias)
        return prediction, self._targets(frames, mask)

    @torch.no_grad()
    def _targets(self, frames: Tensor, mask: Tensor) -> Tensor:
        shape = (1, 3, 1, 1, 1)
        colours = frames * torch.tensor(IMAGENET_STD).view(shape) + torch.tensor(IMAGENET_MEAN).view(shape)
        clip = self.model.clip
        side, patch, depth = clip.image_px // clip.patch_px, clip.patch_px, clip.tubelet_frames
        cut = colours.reshape(len(frames), 3, clip.num_tubelets, depth, side, patch, side, patch)
        cut = cut.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(len(frames), clip.num_tokens, -1, 3)
        cut = (cut - cut.mean(dim=-2, keepdim=True)) / (cut.var(dim=-2, unbiased=True, keepdim=True).sqrt() + 1e-6)
        tubelets = cut.reshape(len(frames), clip.num_tokens, -1)
        return tubelets[mask].reshape(len(frames), -1, tubelets.shape[2])


def _block(block: Block, x: Tensor) -> Tensor:
    x = x + _attention(block.attn, block.norm1(x))
    hidden = F.gelu(F.linear(block.norm2(x), block.mlp.fc1.weight, block.mlp.fc1.bias))
    return x + F.linear(hidden, block.mlp.fc2.weight, block.mlp.fc2.bias)


def _attention(attention: Attention, x: Tensor) -> Tensor:
    batch, tokens, dim = x.shape
    bias = torch.cat([attention.q_bias, torch.zeros_like(attention.v_bias), attention.v_bias])
    qkv = F.linear(x, attention.qkv.weight, bias).reshape(batch, tokens, 3, attention.num_heads, -1)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    query = query * (dim // attention.num_heads) ** -0.5
    weights = (query @ key.transpose(-2, -1)).softmax(dim=-1)
    out = (weights @ value).transpose(1, 2).reshape(batch, tokens, -1)
    return F.linear(out, attention.proj.weight, attention.proj.bias)


def original_step(model: MaskedAutoencoder) -> Callable[[Tensor, Tensor], float]:
    """Return a function that takes one training step on (frames, mask) as the original code does."""
    schedule = OriginalSchedule(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.05, foreach=False)

    def step(frames: Tensor, mask: Tensor) -> float:
        prediction, target = schedule(frames, mask)
        loss = F.mse_loss(prediction, target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norms = [value.grad.norm() for value in model.parameters() if value.grad is not None]
        torch.stack(norms).norm()
        optimizer.step()
        return loss.item()

    return step


def transformers_step(model: MaskedAutoencoder) -> Callable[[Tensor, Tensor], float]:
    """Return a function that takes one training step with transformers' VideoMAE of the same size and weights."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    from mofo_train.models.weights.names import to_huggingface
    from mofo_train.models.weights.saving import huggingface_config

    clip = model.clip
    state = {name: value.detach() for name, value in model.state_dict().items()}
    values = huggingface_config(state, clip.num_frames, clip.image_px)
    other: Any = VideoMAEForPreTraining(VideoMAEConfig(**values))
    theirs = to_huggingface(state)
    other.load_state_dict({name: theirs[name] for name in other.state_dict()})  # without the names of version 4
    optimizer = torch.optim.AdamW(other.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.05)

    def step(frames: Tensor, mask: Tensor) -> float:
        loss = other(frames.transpose(1, 2), bool_masked_pos=mask).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(other.parameters(), float("inf"))
        optimizer.step()
        return float(loss.item())

    return step


def original_sample(path: Path, times_seconds: NDArray[np.float64], image_px: int, rng: np.random.Generator) -> Tensor:
    """Read one clip as the original loader does: open, seek, decode, crop and resize with PIL, normalise by channel.

    Args:
        path: Video file.
        times_seconds: (T,) times of the frames since the file's start, not decreasing.
        image_px: Side of the crop.
        rng: Source of the crop.

    Returns:
        float32 (3, T, image_px, image_px).
    """
    images: list[Image.Image] = []
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        origin = (container.start_time or 0) / av.time_base
        container.seek(round((times_seconds[0] + origin) * av.time_base), backward=True)
        for picture in container.decode(video=0):
            image = None
            while len(images) < len(times_seconds) and picture.time - origin > times_seconds[len(images)] - 1e-3:
                image = image or Image.fromarray(picture.to_ndarray(format="rgb24"))
                images.append(image)
            if len(images) == len(times_seconds):
                break
    return _original_transforms(images, image_px, rng)


def decord_sample(path: Path, positions: NDArray[np.int64], image_px: int, rng: np.random.Generator) -> Tensor:
    """Read one clip as the original loader does, with decord (which must be installed) as it does.

    Args:
        path: Video file.
        positions: (T,) positions of the frames in the file.
        image_px: Side of the crop.
        rng: Source of the crop.

    Returns:
        float32 (3, T, image_px, image_px).
    """
    from decord import VideoReader

    pictures = VideoReader(str(path), num_threads=1).get_batch(positions.tolist()).asnumpy()
    return _original_transforms([Image.fromarray(picture).convert("RGB") for picture in pictures], image_px, rng)


def decord_positions(path: Path, times_seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the positions in the file, as decord counts them, of the frames at the given times since its start."""
    from decord import VideoReader

    reader = VideoReader(str(path), num_threads=1)
    begins = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    nearest = np.abs(begins - begins[0] - times_seconds[:, None]).argmin(1)
    return np.asarray(nearest, np.int64)


def _original_transforms(images: list[Image.Image], image_px: int, rng: np.random.Generator) -> Tensor:
    """Crop and resize each frame with PIL, stack, and normalise channel by channel: GroupMultiScaleCrop and its kin."""
    width, height = images[0].size
    crop = multi_scale_crop(width, height, image_px, _SCALES, rng)
    edges = (crop.x, crop.y, crop.x + crop.width, crop.y + crop.height)
    size = (image_px, image_px)
    group = [image.crop(edges).resize(size, Image.Resampling.BILINEAR) for image in images]
    stacked = torch.from_numpy(np.concatenate([np.asarray(image) for image in group], axis=2))
    values = stacked.permute(2, 0, 1).contiguous().float().div(255.0)
    for channel, plane in enumerate(values):
        plane.sub_(IMAGENET_MEAN[channel % 3]).div_(IMAGENET_STD[channel % 3])
    return values.view(len(group), 3, image_px, image_px).transpose(0, 1)


def dense_with_mask(block: MultiCrossAttention, tokens: Tensor, inside: Tensor) -> Tensor:
    """Fuse (B, N, dim) by (B, N) with all N x N scores, the wrong ones masked -> (B, dim)."""
    attention = block.attn
    normed = block.norm1(tokens)
    query = F.linear(normed, attention.q.weight, attention.q_bias).unflatten(2, attention.heads)  # type: ignore[no-untyped-call]
    bias = torch.cat([torch.zeros_like(attention.q_bias), attention.v_bias])
    pair = F.linear(normed, attention.kv.weight, bias).unflatten(2, (2, *attention.heads))  # type: ignore[no-untyped-call]
    key, value = pair.unbind(2)
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=~inside[:, None, None, :])
    x = tokens + attention.proj(out.transpose(1, 2).flatten(2))
    x = x + block.mlp(block.norm2(x))
    weights = inside.to(x.dtype) / inside.sum(1, keepdim=True)
    return cast(Tensor, (x * weights[..., None]).sum(1))


def loop_over_clips(block: MultiCrossAttention, tokens: Tensor, inside: Tensor) -> Tensor:
    """Fuse (B, N, dim) by (B, N) as a loop over exactly the inside and outside tokens of each clip -> (B, dim)."""
    attention = block.attn
    rows = []
    for row, chosen in zip(tokens, inside, strict=True):
        x, y = row[chosen], row[~chosen]
        query = linear(block.norm1(x), attention.q.weight, attention.q_bias).reshape(len(x), *attention.heads)
        bias = torch.cat([torch.zeros_like(attention.q_bias), attention.v_bias])
        key, value = linear(block.norm1(y), attention.kv.weight, bias).reshape(len(y), 2, *attention.heads).unbind(1)
        query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))
        out = F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1)
        x = x + attention.proj(out.flatten(1))
        rows.append((x + block.mlp(block.norm2(x))).mean(0))
    return torch.stack(rows)
