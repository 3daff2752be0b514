"""The four picture commands. They differ only in their task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srcli.batch.settings import (
    STDIO,
    BatchSettings,
    InputOptions,
    OnExists,
    OutputOptions,
    PipelineFactory,
    RunOptions,
)
from srcli.cli.boundary import is_on_terminal, is_stdout_closed
from srcli.cli.config import CONFIG_VARIABLE, drop_overridden, use_config
from srcli.cli.help import CONFIG_HELP, PictureCommand, show_all_help
from srcli.cli.options import CommandOptions, collect_settings, make_signature
from srcli.errors import InputError
from srcli.files import path_exists
from srcli.imaging.printable import printable
from srcli.settings import DeviceChoice, ModelChoice, Prompt, Repair, Sampling, TargetSize
from srcli.tasks import COLORIZE, RESTORE, STYLIZE, UPSCALE, Job, Task

if TYPE_CHECKING:
    from srcli.cli.console import PlainListener

    OpenListener = Callable[[], PlainListener]
    RunRounds = Callable[[BatchSettings, OpenListener], int]

# Parameters of a command besides the options of its settings: default and annotation.
EXTRA_PARAMETERS = {
    "ctx": (inspect.Parameter.empty, typer.Context),
    "config": (
        None,
        Annotated[
            Path | None, typer.Option(envvar=CONFIG_VARIABLE, is_eager=True, callback=use_config, help=CONFIG_HELP)
        ],
    ),
    "help_all": (
        False,
        Annotated[bool, typer.Option("--help-all", is_eager=True, callback=show_all_help, help="Show all options.")],
    ),
}


def add_picture_commands(app: typer.Typer) -> None:
    """Add the four commands to the program."""
    for task, about in ABOUT.items():
        app.command(task.name, cls=PictureCommand, help=about)(_make_command(task))


ABOUT: Mapping[Task, str] = {
    UPSCALE: "Enlarge pictures, and clean them on the way.",
    STYLIZE: "Redraw pictures in the manner of a base model.",
    RESTORE: "Mend old photographs: grain, softness, faded tones, and scratches by a mask.",
    COLORIZE: "Give black and white photographs colour; their luminance stays as it is.",
}


def _make_command(task: Task) -> Callable[..., None]:
    def run(ctx: typer.Context, config: Path | None = None, help_all: bool = False, **values: Any) -> None:
        run_task(task, drop_overridden(ctx, values))

    return give_signature(run, EXTRA_PARAMETERS)


def give_signature(run: Callable[..., None], others: Mapping[str, tuple[Any, Any]]) -> Callable[..., None]:
    """Set the signature that Typer reads: a parameter for each option, and `others` with default and annotation."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    more = [inspect.Parameter(name, keyword, default=default, annotation=a) for name, (default, a) in others.items()]
    whole = inspect.Signature([*make_signature().parameters.values(), *more])
    run.__signature__ = whole  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in whole.parameters.items()}
    return run


def _run_once(settings: BatchSettings, listener: PlainListener) -> int:
    from srcli.batch.run import run_batch

    return run_batch(settings, listener).exit_code


