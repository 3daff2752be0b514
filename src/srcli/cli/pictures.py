"""The four picture commands. They differ in their task alone."""

from __future__ import annotations

import inspect
import sys
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
from srcli.cli.config import CONFIG_VARIABLE, settle_rivals, use_config
from srcli.cli.help import CONFIG_HELP, PictureCommand, show_all
from srcli.cli.options import CommandOptions, collect, signature
from srcli.errors import InputError
from srcli.files import path_exists
from srcli.imaging.printable import printable
from srcli.settings import DeviceChoice, ModelChoice, Prompt, Repair, Sampling, TargetSize
from srcli.tasks import COLORIZE, RESTORE, STYLIZE, UPSCALE, Job, Task

if TYPE_CHECKING:
    from srcli.cli.console import PlainListener

    OpenListener = Callable[[], PlainListener]
    RunRounds = Callable[[BatchSettings, OpenListener], int]

# What a command takes besides the options of its settings.
MORE = {
    "ctx": (inspect.Parameter.empty, typer.Context),
    "config": (
        None,
        Annotated[
            Path | None, typer.Option(envvar=CONFIG_VARIABLE, is_eager=True, callback=use_config, help=CONFIG_HELP)
        ],
    ),
    "help_all": (
        False,
        Annotated[bool, typer.Option("--help-all", is_eager=True, callback=show_all, help="Show all options.")],
    ),
}


def add_picture_commands(app: typer.Typer) -> None:
    """Give the program its four commands."""
    for task, about in ABOUT.items():
        app.command(task.name, cls=PictureCommand, help=about)(_command(task))


ABOUT: Mapping[Task, str] = {
    UPSCALE: "Enlarge pictures, and clean them on the way.",
    STYLIZE: "Redraw pictures in the manner of a base model.",
    RESTORE: "Mend old photographs: grain, softness, faded tones, and scratches by a mask.",
    COLORIZE: "Give black and white photographs colour; their luminance stays as it is.",
}


def _command(task: Task) -> Callable[..., None]:
    def run(ctx: typer.Context, config: Path | None = None, help_all: bool = False, **values: Any) -> None:
        run_task(task, settle_rivals(ctx, values))

    return give_signature(run, MORE)


def give_signature(run: Callable[..., None], others: Mapping[str, tuple[Any, Any]]) -> Callable[..., None]:
    """Give a function a parameter for each option, as Typer reads them, and for others with default and annotation."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    more = [inspect.Parameter(name, keyword, default=default, annotation=a) for name, (default, a) in others.items()]
    given = signature()
    whole = given.replace(parameters=[*given.parameters.values(), *more])
    run.__signature__ = whole  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in whole.parameters.items()}
    return run


def _run_once(settings: BatchSettings, listener: PlainListener) -> int:
    from srcli.batch.run import run_batch

    return run_batch(settings, listener).exit_code


def run_task(task: Task, values: Mapping[str, Any], rounds: RunRounds | None = None) -> None:
    """Turn a command's values into settings, and run them, or print what a run would do.

    `rounds` runs batch after batch instead of one, and opens a display for each.
    """
    command = collect(CommandOptions, values)
    input_options = collect(InputOptions, values, inputs=tuple(values["inputs"] or ()))
    output_options = collect(OutputOptions, values, on_exists=_on_exists(command, values["on_exists"]))
    run_options, job = collect(RunOptions, values), _collect_job(task, command, input_options, output_options, values)
    wish, device = collect(ModelChoice, values), collect(DeviceChoice, values)
    # What only a run needs is loaded by a run: help and usage errors answer at once.
    from srcli.cli.console import choose_listener

    to_stdout = output_options.path == STDIO
    told = {"as_json": command.as_json, "quiet": command.quiet, "verbose": command.verbose, "null": command.print0}
    open_listener = partial(choose_listener, to_stdout=to_stdout, **told)
    confirm_folder(output_options.path)
    with open_listener() as listener:
        from srcli.engines.choose import settle_choice

        planning = command.explain or command.dry_run
        choice = settle_choice(wish, device, job, output_options, only_here=not planning)
        settings = BatchSettings(
            input_options, output_options, run_options, job, PipelineFactory(choice, device, job.repair)
        )
        if planning:
            from srcli.cli.explain import explain_run, list_run

            plan = list_run if command.dry_run else explain_run
            raise typer.Exit(plan(settings, command.as_json))
        with listener.aside():
            bring_lacking(settings, command, surely=rounds is not None)
        if rounds is None:
            raise typer.Exit(_run_once(settings, listener))
    raise typer.Exit(rounds(settings, open_listener))


def _collect_job(
    task: Task, command: CommandOptions, given: InputOptions, output: OutputOptions, values: Mapping[str, Any]
) -> Job:
    prompt = collect(Prompt, values, text=_prompt(command.prompt_file, values["prompt"]))
    repair = collect(Repair, values, find_scratches=given.finds_mask)
    repair.refuse_unused_fill(masked=given.mask is not None)
    sizes, sampling = collect(TargetSize, values), collect(Sampling, values)
    settings = {"size": sizes, "sampling": sampling, "prompt": prompt, "repair": repair}
    more = {"guided": bool(given.hint or given.reference), "mapped": output.map is not None}
    return collect(Job, values, task=task, **settings, **more)


def bring_lacking(settings: BatchSettings, command: CommandOptions, *, surely: bool) -> None:
    """Fetch the weights that are not here, unless there is nothing to do or the run cannot begin.

    `surely`: there will be something to do.
    """
    from srcli.batch.run import has_work
    from srcli.cli.downloads import bring_weights
    from srcli.engines.required import check_local_files, find_lacking
    from srcli.weights.store import Store

    choice = settings.factory.choice
    store = Store(offline=choice.offline)
    check_local_files(choice, store)
    lacking = find_lacking(choice, store, settings.detectors)
    if lacking and (surely or has_work(settings)):
        plans = [(entry, store.plan(entry, parts)) for entry, parts in lacking]
        bring_weights(store, plans, yes=command.yes, quiet=command.quiet)


def confirm_folder(path: str | None) -> None:
    """A folder whose own folder is missing too may be a slip: ask on a terminal, refuse elsewhere."""
    if path in (None, STDIO):
        return
    folder = Path(str(path)) if str(path).endswith("/") or not Path(str(path)).suffix else Path(str(path)).parent
    if path_exists(folder) or path_exists(folder.absolute().parent):
        return
    where = printable(folder)
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        raise InputError(f"-o {where}: {printable(folder.parent)} is not there either: make it with mkdir -p {where}")
    if not typer.confirm(f"{where} and the folder above it are not there. Make them?", default=True, err=True):
        raise typer.Exit(2)


def _on_exists(command: CommandOptions, word: OnExists) -> OnExists:
    """Two of its words have flags of their own."""
    ways: dict[OnExists, bool] = {"overwrite": command.overwrite, "skip": command.skip_existing, word: word != "fail"}
    given: list[OnExists] = [way for way, on in ways.items() if on]
    if len(given) > 1:
        raise InputError("--overwrite, --skip-existing and --on-exists exclude each other: give one")
    return given[0] if given else "fail"


def _prompt(file: str | None, text: str) -> str:
    if file is None:
        return text
    if text:
        raise InputError("--prompt and --prompt-file exclude each other: give one")
    try:
        return " ".join(Path(file).read_text(encoding="utf-8-sig").split())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as text: {type(error).__name__}") from error
