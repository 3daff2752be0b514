"""Update XMP packets: keep what is still true, remove what is not, and add the provenance."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from xml.dom import Node, minidom
from xml.parsers import expat

if TYPE_CHECKING:
    Element = minidom.Element

SRCLI = "urn:srcli:made:1.0#"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_TIFF = "http://ns.adobe.com/tiff/1.0/"
_EXIF = "http://ns.adobe.com/exif/1.0/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_XMLNS = "http://www.w3.org/2000/xmlns/"
_NOTE = "http://ns.adobe.com/xmp/note/"

# Properties of a gain map, a video or a depth map, which the result does not have, and of JPEG's extended packet.
_GONE = frozenset(
    {
        "http://ns.adobe.com/hdr-gain-map/1.0/",
        "http://ns.apple.com/HDRGainMap/1.0/",
        "http://ns.google.com/photos/1.0/container/",
        "http://ns.google.com/photos/1.0/camera/",
        "http://ns.google.com/photos/1.0/depthmap/",
        "http://ns.google.com/photos/1.0/image/",
        _NOTE,
    }
)
# The place where the picture was taken or that it shows, besides coordinates; not the author's address.
_PARTS = frozenset({"City", "CountryCode", "CountryName", "ProvinceState", "Sublocation", "WorldRegion"})
_PLACE = {
    "http://ns.adobe.com/photoshop/1.0/": frozenset({"City", "State", "Country"}),
    "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/": frozenset({"Location", "CountryCode"}),
    _IPTC: _PARTS | {"LocationCreated", "LocationShown", "LocationName", "LocationId"},
    "http://ns.adobe.com/xmp/1.0/DynamicMedia/": frozenset({"shotLocation"}),
}
_EMPTY = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"/></x:xmpmeta>'
_OPEN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
_CLOSE = '<?xpacket end="w"?>'
_PACKET_LIMIT = 1 << 20
_DEEPEST = 200


def update_xmp(
    packet: bytes, size: tuple[int, int], *, gps: bool = True, provenance: Mapping[str, object] | None = None
) -> bytes:
    """The packet of a result, from that of its source. Raises ValueError if the latter is broken."""
    if not packet and provenance is None:
        return b""
    document = _parse(packet or _EMPTY.encode())

    def is_outdated(space: str | None, name: str) -> bool:
        thumbnail = space == _XMP and name == "Thumbnails"
        place = not gps and (name in _PLACE.get(space or "", ()) or (space == _EXIF and name.startswith("GPS")))
        own = space == SRCLI or (space == _IPTC and name == "DigitalSourceType")
        return space in _GONE or thumbnail or place or (own and provenance is not None)

    _remove(document, is_outdated)
    _change(document, {(_TIFF, "Orientation"): "1"})
    for space, names in ((_EXIF, ("PixelXDimension", "PixelYDimension")), (_TIFF, ("ImageWidth", "ImageLength"))):
        _change(document, {(space, name): str(length) for name, length in zip(names, size, strict=True)})
    if provenance is not None:
        _sign(document, provenance)
    root = document.documentElement
    return f"{_OPEN}{root.toxml() if root else ''}{_CLOSE}".encode()


def parse_provenance(packet: bytes) -> dict[str, Any] | None:
    """The provenance in a file that srcli wrote; None for other files."""
    if SRCLI.encode() not in packet or len(packet) > _PACKET_LIMIT:
        return None
    try:
        found = _parse(packet).getElementsByTagNameNS(SRCLI, "made")
        value = json.loads(_text(found[0])) if found else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _parse(packet: bytes) -> minidom.Document:
    data = packet.strip(b"\x00 \r\n\t")
    try:
        _vet(data)
        document = minidom.parseString(data)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise ValueError(f"broken XMP: {error}") from error
    if not document.getElementsByTagNameNS(_RDF, "RDF"):
        raise ValueError("XMP without RDF")
    return document


def _vet(data: bytes) -> None:
    """Refuse packets with entities, or nested so deeply that minidom overflows the stack."""
    depth = 0

    def typed(*_: object) -> None:
        raise ValueError("a document type of its own")

    def begun(*_: object) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise ValueError("elements in elements without end")

    def ended(*_: object) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler, parser.StartElementHandler, parser.EndElementHandler = typed, begun, ended
    parser.Parse(data, True)


def _remove(document: minidom.Document, test: Callable[[str | None, str], bool]) -> None:
    for element in list(document.getElementsByTagName("*")):
        for at in list(element.attributes.values()):
            if at.namespaceURI != _XMLNS and test(at.namespaceURI, at.localName):
                element.removeAttributeNode(at)
        if test(element.namespaceURI, element.localName) and element.parentNode is not None:
            element.parentNode.removeChild(element)


def _change(document: minidom.Document, values: Mapping[tuple[str, str], str]) -> None:
    """Change existing properties, as attributes or elements."""
    for element in list(document.getElementsByTagName("*")):
        for (space, name), value in values.items():
            attribute = element.getAttributeNodeNS(space, name)
            if attribute is not None:
                attribute.value = value
            if (element.namespaceURI, element.localName) == (space, name):
                _fill(document, element, value)


def _sign(document: minidom.Document, provenance: Mapping[str, object]) -> None:
    rdf = document.getElementsByTagNameNS(_RDF, "RDF")[0]
    entry = document.createElementNS(_RDF, "rdf:Description")
    for prefix, space in (("rdf", _RDF), ("Iptc4xmpExt", _IPTC), ("srcli", SRCLI)):
        entry.setAttributeNS(_XMLNS, f"xmlns:{prefix}", space)
    entry.setAttributeNS(_RDF, "rdf:about", _about(document))
    text = {"Iptc4xmpExt:DigitalSourceType": (_IPTC, SOURCE_TYPE), "srcli:made": (SRCLI, json.dumps(dict(provenance)))}
    for name, (space, value) in text.items():
        child = document.createElementNS(space, name)
        _fill(document, child, value)
        entry.appendChild(child)
    rdf.appendChild(entry)


def _about(document: minidom.Document) -> str:
    """The `rdf:about` of the packet, which must be the same for all its descriptions."""
    for element in document.getElementsByTagNameNS(_RDF, "Description"):
        if element.parentNode is not None and element.parentNode.localName == "RDF":
            return str(element.getAttributeNS(_RDF, "about"))
    return ""


def _fill(document: minidom.Document, element: Element, value: str) -> None:
    while element.firstChild is not None:
        element.removeChild(element.firstChild)
    element.appendChild(document.createTextNode(value))


def _text(element: Element) -> str:
    return "".join(node.data for node in element.childNodes if node.nodeType == Node.TEXT_NODE)
