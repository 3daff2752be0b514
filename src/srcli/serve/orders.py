"""Requests of clients, checked before anything is stored. Nothing in them is trusted."""

from __future__ import annotations

from collections.abc import Mapping

from srcli.api import find_task, make_job
from srcli.engines.registry import all_engines
from srcli.errors import InputError, unknown_word
from srcli.imaging.formats import parse_format
from srcli.serve.jobs import JobRecord
from srcli.serve.naming import clean_name
from srcli.serve.options import parse_options, refuse_surrogates
from srcli.weights.store import Store

ORDER_FIELDS = ("task", "engine", "base", "format", "options")


def parse_order(name: str, fields: Mapping[str, str], *, masked: bool = False) -> JobRecord:
    """The job that a form describes, without an id. `masked`: a mask comes with the picture. Raises InputError."""
    if unknown := sorted(set(fields) - set(ORDER_FIELDS)):
        raise InputError(f"`{unknown[0]}` is not a field: choose from {', '.join(ORDER_FIELDS)}")
    refuse_surrogates("image", name)
    name_of_task = fields.get("task", "upscale")
    task = find_task(name_of_task)
    options = parse_options(fields.get("options") or "{}")
    make_job(task, options).repair.refuse_unused_fill(masked=masked)
    engine, base = fields.get("engine") or "auto", fields.get("base") or None
    if engine not in ("auto", *all_engines()):
        raise unknown_word("`engine`", engine, ("auto", *all_engines()))
    # Only names of the lock: a path or an address would let clients open any file.
    if base is not None and base not in Store(offline=True).bases():
        raise InputError(f"`base` {base!r} is not in weights.lock: see `srcli models list`")
    if format := fields.get("format"):
        parse_format(format)
    return JobRecord(
        id="",
        name=clean_name(name),
        task=name_of_task,
        engine=engine,
        base=base,
        format=format or None,
        options=options,
    )
