"""SR3's U-Net against the official one: embeddings, blocks, whole passes, and the full-size key lists."""

import json

import pytest
import torch
from tests.golden.cases import ROOT, Case, cases, each, off_by
from tests.golden.sr3_tiny import model_of, network

from srcli.models.sr3_unet import (
    LevelEncoding,
    LevelShift,
    SR3Attention,
    SR3Shape,
    SR3UNet,
    StepEncoding,
    extract_network_state,
)

FORWARD = 2e-5
PHASE = 1e-4  # of sines of up to 999 radians: a frequency rounded the other way, by 2**-24, moves them by 6e-5


@each("sr3", "s01*")
def test_embeddings(case: Case) -> None:
    inputs = {"sr3": case.tensors["levels"], "ddpm": case.tensors["times"]}
    encodings = {"sr3": LevelEncoding, "ddpm": StepEncoding}
    for key, want in case.tensors.items():
        variant, _, what = key.partition("_")
        if what.startswith("encoding_"):
            got = encodings[variant](int(what.removeprefix("encoding_")))(inputs[variant])
        elif what:
            got = network(variant).get_submodule(what)(inputs[variant])
        else:
            continue
        assert off_by(got, want) < PHASE, key


@each("sr3", "s02*")
def test_attention(case: Case) -> None:
    width = case.tensors["attn.norm.weight"].numel()
    for key, heads in (("attn_out", 1), ("attn4_out_same_weights", 4)):
        groups = matching_groups(case, width, heads, key)
        assert groups, f"{key}: no number of norm groups gives the official values"


def matching_groups(case: Case, width: int, heads: int, key: str) -> list[int]:
    """The vectors do not say how many groups their norm has; one must fit."""
    fits = []
    for groups in (n for n in range(1, width + 1) if width % n == 0):
        attention = SR3Attention(width, groups, heads)
        attention.load_state_dict(case.under("attn."))
        fits += [groups] if off_by(attention(case.tensors["attn_x"]), case.tensors[key]) < FORWARD else []
    return fits


@each("sr3", "s02*")
def test_scale_and_shift(case: Case) -> None:
    shift = LevelShift(case.tensors["affine_emb"].shape[-1], case.tensors["attn_x"].shape[1], affine=True)
    shift.load_state_dict({f"noise_func.{k}": v for k, v in case.under("affine.noise_func.").items()})
    got = shift(case.tensors["attn_x"], case.tensors["affine_emb"])
    assert off_by(got, case.tensors["affine_out"]) < FORWARD


@each("sr3", "s03*")
def test_whole_pass(case: Case) -> None:
    unet, seen = network(model_of(case)), {}
    for name in case.notes.get("block_stats", {}):
        unet.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    got = unet(case.tensors["x"], case.tensors["t"])
    for name, (shape, mean, deviation) in case.notes.get("block_stats", {}).items():
        assert list(seen[name].shape) == shape, name
        found = [[float(f(part)) for part in (seen[name], seen[name][0])] for f in (torch.mean, torch.std)]
        assert min(abs(m - mean) + abs(s - deviation) for m, s in zip(*found, strict=True)) < 1e-4, name
    assert off_by(got, case.tensors["out"]) < FORWARD


def full_size() -> list[str]:
    names = [case.name for case in cases("sr3", "*", "manifest")]
    return [name for name in names if name not in ("configs", "summary")]


@pytest.mark.parametrize("name", full_size())
def test_full_size_keys(name: str) -> None:
    folder = ROOT / "sr3" / "manifest"
    manifest = json.loads((folder / f"{name}.json").read_text())
    config = json.loads((folder / "configs.json").read_text())[name]
    with torch.device("meta"):
        unet = SR3UNet(SR3Shape.from_config(config["model"]))
        checkpoint = {key: torch.empty(shape) for key, shape in manifest.items()}
    state = extract_network_state(checkpoint)
    assert {k: v.shape for k, v in unet.state_dict().items()} == {k: v.shape for k, v in state.items()}
    steps = config["model"]["beta_schedule"]["val"]["n_timestep"]
    left = {k: list(v.shape) for k, v in checkpoint.items() if k.removeprefix("denoise_fn.") not in state}
    assert len(left) == 12 and all(shape == [steps] for shape in left.values()), "only schedules are left behind"
    summary = json.loads((folder / "summary.json").read_text())[name]
    assert (len(state), sum(v.numel() for v in state.values())) == (summary["keys"], summary["params"])


@pytest.mark.parametrize("name", full_size())
def test_shape_is_read_off_a_checkpoint(name: str) -> None:
    folder = ROOT / "sr3" / "manifest"
    config = json.loads((folder / "configs.json").read_text())[name]["model"]
    want = SR3Shape.from_config(config | {"unet": config["unet"] | {"dropout": 0.0}})
    with torch.device("meta"):
        assert SR3Shape.from_state(SR3UNet(want).state_dict()) == want
