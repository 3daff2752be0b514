"""PASD at full size on an accelerator: parity with the CPU, ways of running a step, tiles and batches, the VAE.

Ten minutes on one GPU; random weights. Writes gpu.json and gpu.md after each section, so that what ends a run early
loses one section. --small tries the program with small networks, on a CPU too.

python -m benchmarks.gpu [--out benchmarks/results] [--small] [--only SECTION ...]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.pasd_step import SD15, SMALL, T, denoiser, networks
from benchmarks.tables import table
from srcli.engines.latent.schedulers import guided
from srcli.engines.pasd.forecast import cost
from srcli.engines.pasd.sampling import BOTH, Nets, PasdDenoiser
from srcli.engines.runtime.device import Device, available, pick, tf32
from srcli.engines.runtime.placement import BYTES_A_LATENT, place_network
from srcli.messages import forward_messages
from srcli.models.banded_vae import decode
from srcli.models.compiled import Compiled
from srcli.models.row_bands import Bands
from srcli.models.shared_cfg_prefix import SharedCfgPrefix
from srcli.sampling.tiling import Tile
from srcli.settings import DeviceChoice
from srcli.weights.open import quiet

LIMIT = 530.0  # seconds in all
# The first that can; cuDNN has no kernel for the widest heads.
BACKENDS = {
    "flash": [SDPBackend.FLASH_ATTENTION],
    "cudnn, else flash": [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION],
    "memory-efficient": [SDPBackend.EFFICIENT_ATTENTION],
    "math": [SDPBackend.MATH],
}
VAE = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}
GUIDANCE = 9.0

Row = list[str]


@dataclass(frozen=True)
class Bench:
    """What is measured, and where."""

    device: Device
    config: dict
    sides: tuple[int, ...]  # of tiles
    batches: tuple[int, ...]
    shape: tuple[int, int]  # side and number of the tiles that ways are compared on
    pictures: tuple[int, ...]  # sides of what the VAE decodes
    vae: dict

    def inputs(self, side: int, batch: int) -> tuple[Tensor, Tensor, list[Tile]]:
        generator = torch.Generator().manual_seed(side)
        x = torch.randn(batch, 4, side, side, generator=generator).to(self.device.torch)
        hint = torch.rand(batch, 3, 8 * side, 8 * side, generator=generator).to(self.device.torch)
        return x, hint, [Tile(index, 0, side, side) for index in range(batch)]

    def led(self, device: Device | None = None) -> PasdDenoiser:
        """The engine's own denoiser, as it is placed on this device."""
        where = device or self.device
        torch.manual_seed(0)
        text = torch.randn(2, 77, self.config["cross_attention_dim"]).to(where.torch)
        torch.manual_seed(0)
        nets = networks(self.config, where)
        for net in (nets.unet, nets.paca, nets.control):
            place_network(net, where)
        return denoiser(replace(nets, prefix=SharedCfgPrefix(nets.unet, nets.control)), text)


FULL = {
    "config": SD15,
    "sides": (48, 64, 96, 128),
    "batches": (1, 2, 4, 8, 16),
    "shape": (64, 4),
    "pictures": (1024, 2048),
    "vae": VAE,
}
TINY = {
    "config": SMALL
    | {
        "block_out_channels": [32, 64],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
    },
    "sides": (8, 16),
    "batches": (1, 2),
    "shape": (8, 2),
    "pictures": (64,),
    "vae": VAE | {"block_out_channels": [32, 32, 64, 64]},
}


def finish(device: Device) -> None:
    if device.accelerated:
        torch.accelerator.synchronize(device.torch)


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


@contextmanager
def peak(device: Device) -> Iterator[list[float]]:
    """Memory at its largest besides what was there before, in GiB, once the block has ended; 0 where nobody counts."""
    found: list[float] = []
    before = 0
    if device.torch.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device.torch)
        before = torch.cuda.memory_allocated(device.torch)
    yield found
    most = torch.cuda.max_memory_allocated(device.torch) if device.torch.type == "cuda" else before
    found.append((most - before) / 2**30)


def away(found: Tensor, truth: Tensor) -> str:
    """Relative distance."""
    return f"{float((found.cpu().float() - truth.cpu().float()).norm() / truth.cpu().float().norm()):.1e}"


def parity(bench: Bench) -> Iterator[Row]:
    """The device against the CPU in fp32: exactly, as float32 beside half precision, and in that."""
    cpu, full = Device(torch.device("cpu"), torch.float32), replace(bench.device, dtype=torch.float32)

    def step(device: Device) -> Tensor:
        x, hint, tiles = bench.inputs(16, 1)
        return bench.led(device)(x.to(device.torch), T, hint.to(device.torch), tiles)

    truth = step(cpu)
    tf32(False)
    try:
        yield ["float32", away(step(full), truth)]
    finally:
        tf32(True)
    yield ["float32, as TF32", away(step(full), truth)]
    yield [str(bench.device.dtype), away(step(bench.device), truth)]


