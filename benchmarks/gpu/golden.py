"""Golden vectors of the official programs on the device: one network each, in every precision."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.gpu.bench import Bench, short
from benchmarks.gpu.report import Failed, Row, attempt
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.placement import place_network
from srcli.models import time_encoder
from srcli.models.control import build_control_net
from srcli.models.patches.install import install
from srcli.models.patches.paca import LightPaca, Paca
from srcli.models.patches.shared_cfg_prefix import SharedCfgPrefix
from srcli.models.patches.text_kv_cache import TextKvCache
from srcli.models.sr3_unet import SR3Shape, SR3UNet, extract_network_state
from srcli.models.stock import build_stock

COLUMNS = ["vectors", "precision", "largest difference / largest value", "values"]
LIMIT = 1e-4  # in float32; the tests require 2e-5 on a CPU
WEIGHTS = "diffusion_pytorch_model.safetensors"
STRUCTURE = "structcond_stage_model."
RUN = re.compile(r"(?P<time>t[^.]*)\.cs(?P<scale>[0-9.]+)\.mid$")

Pairs = Iterator[tuple[Tensor, Tensor]]  # found, wanted


def rows(bench: Bench) -> Iterator[Row | Failed]:
    """All cases in the folder. A difference above LIMIT in float32 is a failure."""
    cases = list(find_vectors(bench.golden))
    if not cases:
        raise FileNotFoundError(f"no vectors in {bench.golden}")
    for dtype in bench.dtypes:
        device = bench.at(dtype)
        for name, case in cases[:: len(cases) // 3] if bench.small else cases:
            yield attempt(name, partial(compare, case, device))


def find_vectors(root: Path) -> Iterator[tuple[str, Callable[[Device], Pairs]]]:
    for engine, kind, case in (("pasd", "bc_*", pasd), ("sr3", "s03_*", sr3), ("stablesr", "v02_*", encoder)):
        for path in sorted((root / engine / "vectors").glob(f"{kind}.safetensors")):
            yield f"{engine} {path.stem}", partial(case, path)


@torch.inference_mode()
def compare(case: Callable[[Device], Pairs], device: Device) -> list[str]:
    off, count = 0.0, 0
    for got, want in case(device):
        off, count = max(off, off_by(got, want)), count + want.numel()
    if off > LIMIT and device.dtype is torch.float32:
        raise AssertionError(f"{off:.1e} is more than {LIMIT:.0e}")
    return [short(device.dtype), f"{off:.1e}", str(count)]


def off_by(got: Tensor, want: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    got, want = got.cpu().double(), want.double()
    if got.shape != want.shape or not torch.isfinite(got).all():
        raise ValueError(f"shape {tuple(got.shape)} instead of {tuple(want.shape)}, or not finite")
    return float((got - want).abs().max() / want.abs().max())


def notes(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as held:
        return held.metadata() or {}


def opened(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    return json.loads((folder / "config.json").read_text()), load_file(folder / WEIGHTS)


def load(net: torch.nn.Module, state: dict[str, Tensor], device: Device) -> torch.nn.Module:
    net.load_state_dict(state, strict=True, assign=True)
    return place_network(net, device)


def pasd(path: Path, device: Device) -> Pairs:
    """ControlNet residuals and the UNet's prediction with PACA, with the engine's caches."""
    tensors, kind = load_file(path), notes(path)["weights"]
    tiny = path.parents[1] / "tiny"
    unet_folder = next(f for f in (tiny / kind / "unet", tiny / kind.replace("_rrdb", "") / "unet") if f.exists())
    config, state = opened(unet_folder)
    unet = build_stock(UNet2DConditionModel, config)
    with torch.device("meta"):
        paca = (LightPaca if any("_plus" in key for key in state) else Paca)(config)
    own = paca.state_dict().keys()
    load(unet, {key: v for key, v in state.items() if key not in own}, device)
    load(paca, {key: v for key, v in state.items() if key in own}, device)
    install([unet], paca)
    config, state = opened(tiny / kind / "controlnet")
    control = load(build_control_net(config, state), state, device)
    install((unet, control), TextKvCache(), SharedCfgPrefix())
    where = device.torch, device.dtype
    x, text = tensors["sample"].to(*where), tensors["encoder_hidden_states"].to(*where)
    hint = (tensors["controlnet_cond_u8"].float() / 255).to(*where)
    for key in tensors:
        if not (run := RUN.match(key)):
            continue
        t, scale = tensors[f"{run['time']}.timestep"].to(device.torch), float(run["scale"])
        down, mid = control(x, t, text, hint, conditioning_scale=scale, return_dict=False)
        with paca.attending(down):
            out = unet(x, t, text, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
        part = key.removesuffix("mid")
        got = {f"down_{i:02d}": value for i, value in enumerate(down)} | {"mid": mid, "unet_out": out}
        yield from ((got[name], tensors[part + name]) for name in got if part + name in tensors)


def sr3(path: Path, device: Device) -> Pairs:
    """One forward pass of the U-Net, as its engine runs it: in float32, or under autocast."""
    tensors, tiny = load_file(path), path.parents[1] / "tiny"
    name = path.stem.rsplit("_", 1)[1]
    net = SR3UNet(SR3Shape.from_config(json.loads((tiny / f"{name}_tiny_config.json").read_text())["model"]))
    net = load(
        net, extract_network_state(load_file(tiny / f"{name}_tiny.safetensors")), Device(device.torch, torch.float32)
    )
    with torch.autocast(device.torch.type, device.dtype, enabled=device.dtype is not torch.float32):
        out = net(tensors["x"].to(device.torch), tensors["t"].to(device.torch))
    yield out, tensors["out"]


def encoder(path: Path, device: Device) -> Pairs:
    """StableSR's time-aware encoder at several steps and sizes."""
    tensors = load_file(path)
    state = load_file(path.parents[1] / "tiny" / "stablesr_tiny.safetensors")
    state = {key.removeprefix(STRUCTURE): value for key, value in state.items() if key.startswith(STRUCTURE)}
    net = load(time_encoder.build_time_encoder(state), state, device)
    for part in sorted({key.split(".")[0] for key in tensors if ".width" in key}):
        latent = tensors.get(f"latent_{part}", tensors["latent"]).to(device.torch, device.dtype)
        step = tensors.get(f"t_{part}", torch.tensor(int(part[1:]) if part[1:].isdigit() else 0)).to(device.torch)
        for x in net(latent, step.expand(len(latent))):
            yield x, tensors[f"{part}.width{x.shape[-1]}"]
