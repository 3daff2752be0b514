"""What a client asks for, checked before anything is kept. Everything in it is untrusted."""

from __future__ import annotations

from collections.abc import Mapping

from srcli.api import find_task, make_job
from srcli.engines.registry import all_engines
from srcli.errors import InputError
from srcli.imaging.formats import parse_format
from srcli.serve.jobs import JobRecord
from srcli.serve.naming import clean_name
from srcli.serve.options import parse_options, refuse_surrogates
from srcli.weights.store import Store

ORDER_FIELDS = ("task", "engine", "base", "format", "options")


def parse_order(name: str, fields: Mapping[str, str]) -> JobRecord:
    """A job of a form's fields, without an identity yet. Raises InputError."""
    if unknown := sorted(set(fields) - set(ORDER_FIELDS)):
        raise InputError(f"`{unknown[0]}` is no field: choose from {', '.join(ORDER_FIELDS)}")
    refuse_surrogates("image", name)
    word = fields.get("task", "upscale")
    task = find_task(word)
    options = parse_options(fields.get("options") or "{}")
    make_job(task, options)
    engine, base = fields.get("engine") or "auto", fields.get("base") or None
    if engine not in ("auto", *all_engines()):
        raise InputError(f"`engine` {engine!r} is unknown: choose one of auto, {', '.join(all_engines())}")
    # A path or an address would have the server open what its visitor likes.
    if base is not None and base not in Store(offline=True).bases():
        raise InputError(f"`base` {base!r} is not in weights.lock: see `srcli models list`")
    if given := fields.get("format"):
        parse_format(given)
    return JobRecord(
        id="",
        name=clean_name(name),
        task=word,
        engine=engine,
        base=base,
        format=given or None,
        options=options,
    )
