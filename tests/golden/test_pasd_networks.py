"""PASD's networks give the official program's numbers."""

import re

import pytest
import torch
from tests.golden.cases import Case, each_group, off_by, picture
from tests.golden.pasd_models import control, nets

RUN = re.compile(r"(?P<time>t[^.]*)\.cs(?P<scale>[0-9.]+)\.mid$")


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@each_group("pasd", "a_cond_embedding*", lambda case: case.groups("image_u8"))
def test_conditioning_embedding_and_its_pictures(case: Case, part: str) -> None:
    given = case.under(part)
    embedding, pictures = control(case.root, case.notes["weights"]).controlnet_cond_embedding.predictions(
        picture(given.pop("image_u8"))
    )
    got = {"embedding": embedding} | {f"to_rgb_{i}": p for i, p in enumerate(pictures)}
    assert got.keys() == given.keys()
    assert max(off_by(got[key], given[key]) for key in given) <= 1e-5


def runs(case: Case) -> list[str]:
    return [key.removesuffix("mid") for key in case.tensors if RUN.match(key)]


@each_group("pasd", "bc_controlnet_unet*", runs)
def test_controlnet_residuals_and_unet(case: Case, part: str) -> None:
    found = RUN.match(f"{part}mid")
    unet, paca, build_control_net = nets(case.root, case.notes["weights"])
    x, text = case.tensors["sample"], case.tensors["encoder_hidden_states"]
    t = case.tensors[f"{found['time']}.timestep"]
    hint = picture(case.tensors["controlnet_cond_u8"])
    down, mid = build_control_net(x, t, text, hint, conditioning_scale=float(found["scale"]), return_dict=False)
    with paca.attending(down):
        out = unet(x, t, text, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
    got = {f"down_{i:02d}": d for i, d in enumerate(down)} | {"mid": mid, "unet_out": out}
    wrong = {key: off_by(got[key], want) for key, want in case.under(part).items()}
    assert max(wrong.values()) <= 1e-5, wrong
