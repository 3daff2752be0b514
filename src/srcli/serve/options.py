"""The options of one picture, from JSON, with their types checked."""

from __future__ import annotations

import json
import math
from typing import Any, Literal, get_args, get_origin, get_type_hints

from srcli.api import PictureOptions, check_option_names
from srcli.errors import InputError, unknown_word

LONGEST_OPTIONS = 20_000


def parse_options(text: str) -> dict[str, Any]:
    """Parse the options of one picture from a JSON object. Raises InputError."""
    if len(text) > LONGEST_OPTIONS:
        raise InputError("`options` is too long")
    refuse_surrogates("options", text)
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"`options` is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise InputError("`options` must be a JSON object")
    refuse_surrogates("options", json.dumps(given, ensure_ascii=False))
    types = get_type_hints(PictureOptions)
    check_option_names(given)
    return {name: _convert_value(name, value, types[name]) for name, value in given.items()}


def _convert_value(name: str, value: Any, wanted: Any) -> Any:
    if wanted is float and _is_finite(value):
        return float(value)
    if get_origin(wanted) is Literal:
        if value in get_args(wanted):
            return value
        raise unknown_word(f"`{name}`", value, get_args(wanted))
    if parts := get_args(wanted):
        if isinstance(value, list) and len(value) == len(parts):
            return tuple(_convert_value(name, one, part) for one, part in zip(value, parts, strict=True))
    elif wanted is not float and type(value) is wanted:
        return value
    raise InputError(f"`{name}` {value!r} is not of its type: give {_describe_type(wanted)}")


def _describe_type(wanted: Any) -> str:
    words = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
    return words.get(wanted, "a list of two numbers")


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def refuse_surrogates(name: str, text: str) -> None:
    """Raises InputError for lone surrogates: they cannot be encoded as UTF-8 in an answer."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"`{name}` holds characters that are no text") from error
