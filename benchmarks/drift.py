"""Compare each approximation with the exact result on a picture: PSNR, GMSD, and time.

The exact result is the engine's default in fp32 with the planned tiles. PASD, StableSR and SR3 need weights:
pulled ones, --base-model, --adapter and --lora (instead of the draft's), or with --tiny the random ones of the tests.
Differences with random weights say nothing about real ones.

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
from srcli.errors import SrcliError
from srcli.imaging.read import read_picture
from srcli.metrics.edges import compute_gmsd
from srcli.metrics.sample import Sample
from srcli.metrics.similarity import compute_psnr
from srcli.pipeline import EnginePipeline
from srcli.settings import DeviceChoice, LoraChoice, ModelChoice, Sampling, TargetSize
from srcli.tasks import UPSCALE, Job
from srcli.weights.store import Store

Variant = tuple[str, Sampling, str]  # quality, settings and precision
GOLDEN = Path("tests/golden")
TAESD = "decoded as previews are"
EXACT: Variant = ("standard", Sampling(), "float32")
PRESETS: dict[str, Variant] = {"bf16": ("standard", Sampling(), "bfloat16"), "draft": ("draft", Sampling(), "float32")}


def list_variants(engine: str, tile: int) -> dict[str, Variant]:
    """The approximations that the engine has."""
    if engine in ("builtin", "sr3"):
        return PRESETS
    steps = {"pasd": 10, "stablesr": 100}[engine]
    found = PRESETS | {
        "half of the steps": ("standard", Sampling(steps=steps), "float32"),
        f"tiles of {tile}, overlap {tile // 2}": ("standard", Sampling(tile=tile, overlap=tile // 2), "float32"),
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
    """The random weights of the tests, by option."""
    from tests import stablesr_folder

    if engine == "stablesr":
        base = stablesr_folder.write_base(folder / "base")
        return {"base_model": base, "adapter": stablesr_folder.write_adapter(folder / "adapter")}
    if engine == "sr3":
        return {"adapter": GOLDEN / "sr3/tiny/sr3_tiny.safetensors"}
    pasd = GOLDEN / "pasd"
    lora = pasd / "personalized/lora_kohya.safetensors"
    return {"base_model": pasd / "tiny/base", "adapter": pasd / "tiny/pasd", "lora": lora}


def load(args: argparse.Namespace, name: str, variant: Variant) -> EnginePipeline:
    own = {"base": args.base_model, "adapter": args.adapter}
    choice = ModelChoice(engine=args.engine, **{key: str(value) for key, value in own.items() if value}, offline=True)
    choice = replace(choice, loras=find_engine(choice.engine).preset_of(choice.variant, variant[0]).loras)
    if args.lora:
        choice = replace(choice, loras=tuple(LoraChoice(source=str(args.lora)) for _ in choice.loras))
    line = EnginePipeline.load(choice, DeviceChoice(dtype=variant[2], threads=1))
    return decode_with_preview(line, args.tiny) if name == TAESD else line


@dataclass(frozen=True)
class PreviewCodec(Codec):
    """Encodes with the VAE, and decodes with the preview's decoder."""

    preview: Preview | None = None

    def decode(self, latents: Tensor, after: object = None) -> Tensor:
        return self.preview.decode(latents)


def decode_with_preview(line: EnginePipeline, tiny: bool) -> EnginePipeline:
    if tiny:
        from tests.taesd_folder import taesd

        preview = Preview(Path(), taesd())
    else:
        preview = Preview.open(Path(), line.device, Store(offline=True))
    return replace(line, engine=replace(line.engine, codec=PreviewCodec(**vars(line.engine.codec), preview=preview)))


def run(args: argparse.Namespace, name: str, variant: Variant) -> tuple[np.ndarray, float]:
    """The result and its CPU seconds without loading."""
    line = load(args, name, variant)
    sampling = replace(variant[1], quality=variant[0], process_size=args.process_size)
    source = read_picture(args.picture)
    began = time.process_time()
    result = line.run(source, Job(task=UPSCALE, size=TargetSize(scale=args.scale), sampling=sampling))
    return result.pixels, time.process_time() - began


def row(name: str, result: np.ndarray, exact: np.ndarray, share: float) -> list[str]:
    luma = Sample(result, exact).luma
    return [name, f"{compute_psnr(*luma):.1f}", f"{compute_gmsd(*luma):.4f}", f"{share:.2f}"]


def report(args: argparse.Namespace) -> None:
    exact, spent = run(args, "exact", EXACT)
    rows = []
    for name, variant in list_variants(args.engine, args.tile).items():
        try:
            result, time_taken = run(args, name, variant)
            rows.append(row(name, result, exact, time_taken / spent))
        except SrcliError as error:
            rows.append([name, f"not measured: {error}", "", ""])
    weights = ", tiny random weights" if args.tiny else ""
    print(f"## Drift of the {args.engine} engine on {args.picture.name}{weights}, against its default in fp32\n")
    print(table(["variant", "PSNR, dB", "GMSD", "time, of the default's"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description="Drift of approximations.")
    parser.add_argument("--engine", choices=["builtin", "pasd", "stablesr", "sr3"], default="builtin")
    parser.add_argument("--picture", type=Path, default=Path("examples/cat.jpg"))
    parser.add_argument("--scale", type=float, default=4)
    parser.add_argument("--process-size", type=int)
    parser.add_argument("--tile", type=int, default=64, help="tile size of the variant with fixed tiles")
    for option in ("--base-model", "--adapter", "--lora"):
        parser.add_argument(option)
    parser.add_argument("--tiny", action="store_true", help="random weights of the tests")
    args = parser.parse_args()
    with ExitStack() as stack:
        if args.tiny:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            vars(args).update(tiny(args.engine, folder))
        report(args)


if __name__ == "__main__":
    main()
