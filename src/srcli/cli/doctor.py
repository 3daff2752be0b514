"""`srcli doctor`: device, versions, caches, weights, and what would run by default."""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srcli import __version__
from srcli.cli.machine import describe_processor, explain_missing_gpu, read_memory, try_writing
from srcli.errors import SrcliError
from srcli.imaging.printable import printable
from srcli.memory import GIB
from srcli.messages import name_flags
from srcli.settings import DeviceChoice, ModelChoice
from srcli.tasks import TASKS

if TYPE_CHECKING:
    from srcli.imaging.format_base import Format

LIBRARIES = ("torch", "diffusers", "transformers", "huggingface_hub", "safetensors", "pillow", "opencv-python-headless")
EXTRAS = {"heif": "pillow-heif", "formats": "openimageio", "cluster": "ray", "metrics": "torchmetrics"}

Facts = dict[str, dict[str, str]]


def print_diagnosis(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    run: Annotated[bool, typer.Option("--run", help="Also enlarge a small picture with what would run.")] = False,
) -> None:
    """Show devices, memory, versions, caches and weights, and what would run by default."""
    facts, code = collect_facts(offline), 0
    if run:
        facts["run"], code = try_upscaling(offline)
    if as_json:
        print(json.dumps(facts))
    else:
        _print_facts(facts)
    raise typer.Exit(code)


def _print_facts(facts: Facts) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for title, rows in facts.items():
        table.add_row(Text(title, style="bold"), Text(""))
        for name, value in rows.items():
            table.add_row(Text(f"  {name}"), Text(printable(value)))
    Console().print(table)


def collect_facts(offline: bool) -> Facts:
    """All facts to print, by section."""
    return {
        "srcli": {"version": __version__, "python": platform.python_version(), "system": platform.platform()},
        "devices": _find_devices(),
        "memory": read_memory(),
        "can be written": try_writing(),
        "versions": {name: _find_version(name) for name in LIBRARIES},
        "extras": {name: _find_version(package) for name, package in EXTRAS.items()},
        "formats": _list_formats(),
        "caches": _facts_or_error(_list_caches),
        "weights": _facts_or_error(lambda: _list_weights(offline)),
        "runs by default": _choose_defaults(offline),
    }


def _facts_or_error(ask: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Return the facts, or the error in their place, so that one failure does not hide the rest."""
    try:
        return ask()
    except SrcliError as error:
        return {"trouble": name_flags(str(error))}


def _find_devices() -> dict[str, str]:
    import torch

    from srcli.engines.runtime.device import choose_device, list_devices, prepare_process

    names, chosen = list_devices(), choose_device(DeviceChoice())
    prepare_process(chosen)
    found = {name: _describe_device(name) for name in names}
    if names == ["cpu"]:
        found["gpu"] = explain_missing_gpu(torch.__version__, torch.version.cuda, torch.version.hip)
    return {**found, "chosen": str(chosen), "threads": str(torch.get_num_threads())}


def _describe_device(name: str) -> str:
    import torch

    if name.startswith("cuda"):
        properties = torch.cuda.get_device_properties(name)
        return f"{properties.name}, {properties.total_memory / GIB:.1f} GiB"
    return describe_processor()


def _find_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _list_formats() -> dict[str, str]:
    from srcli.imaging.formats import FORMATS

    return {row.name: _describe_format(row) for row in FORMATS.values()}


def _describe_format(row: Format) -> str:
    done = ["read" if not row.extra else f"read with srcli[{row.extra}]"]
    if row.write is not None:
        done.append("written with 16 bits a channel" if row.deep else "written")
    return f"{' '.join(row.suffixes + row.other_suffixes)}: {', '.join(done)}"


def _list_caches() -> dict[str, str]:
    from srcli.weights.places import find_places

    return {name: _describe_space(path) for name, path in asdict(find_places()).items()}


def _describe_space(path: Path) -> str:
    there = next((p for p in (path, *path.parents) if p.exists()), Path("/"))
    return f"{path} ({shutil.disk_usage(there).free / GIB:.0f} GiB free)"


def _list_weights(offline: bool) -> dict[str, str]:
    from srcli.weights.store import Store

    return {"here": ", ".join(Store(offline=offline).list_here())}


def _choose_defaults(offline: bool) -> dict[str, str]:
    from srcli.engines.choose import choose_engine

    found = {}
    for name, task in TASKS.items():
        try:
            found[name] = choose_engine(task, ModelChoice(offline=offline), DeviceChoice()).engine
        except SrcliError as error:
            found[name] = f"nothing: {name_flags(str(error))}"
    return found


def try_upscaling(offline: bool) -> tuple[dict[str, str], int]:
    """Enlarge a small picture with what upscale runs by default, from file to file. Returns facts and exit code."""
    from PIL import Image

    from srcli.api import Pipeline

    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "in.png"), Path(folder, "out.png")
            Image.radial_gradient("L").resize((48, 32)).convert("RGB").save(source)
            pipeline = Pipeline.load(offline=offline)
            pipeline.upscale(source, scale=2).save(target)
            with Image.open(target) as result:
                size = "{}x{}".format(*result.size)
    except SrcliError as error:
        return {"trouble": name_flags(str(error))}, error.exit_code
    return {
        pipeline.engine: f"48x32 to {size} in {time.monotonic() - began:.1f} s, models loaded and result written"
    }, 0
