"""An evaluation as text, CSV, Markdown or JSON, with the protocol of its metrics."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

from srcli import __version__
from srcli.evaluate.run import Evaluation, Method
from srcli.evaluate.statistics import (
    CONFIDENCE,
    RESAMPLES,
    Difference,
    mean_of_known,
    median_of_known,
    paired_difference,
)
from srcli.imaging.printable import printable
from srcli.metrics.network_metrics import SetMetric
from srcli.metrics.registry import Metric

Table = list[list[str]]  # the first row is the head
_ARROWS = {"higher": " ↑", "lower": " ↓"}


def summary_table(found: Evaluation) -> Table:
    """A row per metric: mean and median of each method."""
    statistics = {"mean": mean_of_known, "median": median_of_known}
    head = ["metric", *(f"{printable(method.name)}, {word}" for method in found.methods for word in statistics)]
    rows = [
        [
            format_title(m),
            *(format_value(f(method.column(m.name)), m) for method in found.methods for f in statistics.values()),
        ]
        for m in found.metrics
    ]
    return [head, *rows]


def set_table(found: Evaluation) -> Table:
    """A row per metric of whole sets: one value of each method; empty if there is no such metric."""
    if not found.set_metrics:
        return []
    head = ["whole set", *(printable(method.name) for method in found.methods)]
    rows = [
        [format_title(m), *(format_value(method.of_set.get(m.name, math.nan), m) for method in found.methods)]
        for m in found.set_metrics
    ]
    return [head, *rows]


def difference_table(found: Evaluation) -> Table:
    """A row per metric: the first method minus each other one; empty if there is only one."""
    first, *others = found.methods
    if not others:
        return []
    head = ["difference", *(f"{printable(first.name)} - {printable(other.name)}" for other in others)]
    rows = [
        [format_title(m), *(_format_interval(compare_methods(first, other, m.name), m) for other in others)]
        for m in found.metrics
    ]
    return [head, *rows]


def picture_table(found: Evaluation) -> Table:
    """A row per picture and method."""
    head = ["picture", "method", *(format_title(metric) for metric in found.metrics)]
    rows = [
        [printable(row.picture), printable(method.name), *(format_value(row.values[m.name], m) for m in found.metrics)]
        for method in found.methods
        for row in method.rows
    ]
    return [head, *rows]


def protocol_lines(found: Evaluation) -> list[str]:
    borders = ", ".join(map(str, found.borders))
    count = ", ".join(str(n) for n in sorted({len(method.rows) for method in found.methods}))
    cropped = f"; cropped border: {borders} pixels" if borders else ""  # none without a picture
    lines = [f"srcli {__version__}; pictures: {count}{cropped}"]
    lines += [f"{metric.title}: {metric.protocol}" for metric in found.all_metrics]
    if len(found.methods) > 1 and found.metrics:
        lines.append(f"differences: mean over the same pictures, {_describe_bootstrap()}")
    return [*lines, *describe_gaps(found), *found.absent]


def describe_gaps(found: Evaluation) -> list[str]:
    """A line per metric that could not be measured in some pictures, with the reason."""
    lines = []
    for metric in found.metrics:
        values = [value for method in found.methods for value in method.column(metric.name)]
        if without := sum(map(math.isnan, values)):
            lines.append(f"{metric.title}: {without} of {len(values)} without a value: it is for {metric.applies_to}")
    return lines


def compare_methods(first: Method, other: Method, metric: str) -> Difference | None:
    """The difference over the pictures that both have."""
    theirs = other.by_picture(metric)
    pairs = [(value, theirs[name]) for name, value in first.by_picture(metric).items() if name in theirs]
    return paired_difference([a for a, _ in pairs], [b for _, b in pairs])


def format_title(metric: Metric | SetMetric) -> str:
    return metric.title + _ARROWS.get(metric.better, "")


def format_value(value: float, metric: Metric | SetMetric) -> str:
    return "-" if math.isnan(value) else f"{value:.{metric.digits}f}"


def plain_text(found: Evaluation, *, pictures: bool) -> str:
    """All tables in aligned columns, and the protocol."""
    parts = ["\n".join(_aligned_rows(table)) for table in _collect_tables(found, pictures)]
    return "\n\n".join([*parts, "\n".join(protocol_lines(found))])


def format_markdown(found: Evaluation, *, pictures: bool) -> str:
    """All tables, and the protocol as a list."""
    parts = ["\n".join(_markdown_rows(table)) for table in _collect_tables(found, pictures)]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in protocol_lines(found))])


def _collect_tables(found: Evaluation, pictures: bool) -> list[Table]:
    of_pictures = [picture_table(found) if pictures else [], summary_table(found), difference_table(found)]
    tables = [*(of_pictures if found.metrics else []), set_table(found)]
    return [table for table in tables if table]


def _aligned_rows(table: Table) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]


def csv_text(found: Evaluation) -> str:
    """A line per picture and method, with full precision; metrics of sets and protocol in lines that begin with #."""
    out = io.StringIO()
    for line in protocol_lines(found):
        out.write(f"# {line}\n")
    for method in found.methods:
        for name, value in method.of_set.items():
            out.write(f"# {name} of {printable(method.name)}: {value!r}\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["picture", "method", *(metric.name for metric in found.metrics)])
    for method in found.methods:
        for row in method.rows:
            writer.writerow([row.picture, method.name, *(repr(row.values[m.name]) for m in found.metrics)])
    return out.getvalue().rstrip("\n")


def json_text(found: Evaluation) -> str:
    """One object; infinite and missing values are null."""
    protocol = {metric.name: metric.protocol for metric in found.all_metrics}
    facts = {
        "srcli": __version__,
        "protocol": {"border": found.borders, "bootstrap": _describe_bootstrap(), **protocol},
        "methods": [_method_fields(method, found.metrics) for method in found.methods],
        "absent": list(found.absent),
        "gaps": describe_gaps(found),
        "differences": [_difference_fields(found, other) for other in found.methods[1:]],
    }
    return json.dumps(facts, ensure_ascii=True)


def _method_fields(method: Method, metrics: tuple[Metric, ...]) -> dict[str, Any]:
    rows = []
    for row in method.rows:
        place = {"worst_at": row.worst_place} if row.worst_place is not None else {}
        rows.append({"picture": row.picture, **_replace_infinite(row.values), **place})
    columns = {metric.name: method.column(metric.name) for metric in metrics}
    return {
        "method": method.name,
        "failed": method.failed,
        "mean": _replace_infinite({name: mean_of_known(values) for name, values in columns.items()}),
        "median": _replace_infinite({name: median_of_known(values) for name, values in columns.items()}),
        "set": _replace_infinite(method.of_set),
        "pictures": rows,
    }


def _difference_fields(found: Evaluation, other: Method) -> dict[str, Any]:
    fields: dict[str, Any] = {"method": found.methods[0].name, "minus": other.name}
    for metric in found.metrics:
        gap = compare_methods(found.methods[0], other, metric.name)
        fields[metric.name] = gap and {"mean": gap.mean, "low": gap.low, "high": gap.high, "pictures": gap.pictures}
    return fields


def _replace_infinite(values: Any) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _format_interval(gap: Difference | None, metric: Metric) -> str:
    if gap is None:
        return "-"
    digits = metric.digits
    return f"{gap.mean:+.{digits}f} [{gap.low:+.{digits}f}, {gap.high:+.{digits}f}]"


def _markdown_rows(table: Table) -> list[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    return [lines[0], "|---" * len(table[0]) + "|", *lines[1:]]


def _describe_bootstrap() -> str:
    return f"{CONFIDENCE:.0%} percentile bootstrap of {RESAMPLES} paired resamples"
