"""PASD's training against the official program: data, initialisation, losses, gradients, weights after steps."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image
from tests.golden.cases import ROOT, Case, each, off_by, picture
from tests.golden.pasd_models import nets, opened, text_parts, vae
from tests.golden.trained import check_gradients, check_norms, check_weights
from torch import Tensor, nn

from srcli.models.patches.install import install
from srcli.models.stock import build_stock
from srcli.train.pairs import enlarge_small, grey_condition
from srcli.train.systems.diffusion import cumulated_alphas
from srcli.train.systems.pasd_networks import new_control, new_paca
from srcli.train.systems.pasd_step import COLOR_WEIGHT, PasdInputs, PasdStep, measure_colorlessness

PASD = ROOT / "pasd"
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction"}


def step_of(case: Case) -> PasdStep:
    """The step over copies of the tiny networks, so that tests can train them."""
    unet, paca, control = copy.deepcopy(nets(PASD, case.notes["kind"]))
    # A copied UNet keeps hooks on the original adapters: attach the copies in their place.
    for module in unet.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    install([unet], paca)
    paca.requires_grad_(True)
    control.requires_grad_(True)
    folder = "base" if case.notes["prediction"] == "eps" else "pasd_color"
    schedule = json.loads((PASD / "tiny" / folder / "scheduler" / "scheduler_config.json").read_text())
    weight = COLOR_WEIGHT * case.notes["batch"] if case.notes["control_type"] == "grayscale" else 0.0
    prediction = PREDICTIONS[case.notes["prediction"]]
    return PasdStep(control, paca, unet, vae(PASD), cumulated_alphas(schedule), prediction, weight)


def inputs_of(case: Case, prefix: str) -> PasdInputs:
    t = case.under(prefix)
    with torch.no_grad():
        text = text_parts(PASD)[1](t["input_ids"]).last_hidden_state
    target, condition = (picture(t[name].permute(0, 3, 1, 2)).contiguous() for name in ("hq_u8", "lq_u8"))
    return PasdInputs(target * 2 - 1, condition, text, t["posterior_noise"], t["noise"], t["timesteps"])


def parameter(step: PasdStep, name: str) -> nn.Parameter:
    part, _, rest = name.partition(".")
    return (step.control if part == "controlnet" else step.paca).get_parameter(rest)


def losses(case: Case, index: int) -> list[float]:
    """The official terms: diffusion, three L1, and colour where there is some."""
    told = case.notes["micro"][index]["losses"]
    kinds = [[value for name, value in told if name.startswith(kind)] for kind in ("mse", "l1", "color")]
    return [*kinds[0], *kinds[1], *([0.001 * sum(kinds[2])] if kinds[2] else [])]


@each("pasd_training", "p0[123]*", ".")
def test_steps(case: Case) -> None:
    step, notes = step_of(case), case.notes
    parameters = [p for p in step.parameters() if p.requires_grad]
    assert len(parameters) == notes["with_gradient"]
    optimizer = torch.optim.AdamW(parameters, notes["lr"], tuple(notes["betas"]), notes["eps"], notes["weight_decay"])
    for index in range(notes["steps"]):
        loose = 1 if index == 0 else 50  # steps amplify what rounding leaves
        optimizer.zero_grad()
        terms, seen = watched(step, inputs_of(case, f"m{index}."))
        for got, want in zip(list(terms.values())[1:], losses(case, index), strict=True):
            assert abs(got.item() / want - 1) < 1e-5 * loose, index
        assert abs(terms["loss"].item() / notes["micro"][index]["total"] - 1) < 1e-5 * loose
        for name, value in seen.items():
            want = case.tensors.get(f"m{index}.{name}")
            assert want is None or off_by(value, want) < 2e-5 * loose, name
        terms["loss"].backward()
        norm = nn.utils.clip_grad_norm_(parameters, notes["max_grad_norm"])
        assert abs(norm.item() / notes["grad_norm_before_clip"][index] - 1) < 1e-4 * loose
        if index == 0:
            check_norms(lambda name: parameter(step, name), notes["grad_norms_after_clip"], 2e-3, 1e-5)
            check_gradients(lambda name: parameter(step, name), case, 2e-3)
        optimizer.step()
        if index == 0:
            check_weights(lambda name: parameter(step, name), case.under("after1."), notes["lr"], 0.02)
    step.close()


def watched(step: PasdStep, inputs: PasdInputs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The loss terms, and what the networks gave on the way."""
    seen: dict[str, Tensor] = {}
    hooks = [step._frozen[0].register_forward_hook(lambda _m, _a, out: seen.update(model_pred=out[0]))]
    for number, head in enumerate(step.control.controlnet_cond_embedding.to_rgbs):
        hooks.append(head.register_forward_hook(lambda _m, _a, out, n=number: seen.update({f"rgb_{n}": out})))
    terms = step(inputs)
    for hook in hooks:
        hook.remove()
    return terms, seen


