"""Options for inputs, outputs and the run; each group turns into frozen settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from srcli.batch.settings import ON_EXISTS, InputOptions, OutputOptions, RunOptions
from srcli.errors import InputError
from srcli.settings import FRAMES, MAX_PIXELS


@dataclass(frozen=True)
class InputFlags:
    """Which pictures to read."""

    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT...", help="Files, folders, or - for standard input.", show_default=False),
    ] = None
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Folders within folders too.", rich_help_panel="Files")
    ] = False
    listed: Annotated[
        str | None, typer.Option("--from", help="Read names from FILE, or - for stdin.", rich_help_panel="Files")
    ] = None
    null: Annotated[
        bool, typer.Option("--null", "-0", help="Names in that list end with NUL.", rich_help_panel="Files")
    ] = False
    max_pixels: Annotated[int, typer.Option(help="Largest picture to open, in pixels.", rich_help_panel="Files")] = (
        MAX_PIXELS
    )
    frames: Annotated[
        str, typer.Option(help="refuse or first: what to do with several frames.", rich_help_panel="Files")
    ] = FRAMES[0]
    allow_truncated: Annotated[
        bool, typer.Option("--allow-truncated", help="Take what there is of a cut file.", rich_help_panel="Files")
    ] = False

    mask: Annotated[
        str | None,
        typer.Option(help="Picture of its damage, white on black, or a folder of such.", rich_help_panel="Files"),
    ] = None

    def input_options(self) -> InputOptions:
        return InputOptions(
            inputs=tuple(self.inputs or ()),
            recursive=self.recursive,
            listed=self.listed,
            null=self.null,
            max_pixels=self.max_pixels,
            frames=self.frames,
            allow_truncated=self.allow_truncated,
            mask=self.mask,
        )


@dataclass(frozen=True)
class OutputFlags:
    """Where results go, and in which format."""

    output: Annotated[
        str | None, typer.Option("--output", "-o", help="File, folder, or - for stdout.", rich_help_panel="Files")
    ] = None
    format: Annotated[
        str | None, typer.Option(help="png, jpeg, webp, tiff, ... of the result.", rich_help_panel="Files")
    ] = None
    file_quality: Annotated[
        int | None, typer.Option(help="Of JPEG, WebP and AVIF files, 1 to 100.", rich_help_panel="Files")
    ] = None
    suffix: Annotated[str | None, typer.Option(help="What the output's name gets.", rich_help_panel="Files")] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that exist.", rich_help_panel="Files")
    ] = False
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave results that exist.", rich_help_panel="Files")
    ] = False
    on_exists: Annotated[str | None, typer.Option(help="fail, skip, rename or overwrite.", rich_help_panel="Files")] = (
        None
    )
    strip: Annotated[bool, typer.Option("--strip", help="Drop all metadata.", rich_help_panel="Files")] = False
    strip_gps: Annotated[bool, typer.Option("--strip-gps", help="Drop the place.", rich_help_panel="Files")] = False
    preview: Annotated[
        str | None, typer.Option(help="File that shows the picture while it is made.", rich_help_panel="Files")
    ] = None

    def output_options(self) -> OutputOptions:
        return OutputOptions(
            path=self.output,
            format=self.format,
            suffix=self.suffix,
            on_exists=self._on_exists(),
            quality=self.file_quality,
            strip=self.strip,
            strip_gps=self.strip_gps,
            preview=self.preview,
        )

    def _on_exists(self) -> str:
        flags = {"overwrite": self.overwrite, "skip": self.skip_existing, self.on_exists or "": bool(self.on_exists)}
        given = [name for name, on in flags.items() if on]
        if len(given) > 1:
            raise InputError("--overwrite, --skip-existing and --on-exists exclude each other: give one")
        return given[0] if given else ON_EXISTS[0]


@dataclass(frozen=True)
class RunFlags:
    """How the run behaves."""

    explain: Annotated[
        bool,
        typer.Option("--explain", help="Print tiles, work, memory, time; do nothing.", rich_help_panel="Run"),
    ] = False
    workers: Annotated[int, typer.Option(help="Processes on this machine.", rich_help_panel="Run")] = 1
    ray: Annotated[str | None, typer.Option(help="Ray cluster: ADDRESS or auto.", rich_help_panel="Run")] = None
    timeout: Annotated[float | None, typer.Option(help="Seconds that one picture may take.", rich_help_panel="Run")] = (
        None
    )
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first failure.", rich_help_panel="Run")
    ] = False
    journal: Annotated[
        bool | None, typer.Option(help="Keep a journal to resume from; on for many.", rich_help_panel="Run")
    ] = None
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line on stdout.", rich_help_panel="Run")
    ] = False
    print0: Annotated[
        bool, typer.Option("--print0", help="Output paths end with NUL, as xargs -0 wants.", rich_help_panel="Run")
    ] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.", rich_help_panel="Run")] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Where time went; tracebacks.", rich_help_panel="Run")
    ] = False

    def run_options(self) -> RunOptions:
        return RunOptions(
            fail_fast=self.fail_fast,
            timeout=self.timeout,
            workers=self.workers,
            ray=self.ray,
            journal=self.journal,
        )
