"""Multi-cross attention behind a backbone of your own: here torchvision's R3D, whose feature map becomes tokens.

python examples/pooling_on_my_backbone.py
"""

import torch
from torchvision.models.video import r3d_18

from mofo_train import MotionPooling


def main() -> None:
    torch.manual_seed(0)
    backbone = r3d_18(weights=None)
    features = torch.nn.Sequential(backbone.stem, backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
    pooling, head = MotionPooling(dim=512, kind="mca"), torch.nn.Linear(512, 10)

    frames = torch.randn(2, 3, 8, 112, 112)
    boxes = torch.tensor([[10.0, 20.0, 60.0, 70.0], [50.0, 0.0, 112.0, 112.0]])  # one per clip, xyxy pixels
    maps = features(frames)  # (B, 512, 1, 7, 7)
    tokens = maps.flatten(2).transpose(1, 2)  # (B, N, 512)

    cell = 112 / maps.shape[-1]
    edges = torch.arange(maps.shape[-1]) * cell
    columns = (edges < boxes[:, 2:3]) & (edges + cell > boxes[:, 0:1])
    rows = (edges < boxes[:, 3:4]) & (edges + cell > boxes[:, 1:2])
    inside = (rows[:, :, None] & columns[:, None, :]).flatten(1).repeat(1, maps.shape[2])

    logits = head(pooling(tokens, inside))
    print(f"{inside.float().mean(1).tolist()} of the tokens are inside; logits {tuple(logits.shape)}")


if __name__ == "__main__":
    main()
