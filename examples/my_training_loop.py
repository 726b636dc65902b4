"""A training loop of your own over a store's clips: `MotionClips` is a plain data set for PyTorch's `DataLoader`.

python examples/my_training_loop.py STORE       a store made with `motionbox extract --clips`
"""

import sys

import torch
from torch.utils.data import DataLoader

from mofo_train import MotionClips, create_pretrain_model
from mofo_train.guidance import motion_tube_mask
from mofo_train.guidance.inside import inside_tubes
from mofo_train.models.mae import hidden_targets


def main() -> None:
    torch.manual_seed(0)
    clips = MotionClips(sys.argv[1], num_frames=8, image_px=64, augment=True)
    model = create_pretrain_model("videomae_tiny", num_frames=8, image_px=64)
    shape = model.clip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for batch in DataLoader(clips, batch_size=4, shuffle=True, drop_last=True):
        inside = inside_tubes(shape, batch["boxes"])
        mask = motion_tube_mask(inside, shape.num_tubelets, generator=generator)  # True = hidden
        predicted = model(batch["frames"], mask)  # of the hidden tubelets, (B, num_hidden, 1536)
        loss = torch.nn.functional.mse_loss(predicted, hidden_targets(batch["frames"], mask, shape))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"{len(batch['clip_id'])} clips, {mask.float().mean():.0%} hidden, loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
