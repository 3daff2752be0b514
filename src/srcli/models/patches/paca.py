"""PASD's pixel-aware cross attention (PACA), as hooks on a stock UNet.

Each decoder layer attends to the ControlNet residual that is added to its skip connection. Since these are forward
hooks, PACA works with any base, and its `state_dict()` is its part of the official checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from diffusers import Transformer2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from srcli.models.patches.changes import Undo
from srcli.models.stock import list_heads, list_skip_widths


class PixelAware(nn.Module):
    """Base of both forms of PACA: holds the current residuals, of which each decoder layer attends to one."""

    up_blocks: Any

    def __init__(self) -> None:
        super().__init__()
        self._residuals: Sequence[Tensor] | None = None

    @contextmanager
    def attending(self, residuals: Sequence[Tensor]) -> Iterator[None]:
        """A context in which the UNet attends to these ControlNet residuals. Outside PACA is inactive."""
        self._residuals = residuals
        try:
            yield
        finally:
            self._residuals = None

    def patch_layers(self, net: nn.Module) -> Iterator[Undo]:
        """Add hooks to the decoder layers of a UNet."""
        raise NotImplementedError

    def _context(self, index: int) -> Tensor | None:
        return None if self._residuals is None else self._residuals[index]


class Paca(PixelAware):
    """The full form: a transformer after each of the twelve decoder layers."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.up_blocks = nn.ModuleList()
        for widths, width, count in _levels(config):
            block = nn.Module()
            block.pixel_attentions = nn.ModuleList(_transformer(config, width, count, context) for context in widths)
            self.up_blocks.append(block)

    def patch_layers(self, net: nn.Module) -> Iterator[Undo]:
        blocks: Any = net.up_blocks
        index = _count(blocks)
        for block, own in zip(blocks, self.up_blocks, strict=True):
            sites = getattr(block, "attentions", block.resnets)
            for site, attention in zip(sites, own.pixel_attentions, strict=True):
                index -= 1
                yield site.register_forward_hook(partial(self._attend, attention, index)).remove

    def _attend(self, attention: nn.Module, index: int, _site: nn.Module, _args: object, out: Any) -> Any:
        context = self._context(index)
        if context is None:
            return out
        hidden = out[0] if isinstance(out, tuple) else out
        hidden = attention(hidden, encoder_hidden_states=_tokens(context), return_dict=False)[0]
        return (hidden,) if isinstance(out, tuple) else hidden


class LightPaca(PixelAware):
    """The light form: one more cross attention in each text transformer of the decoder, after the text attention."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        linear = bool(config.get("use_linear_projection"))
        self.up_blocks = nn.ModuleList()
        for index, (widths, width, count) in enumerate(_levels(config)):
            block = nn.Module()
            if "CrossAttn" in config["up_block_types"][index]:
                block.attentions = nn.ModuleList(_Extra(width, count, context, linear) for context in widths)
            self.up_blocks.append(block)

    def patch_layers(self, net: nn.Module) -> Iterator[Undo]:
        blocks: Any = net.up_blocks
        index = _count(blocks)
        for block, own in zip(blocks, self.up_blocks, strict=True):
            extras = getattr(own, "attentions", [None] * len(block.resnets))
            for layer, extra in enumerate(extras):
                index -= 1
                if extra is not None:
                    inner = block.attentions[layer].transformer_blocks[0]
                    yield inner.norm2.register_forward_pre_hook(partial(self._remember, extra)).remove
                    yield inner.attn2.register_forward_hook(partial(self._attend, extra, index)).remove

    def _remember(self, extra: _Extra, _norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Store the hidden state to which the text attention's output is added afterwards."""
        extra.before = None if self._residuals is None else args[0]

    def _attend(self, extra: _Extra, index: int, _site: nn.Module, _args: object, out: Tensor) -> Tensor:
        context = self._context(index)
        return out if context is None else extra(out, context)


class _Extra(nn.Module):
    """The light form's layers in one text transformer."""

    transformer_blocks: Any

    def __init__(self, width: int, count: int, context: int, linear: bool) -> None:
        super().__init__()
        self.proj_in_plus = nn.Linear(context, context) if linear else nn.Conv2d(context, context, 1)
        block = nn.Module()
        block.norm2_plus = nn.LayerNorm(width)
        block.attn2_plus = Attention(width, context, heads=count, dim_head=width // count)
        self.transformer_blocks = nn.ModuleList([block])
        self.before: Tensor | None = None

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        """The text attention's output plus that of the pixel attention."""
        if isinstance(self.proj_in_plus, nn.Linear):
            tokens = self.proj_in_plus(_tokens(context))
        else:
            tokens = _tokens(self.proj_in_plus(context))
        hidden = text if self.before is None else text + self.before
        self.before, block = None, self.transformer_blocks[0]
        extra: Tensor = block.attn2_plus(block.norm2_plus(hidden), encoder_hidden_states=tokens)
        return text + extra


def _count(blocks: Iterable[Any]) -> int:
    """How many residuals these decoder blocks use: one per layer, the first layer the last of them."""
    return sum(len(block.resnets) for block in blocks)


def _levels(config: Mapping[str, Any]) -> Iterator[tuple[list[int], int, int]]:
    """For each decoder block, first to last: the widths of its residuals, its own width, its attention heads."""
    residuals = list_skip_widths(config)[::-1]
    layers = config["layers_per_block"] + 1
    outer = zip(reversed(config["block_out_channels"]), reversed(list_heads(config)), strict=True)
    for index, (width, count) in enumerate(outer):
        yield residuals[index * layers : (index + 1) * layers], width, count


def _transformer(config: Mapping[str, Any], width: int, count: int, context: int) -> nn.Module:
    transformer: nn.Module = Transformer2DModel(
        num_attention_heads=count,
        attention_head_dim=width // count,
        in_channels=width,
        cross_attention_dim=context,
        norm_num_groups=config["norm_num_groups"],
        use_linear_projection=bool(config.get("use_linear_projection")),
        upcast_attention=bool(config.get("upcast_attention")),
    )
    return transformer


def _tokens(picture: Tensor) -> Tensor:
    return picture.flatten(2).transpose(1, 2)
