"""Measure folders of results, with only a few pictures in memory at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from srcli.batch.report import choose_exit_code
from srcli.errors import PictureError, check_range
from srcli.evaluate.pairs import ResultPair, pair_by_name
from srcli.evaluate.sets import FeaturePair, SetPair, describe_small_sets
from srcli.evaluate.weighted import ChosenMetrics, choose_all_metrics
from srcli.imaging.picture import AnyPixels
from srcli.imaging.printable import prefix_name, printable
from srcli.imaging.read import read_picture
from srcli.messages import Tell
from srcli.metrics.network_metrics import SetMetric
from srcli.metrics.registry import SOURCE, TRUTH, Metric
from srcli.metrics.sample import Sample
from srcli.settings import MAX_PIXELS

DEFAULT_SCALE = 4
LEAST_COMPARED_SIDE = 16  # pixels that must be left within the border
CROPPED = "compared over the size that both pictures have"
FLATTENED = "transparency is ignored"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """The folders to measure, and the metrics."""

    results: Path
    against: tuple[Path, ...] = ()
    reference: Path | None = None
    inputs: Path | None = None
    metrics: tuple[str, ...] = ()  # none: all that the given pictures allow
    border: int | None = None  # None: the scale if inputs are given, else 4
    jobs: int = 2
    max_pixels: int = MAX_PIXELS
    allow_pickle: bool = False  # of weights

    def __post_init__(self) -> None:
        if self.border is not None:
            check_range("--border", self.border, 0, 1000)
        check_range("--jobs", self.jobs, 1, 1024)


@dataclass(frozen=True, slots=True)
class Row:
    """The values of one picture."""

    picture: str
    values: Mapping[str, float]
    border: int
    worst_place: tuple[int, int] | None = None  # (x, y) in the input, where the result differs most
    notes: tuple[str, ...] = ()


Measured = tuple[Row, FeaturePair | None]


@dataclass(frozen=True, slots=True)
class Method:
    """The values of one folder of results."""

    name: str
    rows: tuple[Row, ...]
    failed: int = 0
    of_set: Mapping[str, float] = field(default_factory=dict)  # metrics of all pictures together

    def column(self, metric: str) -> list[float]:
        return [row.values[metric] for row in self.rows]

    def by_picture(self, metric: str) -> dict[str, float]:
        return {row.picture: row.values[metric] for row in self.rows}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All values; the other methods are compared with the first."""

    metrics: tuple[Metric, ...]
    methods: tuple[Method, ...]
    absent: tuple[str, ...] = ()  # metrics that were not measured, and what they need
    set_metrics: tuple[SetMetric, ...] = ()

    @property
    def all_metrics(self) -> tuple[Metric | SetMetric, ...]:
        return (*self.metrics, *self.set_metrics)

    @property
    def exit_code(self) -> int:
        return choose_exit_code(sum(len(m.rows) for m in self.methods), sum(m.failed for m in self.methods))

    @property
    def borders(self) -> list[int]:
        return sorted({row.border for method in self.methods for row in method.rows})


def evaluate_methods(request: EvaluationRequest, tell: Tell) -> Evaluation:
    """Measure all methods of a request. A picture that cannot be measured is reported and left out."""
    given = frozenset(w for w, place in ((TRUTH, request.reference), (SOURCE, request.inputs)) if place)
    chosen = choose_all_metrics(request.metrics, given, request.allow_pickle)
    places = (request.results, *request.against)
    planned = [pair_by_name(place, request.reference, request.inputs) for place in places]
    methods = []
    for name, (pairs, notes) in zip(name_methods(places), planned, strict=True):
        for note in notes:
            tell(note)
        methods.append(_measure_method(name, pairs, chosen, request, tell))
    for note in describe_small_sets(chosen.set_metrics, [len(method.rows) for method in methods]):
        tell(note)
    return Evaluation(chosen.metrics, tuple(methods), chosen.absent, chosen.set_metrics)


