"""How far each approximate way is from the exact one on a picture: PSNR, GMSD, and the time it takes.

The exact result is the engine's default in fp32 with the planned tiles. PASD, StableSR and SR3 need weights: those that
are here, others by --base-model, --adapter and --lora (instead of the draft's own), or --tiny, the random ones of the
tests. Of these the differences say nothing about real ones, only that the way runs, and how much of the time it takes.

python -m benchmarks.drift [--engine builtin] [--picture examples/cat.jpg] [--scale 4] [--process-size N] [--tiny]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from benchmarks.tables import table
from srcli.engines.latent.codec import Codec
from srcli.engines.latent.preview import Preview
from srcli.engines.registry import find_engine
from srcli.engines.runtime.memory_budget import AMPLE
from srcli.engines.runtime.placement import place_network
from srcli.errors import SrcliError
from srcli.imaging.read import read_picture
from srcli.metrics.edges import compute_gmsd
from srcli.metrics.sample import Sample
from srcli.metrics.similarity import compute_psnr
from srcli.pipeline import EnginePipeline
from srcli.settings import DeviceChoice, LoraChoice, ModelChoice, Sampling, TargetSize
from srcli.tasks import UPSCALE, Job
from srcli.weights.store import Store

Way = tuple[str, Sampling, str]  # settings and precision
GOLDEN = Path("tests/golden")
EIGHTH = "weights kept in 8 bits"
TAESD = "decoded as previews are"
EXACT: Way = ("standard", Sampling(), "float32")
PRESETS: dict[str, Way] = {"bf16": ("standard", Sampling(), "bfloat16"), "draft": ("draft", Sampling(), "float32")}


def ways(engine: str, tile: int) -> dict[str, Way]:
    """The approximate ways that the engine has."""
    if engine in ("builtin", "sr3"):
        return PRESETS
    steps = {"pasd": 10, "stablesr": 100}[engine]
    found = PRESETS | {
        "half of the steps": ("standard", Sampling(steps=steps), "float32"),
        f"tiles of {tile}, overlap {tile // 2}": ("standard", Sampling(tile=tile, overlap=tile // 2), "float32"),
        EIGHTH: EXACT,
        TAESD: EXACT,
    }
    if engine == "stablesr":
        return found
    return found | {
        "guidance on the middle half": ("standard", Sampling(guidance_interval=(0.25, 0.75)), "float32"),
        "deep features for 2 steps": ("standard", Sampling(reuse=2), "float32"),
        "deep features for 3 steps": ("standard", Sampling(reuse=3), "float32"),
    }


def tiny(engine: str, folder: Path) -> dict[str, Path]:
    """The tests' random weights, by option."""
    from tests import stablesr_folder

    if engine == "stablesr":
        base = stablesr_folder.write_base(folder / "base")
        return {"base_model": base, "adapter": stablesr_folder.write_adapter(folder / "adapter")}
    if engine == "sr3":
        return {"adapter": GOLDEN / "sr3/tiny/sr3_tiny.safetensors"}
    pasd = GOLDEN / "pasd"
    lora = pasd / "personalized/lora_kohya.safetensors"
    return {"base_model": pasd / "tiny/base", "adapter": pasd / "tiny/pasd", "lora": lora}


def load(given: argparse.Namespace, name: str, way: Way) -> EnginePipeline:
    own = {"base": given.base_model, "adapter": given.adapter}
    choice = ModelChoice(engine=given.engine, **{key: str(value) for key, value in own.items() if value}, offline=True)
    choice = replace(choice, loras=find_engine(choice.engine).preset_of(choice.variant, way[0]).loras)
    if given.lora:
        choice = replace(choice, loras=tuple(LoraChoice(source=str(given.lora)) for _ in choice.loras))
    line = EnginePipeline.load(choice, DeviceChoice(dtype=way[2], threads=1))
    if name == EIGHTH:  # as on a GPU that is short of memory
        for net in networks(line):
            place_network(net, line.device, placement=replace(AMPLE, weights_fp8=True))
    return sketching(line, given.tiny) if name == TAESD else line


@dataclass(frozen=True)
class Sketch(Codec):
    """A VAE that only encodes."""

    preview: Preview | None = None

    def decode(self, latents: Tensor, after: object = None) -> Tensor:
        return self.preview.decode(latents)


def sketching(line: EnginePipeline, tiny: bool) -> EnginePipeline:
    if tiny:
        from tests.taesd_folder import taesd

        preview = Preview(Path(), taesd(), print)
    else:
        preview = Preview.open(Path(), line.device, Store(offline=True), print)
    return replace(line, engine=replace(line.engine, codec=Sketch(**vars(line.engine.codec), preview=preview)))


def networks(line: EnginePipeline) -> list:
    """Those of every step."""
    engine = line.engine
    if engine.spec.name == "pasd":
        return [engine.nets.unet, engine.nets.paca, engine.nets.control]
    return [engine.loaded.unet, engine.loaded.encoder, engine.loaded.modulation]


def run(given: argparse.Namespace, name: str, way: Way) -> tuple[np.ndarray, float]:
    """The result and the seconds of one core that it took, loading aside."""
    line = load(given, name, way)
    sampling = replace(way[1], quality=way[0], process_size=given.process_size)
    source = read_picture(given.picture)
    began = time.process_time()
    result = line.run(source, Job(task=UPSCALE, size=TargetSize(scale=given.scale), sampling=sampling))
    return result.pixels, time.process_time() - began


def row(name: str, result: np.ndarray, exact: np.ndarray, share: float) -> list[str]:
    luma = Sample(result, exact).luma
    return [name, f"{compute_psnr(*luma):.1f}", f"{compute_gmsd(*luma):.4f}", f"{share:.2f}"]


def report(given: argparse.Namespace) -> None:
    exact, spent = run(given, "exact", EXACT)
    rows = []
    for name, way in ways(given.engine, given.tile).items():
        try:
            result, time_taken = run(given, name, way)
            rows.append(row(name, result, exact, time_taken / spent))
        except SrcliError as error:
            rows.append([name, f"not measured: {error}", "", ""])
    weights = ", tiny random weights" if given.tiny else ""
    print(f"## Drift of the {given.engine} engine on {given.picture.name}{weights}, against its default in fp32\n")
    print(table(["way", "PSNR, dB", "GMSD", "time, of the default's"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description="Drift of approximate ways.")
    parser.add_argument("--engine", choices=["builtin", "pasd", "stablesr", "sr3"], default="builtin")
    parser.add_argument("--picture", type=Path, default=Path("examples/cat.jpg"))
    parser.add_argument("--scale", type=float, default=4)
    parser.add_argument("--process-size", type=int)
    parser.add_argument("--tile", type=int, default=64, help="of the way with tiles that were not planned")
    for option in ("--base-model", "--adapter", "--lora"):
        parser.add_argument(option)
    parser.add_argument("--tiny", action="store_true", help="random weights of the tests")
    given = parser.parse_args()
    with ExitStack() as stack:
        if given.tiny:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            vars(given).update(tiny(given.engine, folder))
        report(given)


if __name__ == "__main__":
    main()
