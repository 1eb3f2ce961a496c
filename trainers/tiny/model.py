"""The tiny detector: a small convolutional network that finds the centres of objects.

The backbone halves the image five times, and a top-down path returns to stride 4. There, every cell predicts a score
per class for being the centre of an object, and the distances to the four sides of that object. The targets follow
TTFNet (Liu et al., 2020): Gaussians that grow with the object, and a box loss over the middle of it. This learns much
faster than one cell per object, which matters on a CPU.

`Detector` returns the raw maps. `Deployed` adds everything up to RF-DETR's outputs, so that the exported graph only
needs a sigmoid and a top-k after it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 4
COARSEST = 32
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Slope and minimum of the logits beside a peak. The background logit is below all of them.
STEEPNESS, LOWEST, BACKGROUND = 50.0, -30.0, -50.0

# A side is at most e^7 cells from the centre: enough for any image, and small enough to keep exp() finite.
LARGEST_LOG_SIDE = 7.0


def conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """A convolution with batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Block(nn.Module):
    """A residual block of two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Detector(nn.Module):
    """Maps normalised images [N,3,H,W] to class logits [N,C,H/4,W/4] and log distances [N,4,H/4,W/4].

    The distances are those from the cell's centre to the left, top, right and bottom side of the object, in cells.
    H and W must be multiples of 32.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        c, neck = channels, 3 * channels
        self.stem = nn.Sequential(conv(3, c, 2), conv(c, 2 * c, 2))
        widths = (2 * c, 4 * c, 6 * c, 8 * c)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Identity() if i == 0 else conv(widths[i - 1], w, 2), Block(w))
            for i, w in enumerate(widths)
        )
        self.context = nn.Linear(widths[-1], widths[-1])
        self.laterals = nn.ModuleList(nn.Conv2d(w, neck, 1) for w in widths)
        self.merges = nn.ModuleList(conv(neck, neck) for _ in widths[:-1])
        self.tower = conv(neck, neck)
        self.heat = nn.Conv2d(neck, classes, 1)
        self.sides = nn.Conv2d(neck, 4, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for head in (self.heat, self.sides):
            nn.init.normal_(head.weight, std=0.01)
        nn.init.constant_(self.heat.bias, -math.log(99))  # a score of 1 % in every cell
        nn.init.zeros_(self.context.weight)
        nn.init.zeros_(self.context.bias)

    def start_sides(self, log_sides: Tensor) -> None:
        """Sets the initial boxes to a typical object's size: the four log distances, in cells."""
        with torch.no_grad():
            self.sides.bias.copy_(log_sides)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(images)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        x = x + self.context(x.mean((2, 3)))[:, :, None, None]  # global context
        x = self.laterals[-1](x)
        for i in (2, 1, 0):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = self.merges[i](x + self.laterals[i](levels[i]))
        x = self.tower(x)
        return self.heat(x), self.sides(x)


def boxes(log_sides: Tensor, h: int, w: int) -> Tensor:
    """The boxes of all cells as corners in cells: [N,4,h,w] log distances to [N,4,h,w] (x1,y1,x2,y2)."""
    ys = torch.arange(h, dtype=log_sides.dtype).add(0.5)[:, None].expand(h, w)
    xs = torch.arange(w, dtype=log_sides.dtype).add(0.5)[None, :].expand(h, w)
    away = log_sides.clamp(-LARGEST_LOG_SIDE, LARGEST_LOG_SIDE).exp()
    return torch.stack((xs - away[:, 0], ys - away[:, 1], xs + away[:, 2], ys + away[:, 3]), 1)


class Deployed(nn.Module):
    """The detector with RF-DETR's outputs: `dets` [N,Q,4] (cx,cy,w,h in 0..1) and `labels` [N,Q,C+1] raw logits.

    First, every cell that is not a local maximum of a class gets a lower logit for that class, in proportion to the
    difference from its highest neighbour. The queries are then the cells with the highest logits, in the order of the
    grid. There is no threshold and no sorting by score, so two engines whose sums differ in the last bits return
    outputs that differ in the last bits, and almost always the same queries in the same order.
    """

    def __init__(self, detector: Detector, queries: int, height: int, width: int) -> None:
        """For images of one size only, because the grid is a constant in the graph."""
        super().__init__()
        self.detector = detector
        self.h, self.w = height // STRIDE, width // STRIDE
        self.queries = min(queries, self.h * self.w)
        self.classes = detector.heat.out_channels

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        heat, log_sides = self.detector(images)
        below = F.max_pool2d(heat, 3, 1, 1) - heat
        logits = (heat - STEEPNESS * below).clamp(min=LOWEST).flatten(2)
        cells = logits.max(1)[0].topk(self.queries)[1]
        cells = (-(-cells.float()).topk(self.queries)[0]).long()  # in the order of the grid
        labels = logits.transpose(1, 2).gather(1, cells[:, :, None].expand(-1, -1, self.classes))
        labels = torch.cat((labels, torch.full_like(labels[:, :, :1], BACKGROUND)), 2)

        corners = boxes(log_sides, self.h, self.w).flatten(2).transpose(1, 2)
        corners = corners.gather(1, cells[:, :, None].expand(-1, -1, 4))
        corners = (corners / torch.tensor([self.w, self.h, self.w, self.h], dtype=corners.dtype)).clamp(0.0, 1.0)
        low, high = corners[:, :, :2], corners[:, :, 2:]
        return torch.cat(((low + high) / 2, high - low), 2), labels


def heat_loss(heat: Tensor, target: Tensor, weight: Tensor, objects: float) -> Tensor:
    """CenterNet's focal loss: cells with target 1 are objects; the weight of others falls with their target.

    weight is 0 in regions to ignore (crowds, objects mostly cut off), else 1.
    """
    probability = heat.sigmoid()
    centre = target.eq(1).to(heat.dtype)
    found = centre * (1 - probability).square() * F.logsigmoid(heat)
    quiet = (1 - centre) * (1 - target).pow(4) * probability.square() * F.logsigmoid(-heat)
    return -((found + quiet) * weight).sum() / objects


def box_loss(log_sides: Tensor, target: Tensor, weight: Tensor, objects: float) -> Tensor:
    """Generalised IoU of the boxes in the middle of the objects.

    target is [N,4,h,w] corners in cells; weight [N,h,w] is 0 outside objects, and sums to 1 over each object.
    """
    where = weight > 0
    ours = boxes(log_sides, *log_sides.shape[2:]).permute(0, 2, 3, 1)[where]
    truth = target.permute(0, 2, 3, 1)[where]
    size = (ours[:, 2:] - ours[:, :2]).prod(1) + (truth[:, 2:] - truth[:, :2]).prod(1)
    common = (torch.minimum(ours[:, 2:], truth[:, 2:]) - torch.maximum(ours[:, :2], truth[:, :2])).clamp(min=0).prod(1)
    hull = (torch.maximum(ours[:, 2:], truth[:, 2:]) - torch.minimum(ours[:, :2], truth[:, :2])).prod(1).clamp(min=1e-6)
    union = (size - common).clamp(min=1e-6)
    giou = common / union - (hull - union) / hull
    return ((1 - giou) * weight[where]).sum() / objects