@each("pasd_training", "p00*", ".")
def test_colourfulness(case: Case) -> None:
    colors = case.tensors["colorful_in"].clone().requires_grad_()
    value = measure_colorlessness(colors).sum()
    value.backward()
    assert abs(value.item() / case.notes["colorful_value"] - 1) < 1e-5
    assert off_by(colors.grad, case.tensors["colorful_grad"]) < 1e-5


@each("pasd_training", "p00*", ".")
def test_small_pictures_are_enlarged(case: Case) -> None:
    for told in case.notes["resize_small"]:
        blank = Image.new("RGB", tuple(told["size"]))
        assert list(enlarge_small(blank, 512).size) == told["out"]


@each("pasd_training", "p00*", ".")
def test_enlarged_and_grey_pixels(case: Case) -> None:
    rgb = Image.fromarray(case.tensors["rgb_u8"].numpy())
    want = case.tensors["enlarged_minsize40_u8"]
    assert torch.equal(torch.from_numpy(np.array(enlarge_small(rgb, 40))), want)
    grey = (grey_condition(picture(case.tensors["rgb_u8"]))[0].permute(1, 2, 0) * 255).round().byte()
    assert torch.equal(grey, case.tensors["gray_u8"])


@each("pasd_training", "p00*", ".")
def test_initialisation(case: Case) -> None:
    torch.manual_seed(1)
    unet = nets(PASD, "pasd").unet
    told = case.notes["controlnet_from_unet"]
    control = new_control(unet, tuple(told["conditioning_embedding_out_channels"]))
    state = control.state_dict()
    assert sorted(name for name, value in state.items() if not value.any()) == sorted(told["zero"])
    copied = [name for name, value in state.items() if name in unet.state_dict() and value.any()]
    assert len(copied) == told["copied"]
    assert all(torch.equal(state[name], unet.state_dict()[name]) for name in copied)
    assert set(state) == set(told["zero"]) | set(told["random"]) | set(copied)
    first = state["controlnet_cond_embedding.conv_in.weight"]
    bound = (3 * 9) ** -0.5
    assert 0.9 * bound < first.abs().max() <= bound


@each("pasd_training", "p00*", ".")
@pytest.mark.parametrize("kind", ["pasd", "pasd_light"])
def test_new_unet_layers(case: Case, kind: str) -> None:
    told = case.notes[kind]
    state = new_paca(nets(PASD, kind).unet.config, light=kind == "pasd_light").state_dict()
    assert len(state) == told["new_keys"]
    zero = {name for name, value in state.items() if not value.any()}
    ones = {name for name, value in state.items() if (value == 1).all()}
    assert zero == {name for name in state if name.endswith(tuple(told["new_zero"]))}
    assert ones == {name for name in state if name.endswith(tuple(told["new_ones"]))}


@pytest.mark.parametrize("light", [False, True])
def test_a_zero_start_changes_nothing(light: bool) -> None:
    kind = "pasd_light" if light else "pasd"
    unet = copy.deepcopy(nets(PASD, kind).unet)
    for module in unet.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    x, t, text = torch.randn(1, 4, 8, 8), torch.tensor([7]), torch.randn(1, 77, 32)
    plain = unet(x, t, text).sample
    paca, control = new_paca(unet.config, light, zero=True), new_control(unet, (8, 12, 16, 24))
    install([unet], paca)
    with torch.no_grad():
        down, middle = control(x, t, text, torch.rand(1, 3, 64, 64), return_dict=False)
        with paca.attending(down):
            led = unet(x, t, text, down_block_additional_residuals=down, mid_block_additional_residual=middle).sample
    assert torch.equal(led, plain)


@each("pasd_training", "p00*", ".")
def test_rrdb_start(case: Case) -> None:
    config = opened(PASD / "tiny" / "pasd" / "unet")[0]
    unet = build_stock(type(nets(PASD, "pasd").unet), config).to_empty(device="cpu")
    control: ControlNetModel = new_control(unet, (64, 32, 32, 32), rrdb=True)
    blocks = control.controlnet_cond_embedding.preprocesser
    for name, value in blocks.state_dict().items():
        if name.endswith("bias"):
            assert not value.any()
        else:
            want = 0.1 * (2 / value[0].numel()) ** 0.5
            assert abs(value.std().item() / want - 1) < 0.1, name
