"""PASD's step at full size on an accelerator: parity with the CPU, then tiles, batches and ways of running it.

Ten minutes on one GPU; random weights. Writes gpu.json and gpu.md.

python -m benchmarks.gpu [--out benchmarks/results] [--small]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.pasd_step import SD15, SMALL, T, denoiser, networks
from benchmarks.tables import table
from srcli.engines.device import Device, available
from srcli.engines.pasd import cost
from srcli.engines.pasd_sampling import Led
from srcli.sampling.tiling import Tile

SIDES, BATCHES = (48, 64, 96, 128), (1, 2, 4, 8, 16)
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION, "math": SDPBackend.MATH}
TIME_LEFT = 540.0  # seconds after which nothing new is begun

Row = list[object]


def inputs(config: dict, device: Device, side: int, batch: int) -> tuple[Tensor, Tensor, list[Tile]]:
    generator = torch.Generator().manual_seed(side)
    x = torch.randn(batch, 4, side, side, generator=generator).to(device.torch)
    hint = torch.rand(batch, 3, 8 * side, 8 * side, generator=generator).to(device.torch)
    return x, hint, [Tile(index, 0, side, side) for index in range(batch)]


def led(config: dict, device: Device) -> Led:
    torch.manual_seed(0)
    text = torch.randn(2, 77, config["cross_attention_dim"])
    torch.manual_seed(0)
    return denoiser(networks(config, device), text.to(device.torch))


def finish(device: Device) -> None:
    if device.torch.type == "cuda":
        torch.cuda.synchronize(device.torch)
    elif device.torch.type == "mps":
        torch.mps.synchronize()


def seconds(work: Callable[[], object], device: Device, times: int = 5) -> float:
    """Of one call, after two that prepare it."""
    for _ in range(2):
        work()
    finish(device)
    began = time.perf_counter()
    for _ in range(times):
        work()
    finish(device)
    return (time.perf_counter() - began) / times


def parity(config: dict, device: Device) -> Row:
    """The device in fp32 against the CPU in fp32."""
    results = []
    for where in (Device(torch.device("cpu"), torch.float32), Device(device.torch, torch.float32)):
        x, hint, tiles = inputs(config, where, 16, 1)
        results.append(led(config, where)(x, T, hint, tiles).cpu())
    return ["fp32 on the device against the CPU", f"{float((results[1] - results[0]).norm() / results[0].norm()):.1e}"]


def sweep(model: Led, config: dict, device: Device, until: float) -> list[Row]:
    """Speed by tile and batch; a batch that does not fit ends its row."""
    rows: list[Row] = []
    for side in SIDES:
        for batch in BATCHES:
            if time.perf_counter() > until:
                return rows
            x, hint, tiles = inputs(config, device, side, batch)
            try:
                spent = seconds(lambda x=x, hint=hint, tiles=tiles: model(x, T, hint, tiles), device)
            except torch.OutOfMemoryError:
                break
            peak = torch.cuda.max_memory_allocated() / 2**30 if device.torch.type == "cuda" else 0.0
            model._embedded.clear()
            tflops = 2 * batch * cost(side * side) / spent / 1e12
            rows.append([side, batch, f"{spent * 1000:.1f}", f"{tflops:.1f}", f"{peak:.1f}"])
    return rows


def ways(model: Led, config: dict, device: Device, until: float) -> list[Row]:
    """Ways of running one shape, each against eager."""
    x, hint, tiles = inputs(config, device, 64, 4)

    def step() -> Tensor:
        return model(x, T, hint, tiles)

    eager = seconds(step, device)
    rows: list[Row] = [["eager", f"{eager * 1000:.1f}", "1.00x"]]

    def add(name: str, measure: Callable[[], float]) -> None:
        if time.perf_counter() > until:
            return
        try:
            spent = measure()
            rows.append([name, f"{spent * 1000:.1f}", f"{eager / spent:.2f}x"])
        except (RuntimeError, torch.OutOfMemoryError) as error:
            rows.append([name, "failed", str(error).splitlines()[0][:60]])

    for name, backend in BACKENDS.items():

        def by(backend: SDPBackend = backend) -> float:
            with sdpa_kernel(backend):
                return seconds(step, device)

        add(f"attention: {name}", by)
    for net in (model.nets.unet, model.nets.paca, model.nets.control):
        net.to(memory_format=torch.channels_last)
    add("channels last", lambda: seconds(step, device))
    if device.torch.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        add("channels last, graph", lambda: graphed(step, device))
    for net in (model.nets.unet, model.nets.control):
        net.compile(mode="max-autotune-no-cudagraphs")
    add("channels last, compiled", lambda: seconds(step, device))
    return rows


def graphed(step: Callable[[], Tensor], device: Device) -> float:
    """The step as one CUDA graph, whose result must be that of the eager step."""
    expected = step().clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    graph.replay()
    finish(device)
    torch.testing.assert_close(result, expected, rtol=1e-2, atol=1e-2)
    return seconds(graph.replay, device)


@torch.inference_mode()
def measure(config: dict) -> dict[str, object]:
    name = available()[0]
    if name == "cpu":
        raise SystemExit("no accelerator here: run this where there is one")
    device, until = Device(torch.device(name), torch.float16), time.perf_counter() + TIME_LEFT
    found: dict[str, object] = {"parity": [parity(config, device)]}
    model = led(config, device)
    found["sweep"] = sweep(model, config, device, until)
    found["ways"] = ways(model, config, device, until)
    kind = torch.cuda.get_device_name() if device.torch.type == "cuda" else name
    return {"device": kind, "torch": torch.__version__, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description="PASD's step on an accelerator.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--small", action="store_true", help="small networks, to try the program")
    given = parser.parse_args()
    found = measure(SMALL if given.small else SD15)
    heads = {
        "parity": ["what", "relative difference"],
        "sweep": ["tile", "tiles in a call", "ms", "TFLOP/s", "peak GiB"],
        "ways": ["way, 4 tiles of 64", "ms", "faster by"],
    }
    texts = [f"# {found['device']}, torch {found['torch']}: PASD, guided, fp16, random weights"]
    texts += [table(head, found[name]) for name, head in heads.items()]
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "gpu.md").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    (given.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n\n".join(texts))


if __name__ == "__main__":
    main()
