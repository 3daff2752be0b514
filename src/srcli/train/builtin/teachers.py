"""Published networks that teach the built-in network, from files with convolutions numbered in running order."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.models.builtin import UPSCALE_FACTOR

SPAN_MEAN = (0.4488, 0.4371, 0.4040)


class Teacher(nn.Module):
    """Enlarges pictures (N, 3, H, W) in 0..1 four times."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        names = sorted(name.split(".")[0] for name in tensors if name.endswith("conv.weight"))
        self.weights = nn.ParameterList(tensors[f"{n}.conv.weight"] for n in names)
        self.biases = nn.ParameterList(tensors[f"{n}.conv.bias"] for n in names)
        slopes = sorted(name for name in tensors if name.endswith("prelu.weight"))
        self.slopes = nn.ParameterList(tensors[name] for name in slopes)
        self.requires_grad_(False).eval()

    def conv(self, index: int, x: Tensor) -> Tensor:
        weight = self.weights[index]
        return F.conv2d(x, weight, self.biases[index], padding=weight.shape[-1] // 2)


class GeneralTeacher(Teacher):
    """realesr-general-x4v3: convolutions with PReLU, then a sub-pixel convolution, added to nearest-neighbour."""

    def forward(self, x: Tensor) -> Tensor:
        inner = x
        for index, slope in enumerate(self.slopes):
            inner = F.prelu(self.conv(index, inner), slope)
        out: Tensor = F.pixel_shuffle(self.conv(len(self.weights) - 1, inner), UPSCALE_FACTOR)
        return out + F.interpolate(x, scale_factor=float(UPSCALE_FACTOR))


class DenseTeacher(Teacher):
    """RealESRGAN_x4plus: residual in residual dense blocks, then two nearest-neighbour upsamplings."""

    def _dense(self, index: int, x: Tensor) -> Tensor:
        features = [x]
        for step in range(4):
            features.append(F.leaky_relu(self.conv(index + step, torch.cat(features, 1)), 0.2))
        return x + 0.2 * self.conv(index + 4, torch.cat(features, 1))

    def forward(self, x: Tensor) -> Tensor:
        first = inner = self.conv(0, x)
        blocks = (len(self.weights) - 6) // 15
        for block in range(blocks):
            dense = inner
            for part in range(3):
                dense = self._dense(1 + 15 * block + 5 * part, dense)
            inner = inner + 0.2 * dense
        tail = 1 + 15 * blocks
        inner = first + self.conv(tail, inner)
        for index in (tail + 1, tail + 2):
            inner = F.leaky_relu(self.conv(index, F.interpolate(inner, scale_factor=2.0)), 0.2)
        return self.conv(tail + 4, F.leaky_relu(self.conv(tail + 3, inner), 0.2))


class SpanTeacher(Teacher):
    """SPAN x4: blocks of three convolutions with a parameter-free attention from their own output."""

    def forward(self, x: Tensor) -> Tensor:
        mean = torch.tensor(SPAN_MEAN, device=x.device, dtype=x.dtype)[:, None, None]
        first = inner = self.conv(0, (x - mean) * 255)
        after_first, within_last = first, first
        blocks = (len(self.weights) - 4) // 3
        for block in range(blocks):
            within_last = F.silu(self.conv(1 + 3 * block, inner))
            out = self.conv(3 + 3 * block, F.silu(self.conv(2 + 3 * block, within_last)))
            inner = (out + inner) * (torch.sigmoid(out) - 0.5)
            after_first = inner if block == 0 else after_first
        tail = 1 + 3 * blocks
        together = torch.cat((first, self.conv(tail, inner), after_first, within_last), 1)
        return F.pixel_shuffle(self.conv(tail + 2, self.conv(tail + 1, together)), UPSCALE_FACTOR)


TEACHER_KINDS = {"general": GeneralTeacher, "dense": DenseTeacher, "span": SpanTeacher}


def read_teacher(kind: str, file: Path, device: torch.device, dtype: torch.dtype) -> Teacher:
    teacher = TEACHER_KINDS[kind](load_file(file)).to(device, dtype)
    teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return teacher
