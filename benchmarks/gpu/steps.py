"""PASD's guided step at full size: ways of running it, tiles and batches, compilation; and the VAE by bands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.bench import Bench, away, collect_messages, finish, peak, seconds
from benchmarks.gpu.models import CPU, base, pasd_loaded
from benchmarks.gpu.report import Failed, Row, attempt
from benchmarks.pasd_step import T, denoiser
from srcli.engines.latent.schedulers import apply_guidance
from srcli.engines.pasd.forecast import count_pasd_flop
from srcli.engines.pasd.sampling import BOTH, Nets, PasdDenoiser
from srcli.engines.runtime.device import Device, allow_tf32
from srcli.engines.runtime.placement import BYTES_PER_LATENT, place_network
from srcli.models.banded_vae import decode_in_bands
from srcli.models.patches.compiled import Compiled
from srcli.models.patches.install import install
from srcli.models.patches.shared_cfg_prefix import SharedCfgPrefix
from srcli.models.patches.text_kv_cache import TextKvCache
from srcli.models.row_bands import Bands
from srcli.sampling.tiling import Tile

# The first that can; cuDNN has no kernel for the widest heads.
BACKENDS = {
    "flash": [SDPBackend.FLASH_ATTENTION],
    "cudnn, else flash": [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION],
    "memory-efficient": [SDPBackend.EFFICIENT_ATTENTION],
    "math": [SDPBackend.MATH],
}
GUIDANCE = 9.0
WAY = ["way", "ms", "faster by", "relative difference"]
SWEEP = ["tile", "tiles in a call", "ms", "TFLOP/s", "GiB besides weights", "as planned"]
VAE = ["picture", "decoded in", "ms", "GiB besides weights", "relative difference"]


def shape(bench: Bench) -> tuple[int, int]:
    """Side and number of the tiles on which variants are compared."""
    return (8, 2) if bench.small else (64, 4)


def inputs(device: Device, side: int, batch: int) -> tuple[Tensor, Tensor, list[Tile]]:
    generator = torch.Generator().manual_seed(side)
    x = torch.randn(batch, 4, side, side, generator=generator).to(device.torch)
    hint = torch.rand(batch, 3, 8 * side, 8 * side, generator=generator).to(device.torch)
    return x, hint, [Tile(index, 0, side, side) for index in range(batch)]


def build_denoiser(bench: Bench, device: Device) -> PasdDenoiser:
    """PASD's denoiser, placed on this device as by its engine."""
    loaded = pasd_loaded(bench.sizes, CPU if bench.small else device.torch, device.dtype)
    steps = loaded.unet, loaded.paca, loaded.control
    for net in steps:
        place_network(net, device)
    prefix = SharedCfgPrefix()
    install((loaded.unet, loaded.control), TextKvCache(), prefix)
    text = torch.randn(2, 77, bench.sizes.pasd["cross_attention_dim"], generator=torch.Generator().manual_seed(0))
    return denoiser(Nets(*steps, device, prefix), text.to(device.torch))


def half(bench: Bench) -> Device:
    return bench.at(torch.bfloat16 if bench.small else torch.float16)


def sweep(bench: Bench) -> Iterator[Row | Failed]:
    """Speed and memory by tile size and batch; after a batch that does not fit, the next size follows."""
    device = half(bench)
    model = build_denoiser(bench, device)
    sides, batches = ((8, 16), (1, 2)) if bench.small else ((64, 96, 128, 48), (1, 2, 4, 8, 16))
    for side in sides:
        for batch in batches:
            x, hint, tiles = inputs(device, side, batch)
            try:
                with peak(device) as most:
                    spent = seconds(partial(model, x, T, hint, tiles), device, 3)
            except torch.OutOfMemoryError:
                yield [str(side), str(batch), "does not fit"]
                break
            finally:
                model._embedded.clear()
            tflops = 2 * batch * count_pasd_flop(side * side) / spent / 1e12
            planned = batch * side * side * BYTES_PER_LATENT / 2**30
            yield [str(side), str(batch), f"{spent * 1000:.1f}", f"{tflops:.1f}", f"{most[0]:.2f}", f"{planned:.2f}"]


