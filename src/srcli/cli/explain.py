"""`--explain` and `--dry-run`: what a run would do, and its cost, without running it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from srcli.batch.journal.previous_runs import PreviousRuns
from srcli.batch.planning.decide import Decider
from srcli.batch.planning.output_names import OutputNamer
from srcli.batch.planning.plan import Item
from srcli.batch.reading.reader import ReaderPool
from srcli.batch.report import FAILED, Outcome, Tally, outcome_of_error
from srcli.batch.run import plan_pictures
from srcli.batch.settings import STDIO, BatchSettings
from srcli.cli.boundary import print_error
from srcli.errors import InputError, PictureError
from srcli.imaging.formats import format_of_name
from srcli.imaging.printable import format_bytes, format_count, printable
from srcli.imaging.tone import correct_tone

if TYPE_CHECKING:
    from srcli.engines.runtime.device import Device
    from srcli.engines.runtime.forecast import Forecast

# Average of enlarged photographs of 8 bits; single files differ by a factor of two.
FILE_BYTES_PER_PIXEL = {"PNG": 1.6, "JPEG": 0.6, "WEBP": 0.5, "AVIF": 0.4, "TIFF": 2.0, "BMP": 3.0, "PPM": 3.0}
MEGAPIXEL = 1e6


@dataclass(frozen=True)
class Planned:
    """What would be done to one picture."""

    item: Item
    size: tuple[int, int]
    cost: Forecast
    findings: Mapping[str, float] = field(default_factory=dict)  # in the picture; empty if it was not inspected

    @property
    def pixels(self) -> int:
        return self.cost.result[0] * self.cost.result[1]

    @property
    def bytes(self) -> float:
        """Estimated size of the result's file."""
        target = self.item.target
        kind = format_of_name(target).name if target.suffix else "PNG"
        return self.pixels * FILE_BYTES_PER_PIXEL.get(kind, FILE_BYTES_PER_PIXEL["PNG"])


@dataclass
class Totals:
    """Counts and costs of the pictures of a run."""

    tally: Tally = field(default_factory=Tally)
    pixels: float = 0.0
    flop: float = 0.0
    bytes: float = 0.0

    def add(self, planned: Planned | Outcome) -> None:
        if isinstance(planned, Outcome):
            self.tally.add(planned)
            return
        self.tally.done += 1
        self.pixels += planned.pixels
        self.flop += planned.cost.flop
        self.bytes += planned.bytes

    def fields(self, speed: float) -> dict[str, object]:
        return {
            "pictures": self.tally.done,
            "skipped": self.tally.skipped,
            "failed": self.tally.failed,
            "megapixels": round(self.pixels / MEGAPIXEL, 2),
            "tflop": round(self.flop / 1e12, 3),
            "seconds": round(self.flop / speed, 1),
            "bytes": round(self.bytes),
        }


class Forecaster:
    """Plans the pictures of a run on this machine."""

    def __init__(self, settings: BatchSettings, *, decide: bool) -> None:
        """`decide`: check which results exist already."""
        from srcli.engines.runtime.device import choose_device, prepare_process
        from srcli.engines.runtime.forecast import known_speed

        if STDIO in settings.input.inputs:
            raise InputError("a picture's size is read from its file: name one instead of stdin")
        self.settings, self.decide = settings, decide
        self.device: Device = choose_device(settings.factory.device)
        prepare_process(self.device, settings.factory.device.threads)
        self.speed, self.totals = known_speed(self.device), Totals()
        self.readers = ReaderPool(settings.input)

    def plan(self) -> Iterator[Planned | Outcome]:
        """Every picture, with its cost or with the reason why there is nothing to do."""
        try:
            for planned in self._plan():
                self.totals.add(planned)
                yield planned
        finally:
            self.readers.close()

    def _plan(self) -> Iterator[Planned | Outcome]:
        settings, previous = self.settings, PreviousRuns()
        namer = OutputNamer(settings, self.readers.size)
        plan, _, _ = plan_pictures(settings, namer, previous, self.readers)
        if self.decide:
            plan.place(namer, settings.output.on_exists == "rename", settings.input)
        decider = Decider(settings, plan, previous, self.readers.provenance)
        for item in plan:
            decided = decider.decide(item) if self.decide or item.found.problem else item
            yield decided if isinstance(decided, Outcome) else self._forecast(decided)

    def _forecast(self, item: Item) -> Planned | Outcome:
        from srcli.engines.forecast import forecast_run

        run = self.settings.factory.choice, self.settings.job
        try:
            size = self.readers.size(item.path)
            cost = forecast_run(*run, size, self.device)
            return Planned(item, size, cost, {} if self.decide else self._inspect(item))
        except PictureError as error:
            return outcome_of_error(item.path, error)

    def _inspect(self, item: Item) -> Mapping[str, float]:
        """What the engine finds in the picture; reads it only if the engine inspects pictures."""
        from srcli.engines.forecast import inspect_picture
        from srcli.engines.registry import find_engine

        choice = self.settings.factory.choice
        if find_engine(choice.engine).inspect is None:
            return {}
        picture = self.readers.read(item.path, frame=item.found.frame)
        repaired = (
            picture.pixels if self.settings.job.tone == "none" else correct_tone(picture.pixels, picture.alpha)[0]
        )
        return inspect_picture(choice, self.settings.job, repaired, self.device)


