"""Compare pictures or folders: pages for the browser, an index, a contact sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from srcli.batch.report import choose_exit_code
from srcli.compare.layers import Layer, ReadPicture, check_shapes, read_layer, read_map_of
from srcli.compare.page import IndexItem, PageTable, make_thumbnail, write_index, write_page
from srcli.compare.sheet import Crop, draw_sheet, find_crops
from srcli.errors import InputError, PictureError, check_range
from srcli.evaluate.pairs import ResultPair, find_partner, index_pictures
from srcli.evaluate.run import Evaluation, EvaluationRequest, Method, Row, measure_pair, name_methods
from srcli.evaluate.tables import difference_table, format_title, format_value, protocol_lines, summary_table
from srcli.files import is_dir, is_file, make_folder, name_beside, path_exists, same_file
from srcli.imaging.formats import format_of_name
from srcli.imaging.picture import Picture
from srcli.imaging.printable import printable
from srcli.imaging.read import read_picture
from srcli.imaging.resize import pillow_to_array
from srcli.imaging.write import write_picture
from srcli.messages import Tell
from srcli.metrics.registry import SOURCE, TRUTH, Metric, choose_metrics
from srcli.settings import MASK_ENDING, MAX_PIXELS

INDEX = "index.html"
MEASURED = "How they were measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The pictures to compare, and the files to write."""

    places: tuple[Path, ...]
    reference: Path | None = None
    inputs: Path | None = None
    page: Path | None = None  # a file; a folder where folders are compared
    sheet: Path | None = None
    crops: int = 6
    side: int = 256
    overwrite: bool = False
    max_pixels: int = MAX_PIXELS
    reader: ReadPicture | None = None  # None: in this process

    def __post_init__(self) -> None:
        if len(self.places) < 2 and self.reference is None and self.inputs is None:
            raise InputError("nothing to compare with: name two pictures or folders, or give --reference")
        if len({is_dir(place) for place in self.all_places}) > 1:
            raise InputError("folders and single pictures cannot be mixed: name either")
        check_range("--crops", self.crops, 1, 100)
        check_range("--crop-side", self.side, 32, 2048)
        for target in (self.page, self.sheet):
            if target is not None and any(same_file(target, place) for place in self.all_places):
                raise InputError(f"{printable(target)} is one of the pictures: give another place for the result")
        if Path("-") in (self.page, self.sheet):
            raise InputError("a comparison cannot be written to stdout: give -o or --sheet a path")
        self._check_page()

    def _check_page(self) -> None:
        """Pictures make one file, folders make a folder."""
        if self.page is not None and self.is_of_folders and is_file(self.page):
            raise InputError(f"-o {printable(self.page)} is a file: folders are compared in a folder")
        if self.page is not None and not self.is_of_folders and is_dir(self.page):
            raise InputError(f"-o {printable(self.page)} is a folder: pictures are compared in a file")

    def read(self, path: Path) -> Picture:
        return self.reader(path) if self.reader is not None else read_picture(path, max_pixels=self.max_pixels)

    @property
    def sides(self) -> dict[str, Path]:
        """The references and the inputs, if they are given."""
        sides = {TRUTH: self.reference, SOURCE: self.inputs}
        return {name: place for name, place in sides.items() if place is not None}

    @property
    def all_places(self) -> tuple[Path, ...]:
        return (*self.places, *self.sides.values())

    @property
    def is_of_folders(self) -> bool:
        return is_dir(self.places[0])

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return choose_metrics((), frozenset(self.sides)) if self.sides else ()


@dataclass(frozen=True, slots=True)
class Motif:
    """All versions of one picture, in the order of the places."""

    name: str
    paths: tuple[Path, ...]


@dataclass
class Gathered:
    """What is kept of finished motifs: numbers, crops and index entries, but no pictures."""

    rows: list[tuple[Row, ...]] = field(default_factory=list)
    crops: list[Crop] = field(default_factory=list)
    items: list[IndexItem] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    failed: int = 0

    @property
    def exit_code(self) -> int:
        return choose_exit_code(len(self.items), self.failed)


def build_comparison(wanted: Comparison, tell: Tell) -> Gathered:
    """Write the pages, the index and the sheet. A motif that cannot be read is reported and left out."""
    if wanted.sheet is not None:
        format_of_name(wanted.sheet)
        refuse_existing(wanted.sheet, wanted.overwrite)
    names = [*name_methods(wanted.places), *wanted.sides]
    motifs, notes = find_motifs(wanted)
    for note in notes:
        tell(note)
    done = Gathered()
    for motif in motifs:
        try:
            _compare_motif(motif, names, wanted, done, tell)
        except PictureError as error:
            done.failed += 1
            tell(str(error))
    if wanted.page is not None and wanted.is_of_folders and done.items:
        index = wanted.page / INDEX
        write_index(index, " / ".join(names), done.items, _index_tables(names, wanted, done))
        done.written.insert(0, index)
    if wanted.sheet is not None and done.crops:
        _write_sheet(wanted.sheet, names, done.crops, wanted.crops)
        done.written.append(wanted.sheet)
    return done


def find_motifs(wanted: Comparison) -> tuple[list[Motif], list[str]]:
    """The motifs, and notes on pictures without a counterpart. Raises InputError."""
    if not wanted.is_of_folders:
        for place in wanted.all_places:
            index_pictures(place)
        return [Motif((wanted.reference or wanted.inputs or wanted.places[0]).stem, wanted.all_places)], []
    found = [index_pictures(place) for place in wanted.all_places]
    names = list(index_pictures(wanted.reference or wanted.inputs or wanted.places[0]))
    matched = [match_names(names, pictures) for pictures in found]
    whole = [name for name in names if all(name in pictures for pictures in matched)]
    if not whole:
        raise InputError("no picture is in all folders: give its versions the same name, or NAME_anything")
    notes = [f"{printable(name)} is not in all of the folders: left out" for name in names if name not in whole]
    return [Motif(name, tuple(pictures[name] for pictures in matched)) for name in whole], notes


