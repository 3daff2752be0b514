"""SR3's loss and its gradients against the official ones."""

import torch
from tests.golden.cases import Case, each, off_by
from tests.golden.sr3_tiny import condition, model_of, network, schedule

from srcli.models.sr3_unet import noise_loss
from srcli.sampling.ancestral import compute_sqrt_alpha_bar

LOSS, GRADIENT = 1e-5, 1e-3


@each("sr3", "s08*")
def test_loss_and_gradients(case: Case) -> None:
    unet, root = network(model_of(case)), compute_sqrt_alpha_bar(schedule(case.notes["schedule"])).float()
    clean, cond = condition(case, "hr_u8"), condition(case, "sr_u8")
    if unet.shape.variant == "sr3":
        keep = torch.tensor(case.notes["sqrt_gamma"])[:, None]
        when, high = keep, root[case.notes["t"] - 1]
        assert (keep <= high).all() and (keep >= root[case.notes["t"]]).all(), "drawn between neighbouring levels"
    else:
        when = torch.tensor(case.notes["t"])
        keep = root[when + 1][:, None]
    unet.requires_grad_(True).zero_grad(set_to_none=True)
    loss = noise_loss(unet, clean, cond, case.tensors["noise"], keep, when)
    loss.backward()
    assert abs(loss.item() / case.notes["l_pix"] - 1) < LOSS
    assert abs(loss.item() * clean.numel() / case.notes["loss_func_value_sum"] - 1) < LOSS
    nothing = 1e-6 * max(case.notes["grad_norms"].values())
    for name, want in case.notes["grad_norms"].items():
        got = float(unet.get_parameter(name.removeprefix("denoise_fn.")).grad.norm())
        assert abs(got - want) < GRADIENT * want + nothing, name
    ends = {"grad_first_conv": "downs.0.weight", "grad_final_conv": "final_conv.block.3.weight"}
    for key, name in ends.items():
        assert off_by(unet.get_parameter(name).grad, case.tensors[key]) < GRADIENT
    unet.requires_grad_(False)
