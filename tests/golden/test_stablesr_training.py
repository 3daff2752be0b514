"""StableSR's training loss and the gradients of what it trains (modulation and encoder) against the official ones."""

from tests.golden.cases import Case, each, off_by
from tests.golden.stablesr_tiny import UNET, led, tiny
from torch import nn
from torch.nn.functional import mse_loss

from srcli.models.patches.spade import to_diffusers_path
from srcli.sampling.ancestral import compute_sqrt_alpha_bar, make_scaled_linear_betas

LOSS, GRADIENT = 1e-5, 1e-3
ENCODER = "structcond_stage_model."


def parameter(official: str) -> nn.Parameter:
    """Ours for an official key."""
    if official.startswith(ENCODER):
        return tiny().encoder.get_parameter(official.removeprefix(ENCODER))
    return tiny().modulation.get_parameter(to_diffusers_path(official.removeprefix(UNET)))


@each("stablesr", "v16*")
def test_loss_and_gradients(case: Case) -> None:
    tensors, notes, model = case.tensors, case.notes, tiny()
    keep = compute_sqrt_alpha_bar(make_scaled_linear_betas()).float()[tensors["t"] + 1].view(-1, 1, 1, 1)
    rest = (1 - keep.square()).sqrt()
    noisy = keep * tensors["gt_latent"] + rest * tensors["noise"]
    # The notes do not say which of the two it is; the name does.
    v = case.name.endswith("_v")
    target = keep * tensors["noise"] - rest * tensors["gt_latent"] if v else tensors["noise"]
    trained = [model.encoder, model.modulation]
    for module in trained:
        module.requires_grad_(True).zero_grad(set_to_none=True)
    loss = mse_loss(led(tensors["context"])(noisy, tensors["t"], tensors["lq_latent"]), target)
    loss.backward()
    assert abs(loss.item() / notes["loss"] - 1) < LOSS
    assert len(notes["trainable_grad_norms"]) == sum(len(list(module.parameters())) for module in trained)
    nothing = 1e-6 * max(notes["trainable_grad_norms"].values())  # a norm undoes some biases: rounding is all they get
    for key, want in notes["trainable_grad_norms"].items():
        assert abs(parameter(key).grad.norm().item() - want) < GRADIENT * want + nothing, key
    for key in (key for key in tensors if key.startswith("grad.")):
        assert off_by(parameter(key.removeprefix("grad.")).grad, tensors[key]) < GRADIENT, key
    for module in trained:
        module.requires_grad_(False)
