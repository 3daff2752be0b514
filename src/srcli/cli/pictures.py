"""The four picture commands, which differ only in their task."""

from __future__ import annotations

import typer

from srcli.batch.settings import STDIO, BatchSettings, PipelineFactory
from srcli.cli.files import InputFlags, OutputFlags, RunFlags
from srcli.cli.options import ModelFlags, PromptFlags, SamplingFlags, SizeFlags, add_options
from srcli.tasks import COLORIZE, RESTORE, STYLIZE, UPSCALE, Job, Task

FLAG_GROUPS = (InputFlags, OutputFlags, SizeFlags, ModelFlags, PromptFlags, SamplingFlags, RunFlags)


def _run(
    task: Task,
    inputs: InputFlags,
    outputs: OutputFlags,
    sizing: SizeFlags,
    models: ModelFlags,
    prompting: PromptFlags,
    sampling: SamplingFlags,
    running: RunFlags,
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
    # Imported here so that help and usage errors are fast.
    from srcli.cli.console import choose_listener

    to_stdout = output_options.path == STDIO
    told = {"as_json": running.as_json, "quiet": running.quiet, "verbose": running.verbose, "null": running.print0}
    with choose_listener(to_stdout=to_stdout, **told) as listener:
        from srcli.batch.run import run_batch
        from srcli.engines.choose import settle_choice

        choice = settle_choice(wish, device, job, output_options)
        settings = BatchSettings(input_options, output_options, run_options, job, PipelineFactory(choice, device))
        if running.explain:
            from srcli.cli.explain import explain_run

            raise typer.Exit(explain_run(settings, running.as_json))
        report = run_batch(settings, listener)
    raise typer.Exit(report.exit_code)


@add_options(*FLAG_GROUPS)
def upscale_pictures(*groups: object) -> None:
    """Enlarge pictures, and clean them on the way."""
    _run(UPSCALE, *groups)  # type: ignore[arg-type]


@add_options(*FLAG_GROUPS)
def stylize_pictures(*groups: object) -> None:
    """Redraw pictures in the manner of a base model (--base-model)."""
    _run(STYLIZE, *groups)  # type: ignore[arg-type]


@add_options(*FLAG_GROUPS)
def restore_old_photos(*groups: object) -> None:
    """Mend old photographs: grain, fading, scratches, blur."""
    _run(RESTORE, *groups)  # type: ignore[arg-type]


@add_options(*FLAG_GROUPS)
def colorize_pictures(*groups: object) -> None:
    """Give black and white photographs colour; their luminance stays as it is."""
    _run(COLORIZE, *groups)  # type: ignore[arg-type]