def vae(bench: Bench) -> Iterator[Row | Failed]:
    """Decoding in one piece and by bands."""
    device = half(bench)
    dtype = torch.float32 if device.dtype is torch.bfloat16 else device.dtype  # as the engines' codec
    net = place_network(base(bench.sizes, 64, CPU if bench.small else device.torch, device.dtype).vae, device, dtype)
    for side in (64,) if bench.small else (1024, 2048):
        z = torch.randn(1, 4, side // 8, side // 8, generator=torch.Generator().manual_seed(2))
        z = z.to(device.torch, dtype)
        ways = {
            "one piece": lambda z=z: net.decode(z).sample,
            "bands, as the engines do": lambda z=z: decode_in_bands(net, z, Bands(area=1 << 18, lean=False)),
            "bands of 2^16": lambda z=z: decode_in_bands(net, z, Bands(area=1 << 16, lean=False)),
            "bands of 2^20": lambda z=z: decode_in_bands(net, z, Bands(area=1 << 20, lean=False)),
            "lean bands": lambda z=z: decode_in_bands(net, z, Bands()),
            "bands, maps in host memory": lambda z=z: decode_in_bands(net, z, Bands(store=CPU)),
        }
        truth: list[Tensor] = []
        for name, work in ways.items():
            found = attempt(str(side), partial(decoded, name, work, device, truth))
            yield Failed(f"{side} {name}", found.error, found.where) if isinstance(found, Failed) else found


def decoded(name: str, work: Callable[[], Tensor], device: Device, truth: list[Tensor]) -> list[str]:
    with peak(device) as most:
        result = work()
        finish(device)
        began = time.perf_counter()
        work()
        finish(device)
        spent = time.perf_counter() - began
    truth.append(result.cpu())
    return [name, f"{spent * 1000:.0f}", f"{most[0]:.2f}", away(result, truth[0])]


Timed = tuple[float, Tensor]  # seconds, and the result


class Ways:
    """Variants of a step on one shape, each compared with the engine's own."""

    def __init__(self, bench: Bench, device: Device) -> None:
        self.device, self.model = device, build_denoiser(bench, device)
        x, hint, tiles = inputs(device, *shape(bench))
        self.step = bare(self.model, x, hint, tiles)
        self.plain, self.truth = self.timed()

    def row(self, name: str, measure: Callable[[], Timed]) -> Row | Failed:
        """Measure one variant; an error becomes its row."""
        return attempt(name, lambda: self.against(*measure()))

    def against(self, spent: float, result: Tensor) -> list[str]:
        return [f"{spent * 1000:.1f}", f"{self.plain / spent:.2f}x", away(result, self.truth)]

    def placed(self, format: torch.memory_format) -> None:
        for net in (self.model.nets.unet, self.model.nets.paca, self.model.nets.control):
            net.to(memory_format=format)

    def timed(self) -> Timed:
        return seconds(self.step, self.device), self.step()


def bare(model: PasdDenoiser, x: Tensor, hint: Tensor, tiles: list[Tile]) -> Callable[[], Tensor]:
    """A guided step without any synchronisation with the host, as CUDA graphs require."""
    t, embedding = T.to(x.device), model._embedding(hint, tiles)

    def step() -> Tensor:
        with model.nets.equal_halves():
            halves = model.predict(torch.cat([x, x]), t, torch.cat([embedding, embedding]), BOTH)
        return apply_guidance(*halves.chunk(2), GUIDANCE)

    return step


def eager(bench: Bench) -> Iterator[Row | Failed]:
    """Variants without a compiler: cuDNN autotuning, attention backends, precisions, a CUDA graph, memory layout."""
    device = half(bench)
    ways = Ways(bench, device)
    yield ["as the engine does it", *ways.against(ways.plain, ways.truth)]
    cuda = device.torch.type == "cuda"
    if cuda:
        yield ways.row("cudnn.benchmark", partial(searching, ways))
    for name, backends in BACKENDS.items() if cuda else [("math", BACKENDS["math"])]:

        def by(backends: list[SDPBackend] = backends) -> Timed:
            with sdpa_kernel(backends, set_priority=True):
                return ways.timed()

        yield ways.row(f"attention: {name}", by)
    yield ways.row("as the engine does it, again", ways.timed)  # the difference between the two is noise
    yield from precisions(bench, ways)
    bench.at(device.dtype)
    if cuda:
        yield ways.row("one CUDA graph", partial(graphed, ways))
    ways.placed(torch.contiguous_format)
    yield ways.row("channels first", ways.timed)
    if cuda:
        yield ways.row("channels first, cudnn.benchmark", partial(searching, ways))


def precisions(bench: Bench, ways: Ways) -> Iterator[Row | Failed]:
    """The engine's own step in other precisions: speed only, since `golden` and `runs` measure the difference."""
    for name, dtype, allowed in (
        ("bfloat16", torch.bfloat16, True),
        ("float32, as TF32", torch.float32, True),
        ("float32", torch.float32, False),
    ):
        device = bench.at(dtype)
        allow_tf32(allowed)

        def plain(device: Device = device) -> list[str]:
            spent = Ways(bench, device).plain
            return [f"{spent * 1000:.1f}", f"{ways.plain / spent:.2f}x"]

        yield attempt(name, plain)


def searching(ways: Ways) -> Timed:
    """With cuDNN's autotuner, which tries all algorithms in the first call."""
    torch.backends.cudnn.benchmark = True
    try:
        return ways.timed()
    finally:
        torch.backends.cudnn.benchmark = False


def graphed(ways: Ways) -> Timed:
    """The step as one CUDA graph; its result is checked against the eager one."""
    beside = torch.cuda.Stream(ways.device.torch)
    beside.wait_stream(torch.cuda.current_stream(ways.device.torch))
    with torch.cuda.stream(beside):  # libraries allocate their workspaces before the capture
        ways.step()
    torch.cuda.current_stream(ways.device.torch).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = ways.step()
    graph.replay()
    finish(ways.device)
    torch.testing.assert_close(result, ways.truth, rtol=1e-2, atol=1e-2)
    return seconds(graph.replay, ways.device), result


def compiled(bench: Bench) -> Iterator[Row | Failed]:
    """Compiled by parts, as by --compile, without and with its cache; then as whole networks."""
    names = ("compiled by parts", "compiled by parts, as kept", "whole networks compiled")
    for name, way in list(zip(names, (by_parts, by_parts, whole), strict=True))[: 1 if bench.small else 3]:
        ways = Ways(bench, half(bench))
        with collect_messages() as messages:
            way(ways.model.nets)
            yield ways.row(f"{name}: the first call", partial(first, ways, time.perf_counter()))
            yield ways.row(name, ways.timed)
        if messages:
            yield [f"{name}: {messages[0]}"]
        torch.compiler.reset()


def by_parts(nets: Nets) -> None:
    install((nets.unet, nets.paca, nets.control), Compiled())


def whole(nets: Nets) -> None:
    for net in (nets.unet, nets.control):
        net.compile()


def first(ways: Ways, began: float) -> Timed:
    result = ways.step()
    finish(ways.device)
    return time.perf_counter() - began, result
