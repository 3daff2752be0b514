"""StableSR's and CFW's training steps against the official code, from pictures to weights after an update."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from tests.golden.cases import Case, each, off_by, picture
from tests.golden.stablesr_tiny import UNET, tiny
from tests.golden.trained import check_gradients, check_norms, check_weights
from torch import Tensor, nn

from srcli.models import lpips as lpips_model
from srcli.models.cfw import Wrapping
from srcli.models.patches.install import install
from srcli.models.patches.spade import Modulation, to_diffusers_path
from srcli.models.patchgan import PatchGan, initialize_weights
from srcli.models.time_encoder import TimeEncoder
from srcli.sampling.ancestral import make_scaled_linear_betas
from srcli.train.systems.cfw_step import (
    CfwDiscriminatorStep,
    CfwGeneratorStep,
    CfwInputs,
    adaptive_weight,
    gan_factor,
    hinge_loss,
    reconstruct_picture,
)
from srcli.train.systems.diffusion import sample_latents
from srcli.train.systems.stablesr_step import StableSRInputs, StableSRStep, initialize_encoder

ENCODER, FUSION, JUDGE = "structcond_stage_model.", "decoder.", "loss.discriminator."
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction"}


def diffusion_step(case: Case) -> StableSRStep:
    """The step over copies of the tiny networks."""
    model = tiny()
    unet, encoder, modulation = (copy.deepcopy(net) for net in (model.unet, model.encoder, model.modulation))
    for module in unet.modules():
        module._forward_hooks.clear()
    install([unet], modulation)
    for net in (encoder, modulation):
        net.requires_grad_(True)
    alphas = (1 - make_scaled_linear_betas()).cumprod(0).float()
    return StableSRStep(encoder, modulation, unet, model.vae, alphas, PREDICTIONS[case.notes["parameterization"]])


def diffusion_inputs(case: Case) -> StableSRInputs:
    t = case.tensors
    target = t["gt"] if "gt" in t else picture(t["gt_u8"]) * 2 - 1
    degraded = t.get("lq", target.clamp(-1, 1))
    noises = (t["posterior_noise_lq"], t["posterior_noise_gt"], t["t"], t["noise"])
    return StableSRInputs(target, degraded, t["context"], *noises)


def diffusion_parameter(step: StableSRStep, name: str) -> nn.Parameter:
    if name.startswith(ENCODER):
        return step.encoder.get_parameter(name.removeprefix(ENCODER))
    return step.modulation.get_parameter(to_diffusers_path(name.removeprefix(UNET)))


@each("stablesr_training", "t01*", ".")
def test_diffusion_step(case: Case) -> None:
    step, inputs, notes, t = diffusion_step(case), diffusion_inputs(case), case.notes, case.tensors
    parameters = list(step.parameters())
    assert len(parameters) == notes["with_gradient"]
    vae = tiny().vae
    for pictures, noise, key in (("degraded", "noise_degraded", "z_lq"), ("target", "noise_target", "z_gt")):
        got = sample_latents(vae, getattr(inputs, pictures), getattr(inputs, noise))
        assert off_by(got, t[key]) < 2e-5, key
    seen: dict[str, Tensor] = {}
    step.encoder.register_forward_hook(lambda _m, _a, maps: seen.update({f"struct_{m.shape[-1]}": m for m in maps}))
    step._frozen[0].register_forward_hook(lambda _m, _a, out: seen.update(model_output=out[0]))
    step._frozen[0].register_forward_pre_hook(lambda _m, args: seen.update(x_noisy=args[0]))
    loss = step(inputs)["loss"]
    for name, value in seen.items():
        assert off_by(value, t[name]) < 2e-5, name
    assert abs(loss.item() / notes["loss"] - 1) < 1e-5
    loss.backward()
    step.close()
    check_norms(lambda name: diffusion_parameter(step, name), notes["grad_norms"], 5e-3, 1e-4)
    check_gradients(lambda name: diffusion_parameter(step, name), case, 1e-2)
    torch.optim.AdamW(parameters, notes["optimizer"]["lr"]).step()
    check_weights(lambda name: diffusion_parameter(step, name), case.under("after1."), 5e-5, 0.05)


@each("stablesr_training", "t00*", ".")
def test_initialisation(case: Case) -> None:
    model = tiny()
    encoder = initialize_encoder(TimeEncoder(model.encoder.shape))
    fresh = Modulation(model.unet, 32)
    ours = {f"{ENCODER}{name}": value for name, value in encoder.state_dict().items()}
    zero = {name for name, value in ours.items() if not value.any()}
    assert zero == {name for name in case.notes["zero_initialised"] if name.startswith(ENCODER)}
    ours |= {name: value for name, value in fresh.state_dict().items()}
    assert len(ours) == case.notes["trainable"]
    paths = {to_diffusers_path(n.removeprefix(UNET)) for n in case.notes["zero_initialised"] if n.startswith(UNET)}
    assert paths == {name for name, value in fresh.state_dict().items() if not value.any()}


@each("stablesr_training", "c01*", ".")
def test_pieces(case: Case) -> None:
    t, notes = case.tensors, case.notes
    for index, want in enumerate(notes["adaptive_weight"]["values"]):
        got = adaptive_weight(t[f"aw{index}.nll_grad"], t[f"aw{index}.g_grad"])
        assert abs(got.item() / want - 1) < 1e-4
    assert abs(hinge_loss(t["logits_real"], t["logits_fake"]).item() / notes["hinge"] - 1) < 1e-5
    assert {step: gan_factor(int(step)) for step in notes["adopt"]} == notes["adopt"]


@each("stablesr_training", "c01*", ".")
def test_discriminator(case: Case) -> None:
    t, state = case.tensors, case.under("d.")
    net = PatchGan(state["main.0.weight"].shape[0])
    net.load_state_dict(state)
    assert off_by(net.train()(t["d_in"]), t["d_out_train"]) < 1e-5
    assert off_by(net.main[3].running_mean, t["d_running_mean_after"]) < 1e-5
    assert off_by(net.main[3].running_var, t["d_running_var_after"]) < 1e-5
    assert off_by(net.eval()(t["d_in"]), t["d_out_eval_after"]) < 1e-5


def opened_lpips(case: Case) -> lpips_model.Lpips:
    state = case.under("lpips.")
    net = lpips_model.build_lpips(state).to_empty(device="cpu")
    net.load_state_dict(state)
    return net.requires_grad_(False)


@each("stablesr_training", "c01*", ".")
def test_lpips(case: Case) -> None:
    t, net = case.tensors, opened_lpips(case)
    other = t["lp_b"].clone().requires_grad_()
    value = net(t["lp_a"], other)
    assert off_by(value, t["lp_value"]) < 1e-5
    value.sum().backward()
    assert off_by(other.grad, t["lp_grad_b"]) < 1e-5


class Cfw(NamedTuple):
    """Copies of the networks, and both steps over them."""

    wrapping: Wrapping
    judge: PatchGan
    generator: CfwGeneratorStep
    discriminator: CfwDiscriminatorStep


def cfw_of(case: Case) -> Cfw:
    wrapping = copy.deepcopy(tiny().wrapping).requires_grad_(True)
    state = case.under("disc.")
    judge = PatchGan(state["main.0.weight"].shape[0])
    judge.load_state_dict(state)
    vae, adaptive = tiny().vae, not case.notes["freeze_decoder"]
    per_sample = 1 / case.notes["batch"]  # the official code divides the mean by the batch once more
    generator = CfwGeneratorStep(wrapping, vae, opened_lpips(case), judge, adaptive, per_sample)
    return Cfw(wrapping, judge, generator, CfwDiscriminatorStep(judge, wrapping, vae))


def cfw_inputs(case: Case) -> CfwInputs:
    target, degraded = (
        picture(case.tensors[name].permute(0, 3, 1, 2)).contiguous() * 2 - 1 for name in ("gt_u8", "lq_u8")
    )
    return CfwInputs(target, degraded, case.tensors["latent"], case.notes["global_step"])


def cfw_parameter(cfw: Cfw, name: str) -> nn.Parameter:
    if name.startswith(JUDGE):
        return cfw.judge.get_parameter(name.removeprefix(JUDGE))
    return cfw.wrapping.get_parameter(name.removeprefix(FUSION))


def fusion_only(norms: dict[str, float]) -> dict[str, float]:
    return {name: norm for name, norm in norms.items() if "fusion_layer_" in name}


@each("stablesr_training", "c02*", ".")
def test_cfw_steps(case: Case) -> None:
    cfw, inputs, t, notes = cfw_of(case), cfw_inputs(case), case.tensors, case.notes

    def find(name: str) -> nn.Parameter:
        return cfw_parameter(cfw, name)

    optimizers = [torch.optim.Adam(step.parameters(), 5e-5, (0.5, 0.9)) for step in (cfw.generator, cfw.discriminator)]
    assert off_by(reconstruct_picture(tiny().vae, cfw.wrapping, inputs), t["reconstruction"]) < 2e-5
    told = notes["generator"]
    terms = cfw.generator(inputs)
    assert abs(terms["loss"].item() / told["loss"] - 1) < 1e-5
    assert abs(terms["reconstruction"].item() / told["log"]["train/nll_loss"] - 1) < 1e-5
    assert abs(terms["g"].item() - told["log"]["train/g_loss"]) < 2e-4 * abs(told["log"]["train/g_loss"])
    assert abs(terms["d_weight"].item() / told["log"]["train/d_weight"] - 1) < 1e-4
    terms["loss"].backward()
    check_norms(find, fusion_only(told["grad_norms"]), 5e-3, 1e-4)
    assert all(parameter.grad is None for parameter in cfw.judge.parameters())
    optimizers[0].step()
    if not notes["freeze_decoder"]:  # there the whole VAE moves with it, which nobody wants
        return
    told = notes["discriminator"]
    terms = cfw.discriminator(inputs)
    if told["loss"]:
        assert abs(terms["loss"].item() / told["loss"] - 1) < 1e-4
    terms["loss"].backward()
    if told["loss"]:
        check_norms(find, told["grad_norms"], 5e-3, 1e-4)
    else:
        assert not any(parameter.grad.any() for parameter in cfw.judge.parameters())
    for name, want in case.under("grad.").items():
        assert off_by(find(name).grad, want) < 1e-2 or max(find(name).grad.abs().max(), want.abs().max()) < 1e-6, name
    optimizers[1].step()
    check_weights(find, case.under("after1."), 5e-5, 0.05)
    for name, want in case.under("disc_buffer_after.").items():
        assert off_by(cfw.judge.state_dict()[name], want) < 1e-4, name


def test_discriminator_start() -> None:
    net = initialize_weights(PatchGan(16), torch.Generator().manual_seed(1))
    assert net.main[8].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert net.main[9].weight.mean().item() == pytest.approx(1.0, rel=0.05)
    assert not net.main[9].bias.any()


@each("stablesr_training", "t01*", ".")
def test_channels_last_pictures_do_not_crash(case: Case) -> None:
    """torch's group norm ends the process in its backward pass on such input, where only its weights learn."""
    inputs = diffusion_inputs(case)
    last = [value.to(memory_format=torch.channels_last) if value.ndim == 4 else value for value in inputs]
    step = diffusion_step(case)
    step(StableSRInputs(*last))["loss"].backward()
    step.close()
