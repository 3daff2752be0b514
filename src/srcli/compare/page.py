"""The page: one HTML file with script, style and pictures, which loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from string import Template
from typing import TextIO

from PIL import Image

from srcli import __version__
from srcli.compare.layers import Layer
from srcli.compare.tiles import TILE, cut_tiles, encode_webp, level_sizes
from srcli.errors import unwritable_file
from srcli.files import replace_file
from srcli.imaging.printable import printable
from srcli.imaging.resize import pillow_to_array

THUMBNAIL = 480
TableRows = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table with its caption; the first row is the head. Cells from the second column on may be numbers."""

    caption: str
    rows: TableRows
    numbers: bool = False


@dataclass(frozen=True, slots=True)
class IndexItem:
    """One entry of the index: a page, its picture and a line of text."""

    title: str
    link: str
    thumbnail: bytes
    text: str


def write_page(target: Path, title: str, layers: Sequence[Layer], tables: Sequence[PageTable]) -> None:
    """Write a page tile by tile, so that it is never whole in memory. Raises MachineError."""
    script, style = read_part("page.js"), read_part("page.css")
    head = Template(read_part("page.html")).substitute(
        policy=f"default-src 'none'; script-src '{hash_source(script)}'; style-src '{hash_source(style)}'",
        title=html.escape(title),
        style=style,
        first_options=list_options(layers, 0),
        second_options=list_options(layers, 1),
        tables="\n".join(map(render_table, [*tables, facts_table(layers)])),
        footer=page_footer(),
        data=page_data(layers),
    )
    with open_page(target) as file:
        file.write(head)
        for index, layer in enumerate(layers):
            for tile in cut_tiles(layer.pixels):
                key = f"tile-{index}-{tile.level}-{tile.row}-{tile.column}"
                text = base64.b64encode(tile.data).decode("ascii")
                file.write(f'<script type="text/plain" id="{key}">{text}</script>\n')
        file.write(f"<script>{script}</script>\n</body>\n</html>\n")


def write_index(target: Path, title: str, items: Sequence[IndexItem], tables: Sequence[PageTable]) -> None:
    """Write the page with links to the others. Raises MachineError."""
    style = read_part("page.css")
    text = Template(read_part("index.html")).substitute(
        policy=f"default-src 'none'; img-src data:; style-src '{hash_source(style)}'",
        title=html.escape(title),
        style=style,
        tables="\n".join(map(render_table, tables)),
        items="\n".join(map(_render_item, items)),
        footer=page_footer(),
    )
    with open_page(target) as file:
        file.write(text)


@contextmanager
def open_page(target: Path) -> Iterator[TextIO]:
    """Open a text file that replaces the target when it is complete. Raises MachineError."""
    try:
        with replace_file(target) as fresh, fresh.open("w", encoding="utf-8", newline="\n") as file:
            yield file
    except OSError as error:
        raise unwritable_file(printable(target), error, "give another place") from error


@cache
def read_part(name: str) -> str:
    return (resources.files("srcli.compare") / "page" / name).read_text(encoding="utf-8")


def hash_source(text: str) -> str:
    """The hash by which a Content-Security-Policy allows an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def page_data(layers: Sequence[Layer]) -> str:
    """Data for the script, escaped for a script element."""
    pictures = [
        {"name": layer.name, "width": layer.size[0], "height": layer.size[1], "levels": level_sizes(*layer.size)}
        for layer in layers
    ]
    return json.dumps({"tile": TILE, "pictures": pictures}).replace("<", "\\u003c")


def list_options(layers: Sequence[Layer], chosen: int) -> str:
    return "".join(
        f'<option value="{index}"{" selected" if index == chosen else ""}>{html.escape(layer.name)}</option>'
        for index, layer in enumerate(layers)
    )


def facts_table(layers: Sequence[Layer]) -> PageTable:
    """All facts of all pictures, one column per picture."""
    names = list(dict.fromkeys(name for layer in layers for name in layer.facts))
    rows = [[name, *(layer.facts.get(name, "-") for layer in layers)] for name in names]
    return PageTable("Pictures", [["", *(layer.name for layer in layers)], *rows])


def render_table(table: PageTable) -> str:
    head, *rows = ([html.escape(cell) for cell in row] for row in table.rows)
    kind = ' class="number"' if table.numbers else ""
    lines = [f"<h2>{html.escape(table.caption)}</h2>", '<div class="scroll"><table>', "<thead><tr>"]
    lines += [f'<th scope="col">{cell}</th>' for cell in head] + ["</tr></thead>", "<tbody>"]
    for first, *rest in rows:
        cells = "".join(f"<td{kind}>{cell}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody>", "</table></div>"])


def make_thumbnail(layer: Layer) -> bytes:
    picture = Image.fromarray(layer.pixels)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return encode_webp(pillow_to_array(picture))


def page_footer() -> str:
    return f"srcli {html.escape(__version__)}"


def _render_item(item: IndexItem) -> str:
    image = base64.b64encode(item.thumbnail).decode("ascii")
    title, link = html.escape(item.title), html.escape(item.link, quote=True)
    return (
        f'<li><a href="{link}"><img src="data:image/webp;base64,{image}" alt=""><span>{title}</span></a>'
        f'<div class="quiet">{html.escape(item.text)}</div></li>'
    )
