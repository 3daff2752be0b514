"""Pack what measuring on a GPU needs into one folder: sources, golden vectors, wheels, and data for training.

The machine needs Python with torch, transformers, numpy, pillow, safetensors and OpenCV, and no network.

python -m benchmarks.gpu.pack [--out FOLDER] [--photos FOLDER] [--teachers FOLDER] [--no-wheels]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load_file, save_file

from benchmarks.gpu.golden import STRUCTURE

ROOT = Path(__file__).parents[2]
RUN = Path(__file__).with_name("run.sh")
MOST = 60_000_000  # bytes of the whole folder
SOURCES = ("src/srcli", "benchmarks", "weights.lock")
# One case of each kind that the section `golden` knows, with the weights that it needs.
GOLDEN = (
    "pasd/vectors/bc_controlnet_unet.pasd.11x15.safetensors",
    "pasd/tiny/pasd/unet",
    "pasd/tiny/pasd/controlnet",
    "sr3/vectors/s03_unet_forward_sr3.safetensors",
    "sr3/tiny/sr3_tiny.safetensors",
    "sr3/tiny/sr3_tiny_config.json",
    "stablesr/vectors/v02_time_aware_encoder.safetensors",
)
STABLESR = "stablesr/tiny/stablesr_tiny.safetensors"  # of which the encoder's weights are enough
# Pure Python, so that unpacking them installs them: diffusers with what it imports, and the command line's libraries.
WHEELS = (
    ("diffusers", "importlib-metadata", "zipp", "requests", "certifi", "charset-normalizer", "idna", "urllib3")
    + ("httpx", "httpcore", "h11", "anyio")
    + ("typer", "rich", "shellingham", "markdown-it-py", "mdurl", "pygments", "annotated-doc")
)  # fmt: skip
PYTHON_SOURCES_ONLY = shutil.ignore_patterns("__pycache__", "results")


def copy_sources(out: Path) -> None:
    for name in SOURCES:
        copy(ROOT / name, out / name)
    for name in GOLDEN:
        copy(ROOT / "tests/golden" / name, out / "golden" / name)
    whole = load_file(ROOT / "tests/golden" / STABLESR)
    (out / "golden" / STABLESR).parent.mkdir(parents=True)
    save_file({key: value for key, value in whole.items() if key.startswith(STRUCTURE)}, out / "golden" / STABLESR)
    shutil.copy(RUN, out / RUN.name)


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=PYTHON_SOURCES_ONLY, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def download_wheels(out: Path) -> None:
    """Download the newest wheels without compiled code, for any Python version."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    anywhere = ["--only-binary", ":all:", "--platform", "any", "--implementation", "py", "--abi", "none"]
    subprocess.run([*command, *anywhere, "--dest", str(out / "wheels"), *WHEELS], check=True)


def files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def pack(out: Path, extras: dict[str, Path | None], wheels: bool) -> int:
    """Create the folder; returns its size in bytes. Data for training are optional."""
    shutil.rmtree(out, ignore_errors=True)
    copy_sources(out)
    if wheels:
        download_wheels(out)
    for name, folder in extras.items():
        if folder is not None:
            copy(folder, out / name)
    size = sum(path.stat().st_size for path in files(out))
    if size > MOST:
        sys.exit(f"{out} has {size / 1e6:.0f} MB, more than {MOST / 1e6:.0f}: give fewer photographs or teachers")
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack what a visit to a GPU needs.")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-pack"))
    parser.add_argument("--photos", type=Path, help="photographs to train from")
    parser.add_argument("--teachers", type=Path, help="networks to learn from")
    parser.add_argument("--no-wheels", action="store_true", help="the machine has every package")
    args = parser.parse_args()
    size = pack(args.out, {"photos": args.photos, "teachers": args.teachers}, not args.no_wheels)
    print(f"{args.out}: {size / 1e6:.1f} MB; on the machine: bash run.sh")


if __name__ == "__main__":
    main()