def run_task(task: Task, values: Mapping[str, Any], rounds: RunRounds | None = None) -> None:
    """Turn a command's values into settings, and run them, or print what a run would do.

    `rounds` runs several batches, each with its own display, instead of one.
    """
    command = collect_settings(CommandOptions, values)
    input_options = collect_settings(InputOptions, values, inputs=tuple(values["inputs"] or ()))
    output_options = collect_settings(OutputOptions, values, on_exists=_choose_on_exists(command, values["on_exists"]))
    run_options = collect_settings(RunOptions, values)
    job = _collect_job(task, command, input_options, output_options, values)
    models, device = collect_settings(ModelChoice, values), collect_settings(DeviceChoice, values)
    # Imported late, so that help and usage errors are fast.
    from srcli.cli.console import choose_listener

    to_stdout = output_options.path == STDIO
    display = {"as_json": command.as_json, "quiet": command.quiet, "verbose": command.verbose, "null": command.print0}
    open_listener = partial(choose_listener, to_stdout=to_stdout, **display)
    if to_stdout and is_stdout_closed():
        raise InputError("standard output is closed: give -o a file, or redirect it")
    confirm_folder(output_options.path)
    with open_listener() as listener:
        from srcli.engines.choose import settle_choice

        planning = command.explain or command.dry_run
        choice = settle_choice(models, device, job, output_options, only_here=not planning)
        settings = BatchSettings(
            input_options, output_options, run_options, job, PipelineFactory(choice, device, job.repair)
        )
        if planning:
            from srcli.cli.explain import explain_run, list_run

            plan = list_run if command.dry_run else explain_run
            with listener.pause_display():
                raise typer.Exit(plan(settings, command.as_json))
        with listener.pause_display():
            fetch_missing_weights(settings, command, always=rounds is not None)
        if rounds is None:
            raise typer.Exit(_run_once(settings, listener))
    raise typer.Exit(rounds(settings, open_listener))


def _collect_job(
    task: Task, command: CommandOptions, inputs: InputOptions, output: OutputOptions, values: Mapping[str, Any]
) -> Job:
    prompt = collect_settings(Prompt, values, text=_read_prompt(command.prompt_file, values["prompt"]))
    repair = collect_settings(Repair, values, find_scratches=inputs.finds_mask)
    repair.refuse_unused_fill(masked=inputs.mask is not None)
    sizes, sampling = collect_settings(TargetSize, values), collect_settings(Sampling, values)
    settings = {"size": sizes, "sampling": sampling, "prompt": prompt, "repair": repair}
    more = {"guided": bool(inputs.hint or inputs.reference), "mapped": output.map is not None}
    return collect_settings(Job, values, task=task, **settings, **more)


def fetch_missing_weights(settings: BatchSettings, command: CommandOptions, *, always: bool) -> None:
    """Fetch missing weights, unless there is nothing to do or the run cannot begin.

    `always`: even if there is nothing to do yet.
    """
    from srcli.batch.run import has_work
    from srcli.cli.downloads import fetch_weights
    from srcli.engines.required import check_local_files, find_missing_weights
    from srcli.weights.store import Store

    choice = settings.factory.choice
    store = Store(offline=choice.offline)
    check_local_files(choice, store)
    missing = find_missing_weights(choice, store, settings.detectors)
    if missing and (always or has_work(settings)):
        plans = [(entry, store.plan(entry, parts)) for entry, parts in missing]
        fetch_weights(store, plans, yes=command.yes, quiet=command.quiet)


def confirm_folder(path: str | None) -> None:
    """If the parent of the result folder is missing too, it may be a typing error: ask on a terminal, else refuse."""
    if path in (None, STDIO):
        return
    folder = Path(str(path)) if str(path).endswith("/") or not Path(str(path)).suffix else Path(str(path)).parent
    if path_exists(folder) or path_exists(folder.absolute().parent):
        return
    where = printable(folder)
    if not is_on_terminal():
        raise InputError(f"-o {where}: {printable(folder.parent)} is not there either: make it with mkdir -p {where}")
    if not typer.confirm(f"{where} and the folder above it are not there. Make them?", default=True, err=True):
        raise typer.Exit(2)


def _choose_on_exists(command: CommandOptions, word: OnExists) -> OnExists:
    """The choice of --on-exists, of which two have flags of their own."""
    ways: dict[OnExists, bool] = {"overwrite": command.overwrite, "skip": command.skip_existing, word: word != "fail"}
    chosen: list[OnExists] = [way for way, on in ways.items() if on]
    if len(chosen) > 1:
        raise InputError("--overwrite, --skip-existing and --on-exists exclude each other: give one")
    return chosen[0] if chosen else "fail"


def _read_prompt(file: str | None, text: str) -> str:
    if file is None:
        return text
    if text:
        raise InputError("--prompt and --prompt-file exclude each other: give one")
    try:
        return " ".join(Path(file).read_text(encoding="utf-8-sig").split())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as text: {type(error).__name__}") from error
