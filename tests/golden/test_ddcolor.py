"""DDColor against the official program: folded weights, every part, the whole network, Lab, and whole pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from tests.golden.cases import Case, cases, each, off_by
from tests.golden.ddcolor_tiny import MODEL, network
from torch import Tensor, nn

from srcli.engines.ddcolor.engine import DDColorEngine, paint, prepare_input
from srcli.engines.ddcolor.weights import build_ddcolor
from srcli.engines.runtime.device import Device
from srcli.imaging.chroma import lab_to_rgb, levels_to_unit, rgb_to_lab
from srcli.models.ddcolor import (
    LARGE_SHAPE,
    TINY_SHAPE,
    Shape,
    convert_official,
    encode_positions,
    fold_spectral_norm,
    normalize,
)
from srcli.settings import NEAREST
from srcli.weights.open import load_state

NETWORK, EXACT = 2e-5, 1e-6


@contextmanager
def outputs(parts: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """What these parts return while something runs."""
    seen: dict[str, Tensor] = {}
    hooks = [
        part.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name, part in parts.items()
    ]
    yield seen
    for hook in hooks:
        hook.remove()


@each("ddcolor", "d01*")
def test_folded_weights(case: Case) -> None:
    folded = fold_spectral_norm(load_state(MODEL))
    for name, want in case.tensors.items():
        assert off_by(folded[name], want) < NETWORK, name


@each("ddcolor", "d02*")
def test_encoder(case: Case) -> None:
    encoder = network().encoder
    stages = encoder.encoder.stages
    parts = {"down0": encoder.embeddings, **{f"stage{i}": stage for i, stage in enumerate(stages)}}
    parts |= {f"down{i}": stage.downsampling_layer[-1] for i, stage in enumerate(stages) if i}
    with outputs(parts) as seen:
        maps = network().encode(normalize(case.tensors["input"]))
    seen |= {f"norm{i}": level for i, level in enumerate(maps)}
    for name in case.tensors.keys() - {"input"}:
        assert off_by(seen[name], case.tensors[name]) < NETWORK, name


@each("ddcolor", "d03*")
def test_pixel_decoder(case: Case) -> None:
    decoder = network().decoder
    with outputs({f"shuf{i}": layer.shuf for i, layer in enumerate(decoder.layers)}) as seen:
        levels = decoder.decode(tuple(case.tensors[f"norm{i}"] for i in range(4)))
    seen |= {f"out{i}": level for i, level in enumerate(levels)} | {"out3": decoder.last_shuf(levels[-1])}
    for name, got in seen.items():
        assert off_by(got, case.tensors[name]) < NETWORK, name


@each("ddcolor", "d04*")
def test_color_decoder(case: Case) -> None:
    decoder, levels = network().decoder.color_decoder, [case.tensors[f"out{i}"] for i in range(3)]
    parts = {f"proj{i}": layer for i, layer in enumerate(decoder.input_proj)}
    for i in range(network().shape.layers):
        parts[f"layer{i}.cross"] = decoder.transformer_cross_attention_layers[i]
        parts[f"layer{i}.self"] = decoder.transformer_self_attention_layers[i]
        parts[f"layer{i}.ffn"] = decoder.transformer_ffn_layers[i]
    with outputs(parts) as seen:
        colors = decoder(levels)
    seen |= {"color_embed": colors, "queries_map": torch.einsum("bqc,bchw->bqhw", colors, case.tensors["out3"])}
    for name, got in seen.items():
        assert off_by(got, case.tensors[name]) < NETWORK, name
    for i in range(3):
        want = case.tensors[f"pos{i}"]
        positions = encode_positions(*want.shape[2:], want.shape[1]).expand_as(want)
        assert off_by(positions, want) < EXACT


@each("ddcolor", "d05*")
def test_network(case: Case) -> None:
    assert off_by(network()(case.tensors["input"]), case.tensors["ab"]) < NETWORK


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases("ddcolor", "d05*")[0]
    monkeypatch.setattr("srcli.models.ddcolor.BAND", 1)
    assert off_by(network()(case.tensors["input"]), case.tensors["ab"]) < NETWORK


@each("ddcolor", "d06*")
def test_lab(case: Case) -> None:
    pairs = (("rgb", "rgb_to_lab", rgb_to_lab), ("grey", "grey_to_lab", rgb_to_lab))
    pairs += (("lab", "lab_to_rgb", lab_to_rgb), ("l_only", "l_only_to_rgb", lab_to_rgb))
    for given, wanted, convert in pairs:
        got = torch.from_numpy(convert(case.tensors[given].numpy()))
        assert off_by(got, case.tensors[wanted]) < EXACT, wanted


@each("ddcolor", "d07*")
def test_whole_pictures(case: Case) -> None:
    picture, want = case.tensors["input_u8"].numpy(), case.tensors
    side = int(case.notes["size"])
    engine = DDColorEngine(network(), Device(torch.device("cpu"), torch.float32), {})
    shown = torch.from_numpy(prepare_input(picture, side)).permute(2, 0, 1)[None]
    assert off_by(shown, want["gray_rgb"]) < EXACT
    assert off_by(torch.from_numpy(rgb_to_lab(levels_to_unit(picture))[..., :1]), want["luma_l"]) < EXACT
    ab = engine.predict(picture, side)
    assert off_by(torch.from_numpy(ab).permute(2, 0, 1)[None], want["ab"]) < NETWORK
    rgb = paint(picture, ab, NEAREST)[0].permute(1, 2, 0)
    off = np.abs((rgb.numpy() * 255).round() - want["output_u8"].numpy())
    assert off.max() <= 1 and (off > 0).mean() < 0.005


SHAPES = {"tiny.keys": TINY_SHAPE, "large.keys": LARGE_SHAPE}


@each("ddcolor", "*.keys", "manifest")
def test_full_size_keys(case: Case) -> None:
    """Every tensor of the official files has its place, in the right shape, and nothing is left over."""
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in case.notes.items()}
    shape = Shape.from_state(state)
    assert shape == SHAPES[case.name]
    got = {name: tensor.shape for name, tensor in convert_official(state).items()}
    assert got == {name: tensor.shape for name, tensor in build_ddcolor(shape).state_dict().items()}


@each("ddcolor", "summary", "manifest")
def test_full_size_counts(case: Case) -> None:
    for variant, shape in (("tiny", TINY_SHAPE), ("large", LARGE_SHAPE)):
        with torch.device("meta"):
            model = build_ddcolor(shape)
        unused = 2 * shape.widths[-1]  # the encoder's last norm, which inference does not use
        decoder = model.decoder
        assert {
            "encoder": count_parameters(model.encoder) + unused,
            "pixel_decoder": count_parameters(decoder.layers),
            "last_shuf": count_parameters(decoder.last_shuf),
            "color_decoder": count_parameters(decoder.color_decoder),
            "refine_net": count_parameters(model.merge),
        } == case.notes[variant]["parts"]
        assert count_parameters(model) + unused == case.notes[variant]["parameters"]


def count_parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())