def sweep(bench: Bench) -> Iterator[Row]:
    """Speed and memory by tile and batch; a batch that does not fit ends its side."""
    model = bench.led()
    for side in bench.sides:
        for batch in bench.batches:
            x, hint, tiles = bench.inputs(side, batch)
            try:
                with peak(bench.device) as most:
                    spent = seconds(partial(model, x, T, hint, tiles), bench.device)
            except torch.OutOfMemoryError:
                yield [str(side), str(batch), "does not fit", "", "", ""]
                break
            finally:
                model._embedded.clear()
            tflops = 2 * batch * cost(side * side) / spent / 1e12
            planned = batch * side * side * BYTES_A_LATENT / 2**30
            yield [str(side), str(batch), f"{spent * 1000:.1f}", f"{tflops:.1f}", f"{most[0]:.2f}", f"{planned:.2f}"]


def vae(bench: Bench) -> Iterator[Row]:
    """Decoding in one piece and by bands."""
    torch.manual_seed(1)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    dtype = torch.float32 if bench.device.dtype is torch.bfloat16 else bench.device.dtype  # as the engines' codec
    net = place_network(AutoencoderKL(**bench.vae, **blocks), bench.device, dtype)
    for side in bench.pictures:
        z = torch.randn(1, 4, side // 8, side // 8, generator=torch.Generator().manual_seed(2))
        z = z.to(bench.device.torch, dtype)
        ways = {
            "one piece": lambda z=z: net.decode(z).sample,
            "bands": lambda z=z: decode(net, z, Bands()),
            "bands, maps in host memory": lambda z=z: decode(net, z, Bands(store=torch.device("cpu"))),
        }
        truth = None
        for name, work in ways.items():
            try:
                with peak(bench.device) as most:
                    result = work().cpu()
                    spent = seconds(work, bench.device, 1)
            except torch.OutOfMemoryError:
                yield [str(side), name, "does not fit", "", ""]
                continue
            truth = result if truth is None else truth
            yield [str(side), name, f"{spent * 1000:.0f}", f"{most[0]:.2f}", away(result, truth)]


class Ways:
    """Ways of running one shape, each against the engine's own."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.model = bench, bench.led()
        x, hint, tiles = bench.inputs(*bench.shape)
        self.step = bare(self.model, x, hint, tiles)
        self.plain = seconds(self.step, bench.device)

    def row(self, name: str, measure: Callable[[], float]) -> Row:
        """One way; what it cannot do is said, and the next is tried."""
        try:
            spent = measure()
        except Exception as error:
            return [name, "failed", " ".join(f"{type(error).__name__}: {error}".split())[:100]]
        return [name, f"{spent * 1000:.1f}", f"{self.plain / spent:.2f}x"]

    def placed(self, format: torch.memory_format) -> None:
        for net in (self.model.nets.unet, self.model.nets.paca, self.model.nets.control):
            net.to(memory_format=format)

    def timed(self) -> float:
        return seconds(self.step, self.bench.device)


def bare(model: PasdDenoiser, x: Tensor, hint: Tensor, tiles: list[Tile]) -> Callable[[], Tensor]:
    """A guided step with everything on the device and nothing decided on the host, as graphs want it."""
    t, embedding = T.to(x.device), model._embedding(hint, tiles)

    def step() -> Tensor:
        with model.nets.equal_halves():
            halves = model.predict(torch.cat([x, x]), t, torch.cat([embedding, embedding]), BOTH)
        return guided(*halves.chunk(2), GUIDANCE)

    return step


def eager(bench: Bench) -> Iterator[Row]:
    ways = Ways(bench)
    yield ["as the engine does it", f"{ways.plain * 1000:.1f}", "1.00x"]
    for name, backends in BACKENDS.items():

        def by(backends: list[SDPBackend] = backends) -> float:
            with sdpa_kernel(backends, set_priority=True):
                return ways.timed()

        yield ways.row(f"attention: {name}", by)
    if bench.device.torch.type == "cuda":
        yield ways.row("one CUDA graph", partial(graphed, ways))
    ways.placed(torch.contiguous_format)
    yield ways.row("channels first", ways.timed)
    full = replace(bench, device=replace(bench.device, dtype=torch.float32))
    for name, allowed in (("float32", False), ("float32, as TF32", True)):
        tf32(allowed)
        yield ways.row(name, lambda: Ways(full).plain)


def graphed(ways: Ways) -> float:
    """The step as one CUDA graph, whose result must be that of the eager step."""
    expected, device = ways.step().clone(), ways.bench.device
    beside = torch.cuda.Stream(device.torch)
    beside.wait_stream(torch.cuda.current_stream(device.torch))
    with torch.cuda.stream(beside):  # libraries make their workspaces here, before they are recorded
        ways.step()
    torch.cuda.current_stream(device.torch).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = ways.step()
    graph.replay()
    finish(device)
    torch.testing.assert_close(result, expected, rtol=1e-2, atol=1e-2)
    return seconds(graph.replay, device)


def compiled(bench: Bench) -> Iterator[Row]:
    """By parts as --compile does it, anew and from what that kept; then as whole networks."""
    names = ("compiled by parts", "compiled by parts, as kept", "whole networks compiled")
    for name, way in zip(names, (by_parts, by_parts, whole), strict=True):
        ways = Ways(bench)
        truth = ways.step()
        began = time.perf_counter()
        said = way(ways.model.nets)
        yield [*ways.row(f"{name}: the first call", partial(first, ways, began))[:2], "", ""]
        yield [*ways.row(name, ways.timed), said[0] if said else away(ways.step(), truth)]
        torch.compiler.reset()


def by_parts(nets: Nets) -> list[str]:
    """What went wrong is found in the list, once it has."""
    said: list[str] = []
    forward_messages(said.append)
    Compiled((nets.unet, nets.paca, nets.control))
    return said


def whole(nets: Nets) -> list[str]:
    for net in (nets.unet, nets.control):
        net.compile()
    return []


def first(ways: Ways, began: float) -> float:
    ways.step()
    finish(ways.bench.device)
    return time.perf_counter() - began


WAY = ["way", "ms", "faster by"]
SECTIONS: dict[str, tuple[Callable[[Bench], Iterator[Row]], list[str]]] = {
    "parity": (parity, ["a guided step", "relative difference to the CPU in float32"]),
    "eager": (eager, WAY),
    "sweep": (sweep, ["tile", "tiles in a call", "ms", "TFLOP/s", "GiB besides weights", "as planned"]),
    "vae": (vae, ["picture", "decoded in", "ms", "GiB besides weights", "relative difference"]),
    "compiled": (compiled, [*WAY, "relative difference"]),
}


class Late(BaseException):
    """The time is up. No library takes it for a failure of its own."""


def late(*_: object) -> None:
    raise Late(f"{LIMIT:.0f} seconds in all were over")


@torch.inference_mode()
def run(bench: Bench, names: list[str], out: Path) -> list[str]:
    """All sections, each written as soon as it is there. The names of those that failed."""
    found: dict[str, list[Row]] = {}
    failed: dict[str, str] = {}
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    for name in names:
        rows = found[name] = []
        try:
            for row in SECTIONS[name][0](bench):
                rows.append(row)
        except (Exception, Late) as error:
            failed[name] = f"{type(error).__name__}: {error}"
            print(f"{name} failed: {failed[name]}", file=sys.stderr, flush=True)
            if isinstance(error, Late):
                break
        finally:
            write(bench, found, failed, out)
            gc.collect()
    signal.setitimer(signal.ITIMER_REAL, 0)
    return list(failed)


def write(bench: Bench, found: dict[str, list[Row]], failed: dict[str, str], out: Path) -> None:
    here = bench.device.torch
    kind = torch.cuda.get_device_name(here) if here.type == "cuda" else here.type
    dtype = str(bench.device.dtype).removeprefix("torch.")
    side, count = bench.shape
    texts = [f"# {kind}, torch {torch.__version__}: PASD, guided, {dtype}, random weights, ways at {count} of {side}"]
    for name, rows in found.items():
        texts.append(f"## {name}\n\n{table(SECTIONS[name][1], rows)}")
        if name in failed:
            texts.append(f"not finished: {failed[name]}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.md").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    data = {"device": kind, "torch": torch.__version__, "dtype": dtype, "failed": failed, **found}
    (out / "gpu.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="PASD's step on an accelerator.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--small", action="store_true", help="small networks, to try the program")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    given = parser.parse_args()
    name = available()[0]
    if name == "cpu" and not given.small:
        sys.exit("no accelerator here: run this where there is one, or try it with --small")
    quiet()
    device = pick(DeviceChoice(device=name, dtype="bfloat16" if name == "cpu" else "float16"))
    with TemporaryDirectory() as kept:  # nothing is there from an earlier run
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = kept
        failed = run(Bench(device, **(TINY if given.small else FULL)), given.only, given.out)
    print((given.out / "gpu.md").read_text(encoding="utf-8"))
    if failed:
        sys.exit("not finished: " + ", ".join(failed))


if __name__ == "__main__":
    main()
