"""`--explain`: what a run would do, and its memory and time, without running it."""

from __future__ import annotations

import json

from srcli.batch.journal.previous_runs import PreviousRuns
from srcli.batch.planning.output_names import OutputNamer
from srcli.batch.reading.reader import ReaderPool
from srcli.batch.report import ALL_FAILED, SOME_FAILED
from srcli.batch.run import plan_pictures
from srcli.batch.settings import STDIO, BatchSettings
from srcli.cli.boundary import print_error
from srcli.errors import InputError, PictureError
from srcli.imaging.printable import format_count, printable


def explain_run(settings: BatchSettings, as_json: bool) -> int:
    """Print the forecast of each picture. Returns an exit code: pictures that cannot be read count as failed."""
    if STDIO in settings.input.inputs:
        raise InputError("--explain reads a picture's size from its file: name one instead of stdin")
    from srcli.engines.forecast import forecast_run
    from srcli.engines.runtime.device import choose_device, prepare_process
    from srcli.engines.runtime.forecast import measure_speed

    device = choose_device(settings.factory.device)
    prepare_process(device, settings.factory.device.threads)
    readers, rate, counts = ReaderPool(settings.input), measure_speed(device), [0, 0]
    try:
        plan, _, _ = plan_pictures(settings, OutputNamer(settings, readers.size), PreviousRuns(), readers)
        for found in (item.found for item in plan):
            try:
                if found.problem:
                    raise PictureError(found.problem[1], found.problem[0])
                cost = forecast_run(settings.factory.choice, settings.job, readers.size(found.path), device)
                _say({"input": printable(found.path), **cost.fields(device, rate)}, as_json)
                counts[0] += 1
            except PictureError as error:
                print_error(str(error))
                counts[1] += 1
    finally:
        readers.close()
    return 0 if not counts[1] else SOME_FAILED if counts[0] else ALL_FAILED


def _say(plan: dict[str, object], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": "plan", **plan}), flush=True)
        return
    from srcli.engines.runtime.forecast import format_duration

    tiles, steps = format_count(plan["tiles"], "tile"), format_count(plan["steps"], "step")
    if plan["tile"]:
        tiles += f" of {plan['tile']}" + (f", {plan['tiles_at_once']} at once" if plan["tiles"] != 1 else "")
    print(f"{plan['input']}: {plan['result']} by {plan['engine']} on {plan['device']}")
    print(f"  {tiles}; {steps}; {plan['tflop']:,} TFLOP")
    memory = f"{plan['memory_gib']} GiB of memory"
    if plan["host_memory_gib"]:
        memory += f", {plan['host_memory_gib']} GiB of host memory"
    print(f"  about {memory} and {format_duration(float(str(plan['seconds'])))}", flush=True)