def match_names(names: Sequence[str], pictures: dict[str, Path]) -> dict[str, Path]:
    """The picture for each name: one with this name, or with a name that extends it, or that it extends."""
    wanted, matched = set(names), dict[str, Path]()
    for picture, path in pictures.items():
        if partner := find_partner(picture, wanted):
            matched.setdefault(partner, path)
    for name in names:
        if name not in matched and (partner := find_partner(name, pictures)):
            matched[name] = pictures[partner]
    return matched


def _compare_motif(motif: Motif, names: list[str], wanted: Comparison, done: Gathered, tell: Tell) -> None:
    layers = [read_layer(path, name, wanted.read) for path, name in zip(motif.paths, names, strict=True)]
    check_shapes(layers)
    masks = list(_read_masks(motif, layers[0], wanted.read, tell))
    rows = _measure_versions(motif, wanted, tell)
    if wanted.page is not None:
        target = wanted.page / f"{motif.name}.html" if wanted.is_of_folders else wanted.page
        refuse_existing(target, wanted.overwrite)
        make_folder(target.parent)
        maps = _read_maps(motif, layers, wanted)
        tables = _motif_tables(rows, names, wanted.metrics)
        title = " / ".join(names)
        if wanted.is_of_folders:
            title = f"{printable(motif.name)}: {title}"
        write_page(target, title, [*layers, *maps, *masks], tables)
        done.written.append(target)
        done.items.append(_index_item(motif, layers[0], rows, wanted))
    if wanted.sheet is not None:
        done.crops += find_crops(motif.name, layers, wanted.side, 1 if wanted.is_of_folders else wanted.crops)
    if rows:
        done.rows.append(rows)


def _read_maps(motif: Motif, layers: list[Layer], wanted: Comparison) -> list[Layer]:
    """The maps of uncertainty beside the results."""
    results = zip(motif.paths, layers, strict=True)
    found = (read_map_of(path, layer, wanted.read) for path, layer in results)
    return [layer for layer in found if layer is not None]


def _read_masks(motif: Motif, first: Layer, read: ReadPicture, tell: Tell) -> Iterator[Layer]:
    """The masks that `--mask auto` wrote beside these pictures."""
    for path in (name_beside(path, MASK_ENDING) for path in motif.paths):
        if not is_file(path):
            continue
        try:
            mask = read_layer(path, f"mask of {path.stem.removesuffix(MASK_ENDING)}", read)
            check_shapes([first, mask])
            yield mask
        except PictureError as error:
            tell(f"the mask is left out: {error}")


def refuse_existing(target: Path, overwrite: bool) -> None:
    if path_exists(target) and not overwrite:
        raise InputError(f"{printable(target)} exists: give --overwrite or another place")


def _measure_versions(motif: Motif, wanted: Comparison, tell: Tell) -> tuple[Row, ...]:
    """The metrics of each version; none if there is nothing to measure against or measuring fails."""
    truth = motif.paths[len(wanted.places)] if wanted.reference is not None else None
    source = motif.paths[-1] if wanted.inputs is not None else None
    if not wanted.metrics:
        return ()
    try:
        request = EvaluationRequest(results=wanted.places[0], max_pixels=wanted.max_pixels)
        pairs = [ResultPair(motif.name, path, truth, source) for path in motif.paths[: len(wanted.places)]]
        return tuple(measure_pair(pair, wanted.metrics, request) for pair in pairs)
    except PictureError as error:
        tell(f"{printable(motif.name)} is shown without numbers: {error}")
        return ()


def _motif_tables(rows: tuple[Row, ...], names: list[str], metrics: tuple[Metric, ...]) -> list[PageTable]:
    if not rows:
        return []
    head = ["", *names[: len(rows)]]
    lines = [
        [format_title(metric), *(format_value(row.values[metric.name], metric) for row in rows)] for metric in metrics
    ]
    protocols = [["metric", "protocol"], *([metric.title, metric.protocol] for metric in metrics)]
    return [PageTable("Metrics", [head, *lines], numbers=True), PageTable(MEASURED, protocols)]


def _index_item(motif: Motif, layer: Layer, rows: tuple[Row, ...], wanted: Comparison) -> IndexItem:
    shortest = wanted.metrics[0] if rows else None
    text = f"{layer.size[0]} x {layer.size[1]}"
    if shortest is not None:
        text += f"; {shortest.title} " + " / ".join(format_value(row.values[shortest.name], shortest) for row in rows)
    return IndexItem(printable(motif.name), quote(f"{motif.name}.html"), make_thumbnail(layer), text)


def _index_tables(names: list[str], wanted: Comparison, done: Gathered) -> list[PageTable]:
    if not done.rows:
        return []
    methods = tuple(Method(name, rows) for name, rows in zip(names, zip(*done.rows, strict=True), strict=False))
    found = Evaluation(wanted.metrics, methods)
    tables = [PageTable("Metrics", summary_table(found), numbers=True)]
    if len(methods) > 1:
        tables.append(PageTable("Differences", difference_table(found), numbers=True))
    return [*tables, PageTable(MEASURED, [["protocol"], *([line] for line in protocol_lines(found))])]


def _write_sheet(target: Path, names: list[str], crops: list[Crop], count: int) -> None:
    largest = sorted(crops, key=lambda crop: -crop.difference)[:count]
    sheet = draw_sheet(names, largest)
    make_folder(target.parent)
    write_picture(Picture(pixels=pillow_to_array(sheet)), target)