def list_stages(settings: BatchSettings, item: Item) -> list[str]:
    """The steps that a picture goes through."""
    job = settings.job
    sides = settings.input.sides_for(item.path, item.found.root).by_role()
    stages = {
        "find scratches": job.repair.find_scratches,
        f"fill damage ({job.repair.fill})": job.repair.find_scratches or "mask" in sides,
        "correct tone": job.tone != "none",
        f"{job.task.name} ({settings.factory.choice.engine})": True,
        "reference": "reference" in sides,
        "strokes": "hint" in sides,
        "luminance of the source": job.task.keep_luma,
    }
    return [stage for stage, done in stages.items() if done]


def explain_run(settings: BatchSettings, as_json: bool) -> int:
    """Print the plan of each picture, and the totals."""
    forecaster = Forecaster(settings, decide=False)
    for planned in forecaster.plan():
        if isinstance(planned, Outcome):
            print_error(str(planned.message))
            continue
        facts = planned.cost.fields(forecaster.device, forecaster.speed)
        found = {name: round(value, 2) for name, value in planned.findings.items()}
        facts |= {"stages": list_stages(settings, planned.item), **({"found": found} if found else {})}
        _print_plan({"input": printable(planned.item.path), **facts}, as_json)
    _print_totals(forecaster, as_json)
    return forecaster.totals.tally.exit_code


def list_run(settings: BatchSettings, as_json: bool) -> int:
    """Print what would happen to each picture, and the totals."""
    forecaster = Forecaster(settings, decide=True)
    for planned in forecaster.plan():
        facts = _describe_action(planned)
        if as_json:
            print(json.dumps({"event": "would", **facts}), flush=True)
        else:
            print(" ".join(_format_action(facts)), flush=True)
    _print_totals(forecaster, as_json)
    return forecaster.totals.tally.exit_code


def _describe_action(planned: Planned | Outcome) -> dict[str, object]:
    if isinstance(planned, Outcome):
        action = "fail" if planned.status == FAILED else "skip"
        return {"do": action, "input": printable(planned.source), "reason": planned.message or planned.kind}
    action = "replace" if planned.item.replace else "make"
    output, sizes = printable(planned.item.target), {"from": planned.size, "to": planned.cost.result}
    return {"do": action, "input": printable(planned.item.path), "output": output, **sizes}


def _format_action(facts: dict[str, object]) -> Iterator[str]:
    yield f"{facts['do']:8}{facts['input']}"
    if "reason" in facts:
        yield f"({facts['reason']})"
        return
    yield f"-> {facts['output']}"
    sides = (facts["from"], facts["to"])
    yield "({}x{} to {}x{})".format(*(side for size in sides if isinstance(size, tuple) for side in size))


def _print_plan(plan: dict[str, object], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": "plan", **plan}), flush=True)
        return
    from srcli.engines.runtime.forecast import format_duration

    tiles, steps = format_count(plan["tiles"], "tile"), format_count(plan["steps"], "step")
    if plan["tile"]:
        tiles += f" of {plan['tile']}" + (f", {plan['tiles_at_once']} at once" if plan["tiles"] != 1 else "")
    print(f"{plan['input']}: {plan['result']} by {plan['engine']} on {plan['device']}")
    print("  stages: " + ", ".join(map(str, plan["stages"] if isinstance(plan["stages"], list) else ())))
    print(f"  {tiles}; {steps}; {plan['tflop']:,} TFLOP")
    memory = f"{plan['memory_gib']} GiB of memory"
    if plan["host_memory_gib"]:
        memory += f", {plan['host_memory_gib']} GiB of host memory"
    print(f"  about {memory} and {format_duration(float(str(plan['seconds'])))}", flush=True)
    if isinstance(found := plan.get("found"), dict):
        levels = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
        print(f"  damage, 0 none to 1 heavy: {levels}", flush=True)


def _print_totals(forecaster: Forecaster, as_json: bool) -> None:
    """Print the totals, unless they equal the plan of a single picture."""
    from srcli.engines.runtime.forecast import format_duration

    totals, tally = forecaster.totals, forecaster.totals.tally
    if not forecaster.decide and tally.done < 2:
        return
    if as_json:
        print(json.dumps({"event": "totals", **totals.fields(forecaster.speed)}), flush=True)
        return
    others = ((tally.skipped, "to skip"), (tally.failed, "would fail"))
    rest = [f"{count} {word}" for count, word in others if count]
    print(", ".join((f"{format_count(tally.done, 'picture')} to make", *rest)), end=": ")
    took = format_duration(totals.flop / forecaster.speed)
    space = f"{took} on {forecaster.device} and about {format_bytes(round(totals.bytes))} of disk"
    print(f"{totals.pixels / MEGAPIXEL:,.1f} megapixels, {space}", flush=True)
