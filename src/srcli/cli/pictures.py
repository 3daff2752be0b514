"""The four commands. They differ in their task alone."""

from __future__ import annotations

import typer

from srcli.batch.settings import STDIO, BatchSettings, PipelineFactory
from srcli.cli.files import Inputs, Outputs, Running
from srcli.cli.options import Models, Prompting, Sampling, Sizing, takes
from srcli.tasks import COLORIZE, RESTORE, STYLIZE, UPSCALE, Job, Task

GROUPS = (Inputs, Outputs, Sizing, Models, Prompting, Sampling, Running)


def _run(
    task: Task,
    inputs: Inputs,
    outputs: Outputs,
    sizing: Sizing,
    models: Models,
    prompting: Prompting,
    sampling: Sampling,
    running: Running,
) -> None:
    input_options, output_options, run_options = inputs.input_options(), outputs.output_options(), running.run_options()
    job = Job(
        task=task,
        size=sizing.frozen(),
        sampling=sampling.frozen(),
        prompt=prompting.frozen(),
        seed=sampling.seed,
        consistent=sampling.consistent,
    )
    wish, device = models.choice(), models.where()
    # What only a run needs is loaded by a run: help and usage errors answer at once.
    from srcli.cli.console import watch

    to_stdout = output_options.path == STDIO
    told = {"as_json": running.as_json, "quiet": running.quiet, "verbose": running.verbose, "null": running.print0}
    with watch(to_stdout=to_stdout, **told) as listener:
        from srcli.batch.run import run_batch
        from srcli.engines.choose import settle_choice

        choice = settle_choice(wish, device, job, output_options)
        settings = BatchSettings(input_options, output_options, run_options, job, PipelineFactory(choice, device))
        if running.explain:
            from srcli.cli.explain import explain

            raise typer.Exit(explain(settings, running.as_json))
        report = run_batch(settings, listener)
    raise typer.Exit(report.exit_code)


@takes(*GROUPS)
def upscale(*groups: object) -> None:
    """Enlarge pictures, and clean them on the way."""
    _run(UPSCALE, *groups)  # type: ignore[arg-type]


@takes(*GROUPS)
def stylize(*groups: object) -> None:
    """Redraw pictures in the manner of a base model (--base-model)."""
    _run(STYLIZE, *groups)  # type: ignore[arg-type]


@takes(*GROUPS)
def restore_old_photo(*groups: object) -> None:
    """Mend old photographs: grain, fading, scratches, blur."""
    _run(RESTORE, *groups)  # type: ignore[arg-type]


@takes(*GROUPS)
def colorize(*groups: object) -> None:
    """Give black and white photographs colour; their luminance stays as it is."""
    _run(COLORIZE, *groups)  # type: ignore[arg-type]
