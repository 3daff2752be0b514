"""Compiled parts give what plain ones give. The compiler's front is the real one; code is left as it is found."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from srcli.models.patches.compiled import Compiled, find_compilable
from srcli.models.patches.install import install
from srcli.models.patches.text_kv_cache import TextKvProcessor


class Net(nn.Module):
    """A part of each kind that repeats in a UNet, and one with a hook inside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.plain, self.hooked = (ResnetBlock2D(in_channels=32, temb_channels=8) for _ in range(2))
        self.hooked.conv2.register_forward_hook(lambda _site, _args, out: 3 * out)
        self.text = BasicTransformerBlock(32, 2, 16, cross_attention_dim=8)
        self.text.attn2.set_processor(TextKvProcessor())
        self.requires_grad_(False)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        step = text[:, 0]
        x = self.hooked(self.plain(x, step), step)
        tokens = self.text(x.flatten(2).transpose(1, 2), encoder_hidden_states=text)
        return tokens.transpose(1, 2).reshape(x.shape)


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch.compiler.reset()


def inputs(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 32, 4, 4, generator=generator), torch.randn(2, 7, 8, generator=generator)


@torch.inference_mode()
def test_compiled_parts_give_the_same_and_another_text_compiles_nothing_anew(said):
    plain, made = Net(), []

    def backend(graph, _inputs):
        made.append(graph)
        return graph.forward

    quick = deepcopy(plain)
    install([quick], Compiled(backend))
    for seed in (1, 1, 2):
        given = inputs(seed)
        torch.testing.assert_close(quick(*given), plain(*given), rtol=1e-6, atol=1e-6)
        if seed == 1:
            graphs = len(made)
    assert len(made) == graphs > 1
    assert not said


def test_a_part_with_a_hook_inside_is_left_out():
    net = Net()
    assert list(find_compilable(net)) == [net.plain, net.text]


@torch.inference_mode()
def test_what_fails_in_compiling_is_said_once_and_the_result_is_the_same(said):
    plain, tried = Net(), []

    def backend(_graph, _inputs):
        tried.append(1)
        raise RuntimeError("no\ncompiler here")

    quick, given = deepcopy(plain), inputs(1)
    install([quick], Compiled(backend))
    assert torch.equal(quick(*given), plain(*given))
    assert torch.equal(quick(*given), plain(*given))
    assert len(tried) == len(said) == 1
    assert "no compiler here" in said[0]


@torch.inference_mode()
def test_memory_that_runs_out_is_left_to_others(said):
    quick = Net()

    def backend(_graph, _inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    install([quick], Compiled(backend))
    with pytest.raises(Exception, match="out of memory"):
        quick(*inputs(1))
    assert not said
