"""What a client asks for, checked before anything is kept. Everything in it is untrusted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from srcli.api import PictureOptions, find_task, make_job
from srcli.engines.registry import all_engines
from srcli.errors import InputError
from srcli.imaging.formats import parse_format
from srcli.serve.jobs import JobRecord
from srcli.serve.naming import clean_name
from srcli.weights.store import Store

FIELDS = ("task", "engine", "base", "format", "options")
LONGEST_OPTIONS = 20_000


def parse_order(name: str, fields: Mapping[str, str]) -> JobRecord:
    """A job of a form's fields, without an identity yet. Raises InputError."""
    if unknown := sorted(set(fields) - set(FIELDS)):
        raise InputError(f"`{unknown[0]}` is no field: choose from {', '.join(FIELDS)}")
    task = find_task(fields.get("task", "upscale"))
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
        task=fields.get("task", "upscale"),
        engine=engine,
        base=base,
        format=given or None,
        options=options,
    )


def parse_options(text: str) -> dict[str, Any]:
    """The options of one picture from a JSON object, each of its type. Raises InputError."""
    if len(text) > LONGEST_OPTIONS:
        raise InputError("`options` is too long")
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"`options` is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise InputError("`options` must be a JSON object")
    types = get_type_hints(PictureOptions)
    if unknown := sorted(given.keys() - types.keys()):
        raise InputError(f"`{unknown[0]}` is no option: choose from {', '.join(types)}")
    return {name: _value(name, value, types[name]) for name, value in given.items()}


def _value(name: str, value: Any, wanted: Any) -> Any:
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if get_origin(wanted) is Literal:
        if value in get_args(wanted):
            return value
        raise InputError(f"`{name}` {value!r} is unknown: choose one of {', '.join(get_args(wanted))}")
    if parts := get_args(wanted):
        if isinstance(value, list) and len(value) == len(parts):
            return tuple(_value(name, one, part) for one, part in zip(value, parts, strict=True))
    elif wanted is not float and type(value) is wanted:
        return value
    raise InputError(f"`{name}` {value!r} is not of its type: give {_describe(wanted)}")


def _describe(wanted: Any) -> str:
    words = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
    return words.get(wanted, "a list of two numbers")
