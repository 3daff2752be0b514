"""Pair results with references and inputs by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from srcli.batch.planning.inputs import is_picture
from srcli.errors import InputError
from srcli.files import is_dir, path_exists, same_file
from srcli.imaging.printable import printable
from srcli.settings import MASK_ENDING

_ADDED = re.compile(r"[-_. ].*|x\d.*")  # what programs add to a name: baby_x4, 0801x4, img_001_SRF_4_LR


@dataclass(frozen=True, slots=True)
class ResultPair:
    """A result, and the pictures to measure it against."""

    name: str
    result: Path
    truth: Path | None = None
    source: Path | None = None


def index_pictures(place: Path) -> dict[str, Path]:
    """The pictures of a folder and its subfolders by relative name without extension, sorted; or the one file."""
    if not path_exists(place):
        raise InputError(f"{printable(place)} does not exist: check the name")
    if not is_dir(place):
        return {place.stem: place}
    found: dict[str, Path] = {}
    for path in _without_masks(sorted(_find_pictures(place))):
        name = path.relative_to(place).with_suffix("").as_posix()
        if name in found:
            raise InputError(f"{printable(found[name])} and {printable(path)} have the same name: keep one of them")
        found[name] = path
    if not found:
        raise InputError(f"{printable(place)} holds no picture: check the folder")
    return found


def _find_pictures(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and not is_dir(path) and is_picture(path):
            yield path


def _without_masks(paths: list[Path]) -> Iterator[Path]:
    """Leave out masks that are beside their pictures."""
    stems = {path.with_suffix("") for path in paths}
    return (path for path in paths if (found := find_masked(path)) is None or found not in stems)


def find_masked(path: Path) -> Path | None:
    """The path without extension of the picture whose mask this file is, by its name; None if it is no mask."""
    stem = path.stem.removesuffix(MASK_ENDING)
    return None if stem == path.stem else path.with_name(stem)


def find_partner(name: str, candidates: Collection[str]) -> str | None:
    """The candidate of this name, else the longest that the name extends: `a` for `a_x4`."""
    if name in candidates:
        return name
    shorter = (end for end in range(len(name) - 1, 0, -1) if _ADDED.fullmatch(name[end:]))
    return next((name[:end] for end in shorter if name[:end] in candidates), None)


def pair_by_name(results: Path, reference: Path | None, inputs: Path | None) -> tuple[list[ResultPair], list[str]]:
    """Pairs in order of their names, and notes on pictures without a partner. Raises InputError if nothing matches."""
    found = index_pictures(results)
    sides = {what: index_pictures(place) for what, place in (("reference", reference), ("input", inputs)) if place}
    if all(not is_dir(place) for place in (results, reference, inputs) if place):
        pair = ResultPair((reference or inputs or results).stem, results, reference, inputs)
        return [_refuse_same_file(pair)], []
    pairs, notes, used = [], [], {what: set[str]() for what in sides}
    for name, path in found.items():
        partners = {what: find_partner(name, names) for what, names in sides.items()}
        if missing := [what for what, partner in partners.items() if partner is None]:
            notes.append(f"{printable(path)} has no {missing[0]} of its name: left out")
            continue
        for what, partner in partners.items():
            used[what].add(str(partner))
        pairs.append(_make_pair(name, path, partners, sides))
    notes += [
        f"{printable(sides[w][n])} has no result of its name" for w in sides for n in sides[w] if n not in used[w]
    ]
    return _refuse_duplicates(pairs), notes


def _make_pair(
    name: str, path: Path, partners: Mapping[str, str | None], sides: Mapping[str, Mapping[str, Path]]
) -> ResultPair:
    places = {what: sides[what][partner] for what, partner in partners.items() if partner is not None}
    shared = partners.get("reference") or partners.get("input") or name
    return _refuse_same_file(ResultPair(shared, path, places.get("reference"), places.get("input")))


def _refuse_same_file(pair: ResultPair) -> ResultPair:
    for what, other in (("reference", pair.truth), ("input", pair.source)):
        if other is not None and same_file(pair.result, other):
            raise InputError(f"{printable(pair.result)} is its own {what}: name the folder of results first")
    return pair


def _refuse_duplicates(pairs: list[ResultPair]) -> list[ResultPair]:
    if not pairs:
        raise InputError("no result has a partner: name results like their references, or NAME_anything")
    seen: dict[str, Path] = {}
    for pair in pairs:
        if pair.name in seen:
            one, other = printable(seen[pair.name]), printable(pair.result)
            raise InputError(
                f"{one} and {other} are both results for {pair.name}: keep one, or name the other with --against"
            )
        seen[pair.name] = pair.result
    return pairs