def name_methods(places: Iterable[Path]) -> list[str]:
    """The name of each folder; if two are equal, the names of their parents; else the paths."""
    whole = [place.resolve() for place in places]
    for names in ([path.name for path in whole], [path.parent.name for path in whole]):
        if len(set(names)) == len(names):
            return [printable(name) for name in names]
    return [printable(path) for path in whole]


def _measure_method(
    name: str, pairs: list[ResultPair], chosen: ChosenMetrics, request: EvaluationRequest, tell: Tell
) -> Method:
    rows, failed, sets = [], 0, SetPair(chosen.set_metrics)
    for pair, future in _measure_ahead(pairs, lambda pair: _measure_all(pair, chosen, request), request.jobs):
        try:
            row, features = future.result()
            rows.append(row)
            if features is not None:
                sets.add(features)
        except PictureError as error:
            failed += 1
            tell(prefix_name(pair.result, str(error)))
    for note in _sum_up_notes(rows):
        tell(f"{name}: {note}")
    return Method(name, tuple(rows), failed, sets.measure())


def _measure_ahead(
    pairs: list[ResultPair], measure: Callable[[ResultPair], Measured], jobs: int
) -> Iterator[tuple[ResultPair, Future[Measured]]]:
    """Yield results in order, with at most `jobs` pictures measured ahead, so that memory does not grow."""
    waiting: deque[tuple[ResultPair, Future[Measured]]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        for pair in pairs:
            waiting.append((pair, pool.submit(measure, pair)))
            if len(waiting) > jobs:
                yield waiting.popleft()
        yield from waiting


def measure_pair(pair: ResultPair, metrics: tuple[Metric, ...], request: EvaluationRequest) -> Row:
    """Read one pair and measure it."""
    sample, notes = _read_sample(pair, request)
    return _measure_sample(pair.name, sample, metrics, notes)


def _measure_all(pair: ResultPair, chosen: ChosenMetrics, request: EvaluationRequest) -> Measured:
    sample, notes = _read_sample(pair, request)
    row = _measure_sample(pair.name, sample, chosen.metrics, notes)
    return row, chosen.extract(sample) if chosen.extract else None


def _read_sample(pair: ResultPair, request: EvaluationRequest) -> tuple[Sample, list[str]]:
    """One pair's pictures, and what is to be said of them. Raises PictureError."""
    notes: list[str] = []
    result = read_rgb_levels(pair.result, request.max_pixels, notes)
    truth = None if pair.truth is None else read_rgb_levels(pair.truth, request.max_pixels, notes)
    source = None if pair.source is None else read_rgb_levels(pair.source, request.max_pixels, notes)
    border = request.border if request.border is not None else _estimate_scale(result, source)
    if truth is not None and truth.shape != result.shape:
        notes.append(CROPPED)
    if min(result.shape[:2]) < 2 * border + LEAST_COMPARED_SIDE:
        raise PictureError(f"it is too small to measure within a border of {border}: lower --border", "size")
    return Sample(result, truth, source, border), notes


def _measure_sample(name: str, sample: Sample, metrics: tuple[Metric, ...], notes: list[str]) -> Row:
    place = sample.deviation.place if sample.source is not None else None
    values = {metric.name: metric.measure(sample) for metric in metrics}
    return Row(name, values, sample.border, place, tuple(dict.fromkeys(notes)))


def _estimate_scale(result: AnyPixels, source: AnyPixels | None) -> int:
    return DEFAULT_SCALE if source is None else max(1, round(result.shape[1] / source.shape[1]))


def read_rgb_levels(path: Path, max_pixels: int, notes: list[str]) -> AnyPixels:
    """RGB levels in 0..255: bytes, or float32 of 16 bits."""
    picture = read_picture(path, max_pixels=max_pixels)
    if picture.alpha is not None:
        notes.append(FLATTENED)
    return picture.pixels if picture.depth == 8 else picture.pixels.astype(np.float32) / 257


def _sum_up_notes(rows: list[Row]) -> Iterator[str]:
    """One line per note, for one picture or for thousands."""
    pictures: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            pictures.setdefault(note, []).append(row.picture)
    for note, names in pictures.items():
        yield f"{printable(names[0]) if len(names) == 1 else f'{len(names)} pictures'}: {note}"
