"""What a file says besides its pixels survives, is brought up to date, or is taken out."""

import json
import struct
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from PIL import Image
from tests.unit.imaging.builders import (
    IPTC,
    MAKER_NOTE,
    THUMBNAIL,
    XMP,
    chunk,
    exif_block,
    noise,
    photoshop,
    png,
    ramp,
    saved,
    tiff,
)

from srcli.imaging import exif, iptc, xmp
from srcli.imaging.picture import Metadata
from srcli.imaging.prepare_output import SaveOptions
from srcli.imaging.provenance import read_provenance
from srcli.imaging.read import read_picture
from srcli.imaging.write import write_picture

CARRIERS = [".jpg", ".png", ".webp", ".tif", ".avif"]
PROVENANCE = {
    "tool": "srcli 9.9",
    "engine": "built-in",
    "models": {"a": "f" * 64},
    "seed": 7,
    "prompt": "café <&> \x00 \u2028",
}
MAIN, DETAILS, GPS = 0x112, 0x8769, 0x8825


def camera_file() -> bytes:
    """A JPEG as from a camera and an editor: EXIF, XMP, IPTC, density, comment."""
    return saved(
        ramp(24, 32),
        "JPEG",
        exif=b"Exif\x00\x00" + exif_block(),
        xmp=XMP,
        extra=photoshop(),
        dpi=(300, 300),
        comment="A comment",
    )


@pytest.fixture
def picture():
    return read_picture(camera_file())


def written(picture, path, **options):
    write_picture(picture, path, **options)
    return Image.open(path)


def test_the_source_is_understood(picture):
    assert (picture.width, picture.height) == (24, 32)
    assert picture.metadata == Metadata(exif=exif_block(), xmp=XMP, iptc=IPTC, dpi=(300.0, 300.0), comment=b"A comment")


@pytest.mark.parametrize("suffix", CARRIERS)
@pytest.mark.parametrize("provenance", [None, PROVENANCE])
def test_exif_survives_in_every_format(suffix, provenance, picture, tmp_path):
    with written(picture, tmp_path / f"a{suffix}", provenance=provenance) as out:
        tags = out.getexif()
        details, gps = tags.get_ifd(DETAILS), tags.get_ifd(GPS)
    assert tags[0x10F] == "Maker of Cameras"
    assert tags.get(MAIN, 1) == 1
    assert (details[0xA002], details[0xA003]) == (24, 32)
    assert details[0x927C] == MAKER_NOTE
    assert gps[2] == (52, 31, 12)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_a_makers_note_stays_where_its_offsets_point(suffix, picture, tmp_path):
    write_picture(picture, tmp_path / f"a{suffix}", provenance=PROVENANCE)
    data = (tmp_path / f"a{suffix}").read_bytes()
    start = data.index(b"II*\x00")
    assert data.index(MAKER_NOTE) - start == exif_block().index(MAKER_NOTE)


@pytest.mark.parametrize("suffix", CARRIERS)
def test_the_thumbnail_of_the_old_picture_is_gone(suffix, picture, tmp_path):
    write_picture(picture, tmp_path / f"a{suffix}")
    assert THUMBNAIL[:30] in exif_block()
    assert b"THUMBNAIL" not in (tmp_path / f"a{suffix}").read_bytes()


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders(order):
    block = exif.update_exif(exif_block(6, order), (70_000, 5))
    tags = Image.Exif()
    tags.load(exif.pack_exif(block))
    assert tags[MAIN] == 1
    assert tags.get_ifd(DETAILS)[0xA002] == 70_000


def test_an_empty_block_stays_empty():
    assert exif.pack_exif(exif.update_exif(b"", (1, 1))) == b""


@pytest.mark.parametrize("cut", range(0, len(exif_block()), 7))
def test_damaged_exif_is_dropped_or_kept_but_never_fatal(cut, picture, tmp_path):
    damaged = replace(picture, metadata=replace(picture.metadata, exif=exif_block()[:cut]))
    notes = write_picture(damaged, tmp_path / "a.jpg", provenance=PROVENANCE)
    assert read_picture(tmp_path / "a.jpg").width == 24
    assert all("\n" not in note for note in notes)


@pytest.mark.parametrize("suffix", CARRIERS)
@pytest.mark.parametrize("provenance", [None, PROVENANCE])
def test_xmp_survives_and_tells_the_truth(suffix, provenance, picture, tmp_path):
    with written(picture, tmp_path / f"a{suffix}", provenance=provenance) as out:
        packet = out.tag_v2[700] if suffix == ".tif" else out.info["xmp"]
    text = packet.decode()
    ElementTree.fromstring(text[text.index("<x:") : text.rindex("<?")])
    assert "A café &amp; more" in text
    assert 'tiff:Orientation="1"' in text
    assert "<exif:PixelXDimension>24</exif:PixelXDimension>" in text
    assert "digitalCapture" in text if provenance is None else "digitalCapture" not in text
    assert text.count("compositeWithTrainedAlgorithmicMedia") == (0 if provenance is None else 1)


@pytest.mark.parametrize("suffix", CARRIERS)
def test_dpi_stays(suffix, picture, tmp_path):
    write_picture(picture, tmp_path / f"a{suffix}")
    found = read_picture(tmp_path / f"a{suffix}").metadata.dpi
    assert found == ((300, 300) if suffix in (".jpg", ".png", ".tif") else None)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_iptc_survives(suffix, picture, tmp_path):
    write_picture(picture, tmp_path / f"a{suffix}")
    assert read_picture(tmp_path / f"a{suffix}").metadata.iptc == IPTC


def test_the_comment_survives(picture, tmp_path):
    write_picture(picture, tmp_path / "a.jpg")
    assert read_picture(tmp_path / "a.jpg").metadata.comment == b"A comment"
    write_picture(picture, tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").metadata.text["Comment"] == "A comment"


@pytest.mark.parametrize("deep", [False, True])
def test_png_text_survives(deep, tmp_path):
    pixels = noise(4, 4).astype("u2") if deep else noise(4, 4)
    text = chunk(b"tEXt", b"Title\x00caf\xe9"), chunk(b"iTXt", b"parameters\x00\x00\x00\x00\x00" + "日本".encode())
    write_picture(read_picture(png(pixels, *text)), tmp_path / "a.png", provenance=PROVENANCE)
    assert read_picture(tmp_path / "a.png").metadata.text == {"Title": "café", "parameters": "日本"}


def test_png_text_beyond_reason_is_left_out():
    long = [chunk(b"tEXt", b"k%d\x00" % i + b"x" * 900_000) for i in range(2)]
    found = read_picture(png(noise(2, 2), *long))
    assert found.metadata.text == {}
    assert "1 MB" in " ".join(found.notes)


def test_a_tiffs_fields_survive_in_other_formats_without_its_storage(tmp_path):
    artist = (2, 7, b"Artist\x00")
    more = {0x13B: artist, 33723: (7, len(IPTC), IPTC), 700: (1, len(XMP), XMP)}
    picture = read_picture(tiff(noise(8, 8), more=more))
    write_picture(picture, tmp_path / "a.jpg")
    found = read_picture(tmp_path / "a.jpg").metadata
    tags = Image.Exif()
    tags.load(found.exif)
    assert dict(tags) == {0x13B: "Artist"}
    assert (found.iptc, found.xmp[:5]) == (IPTC, b"<?xpa")


def test_iptc_as_words():
    padded = IPTC + b"\x00" * (-len(IPTC) % 4)
    words = struct.unpack(f"<{len(padded) // 4}L", padded)
    raw = struct.pack(f"<{len(words)}L", *words)
    picture = read_picture(tiff(noise(4, 4), more={33723: (4, len(words), raw)}))
    assert picture.metadata.iptc == padded


def test_iptc_text_of_other_programs():
    assert iptc.records_from_text("\niptc\n      7\n" + IPTC.hex()) == IPTC
    assert iptc.records_from_text("\niptc\n      7\nzz") == b""


@pytest.mark.parametrize("suffix", CARRIERS)
def test_strip_leaves_the_resolution_of_a_print_alone(suffix, picture, tmp_path):
    write_picture(picture, tmp_path / f"a{suffix}", saving=SaveOptions(strip=True))
    found = read_picture(tmp_path / f"a{suffix}").metadata
    assert (found.xmp, found.iptc, found.comment, found.text) == (b"", b"", b"", {})
    assert found.dpi == (None if suffix in (".webp", ".avif") else picture.metadata.dpi)
    assert b"Maker" not in (tmp_path / f"a{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", CARRIERS)
def test_strip_gps_takes_the_place_out_and_leaves_the_rest(suffix, picture, tmp_path):
    with written(picture, tmp_path / f"a{suffix}", saving=SaveOptions(strip_gps=True)) as out:
        tags = out.getexif()
        packet = out.tag_v2[700] if suffix == ".tif" else out.info["xmp"]
    assert GPS not in tags
    assert tags[0x10F] == "Maker of Cameras"
    assert b"GPS" not in packet
    assert b"caf" in packet
    data = (tmp_path / f"a{suffix}").read_bytes()
    assert struct.pack("<6L", 52, 1, 31, 1, 12, 1) not in data


PLACES = b"""<photoshop:City xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/">Lisbon</photoshop:City>
<c:Location xmlns:c="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/">Alfama</c:Location>
<e:LocationCreated><rdf:Bag><rdf:li rdf:parseType="Resource"><e:CountryName>Portugal</e:CountryName></rdf:li></rdf:Bag>
</e:LocationCreated><c:CreatorContactInfo xmlns:c="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"
 rdf:parseType="Resource"><c:CiAdrCity>Oslo</c:CiAdrCity></c:CreatorContactInfo>"""
RECORDS = b"".join(b"\x1c\x02" + bytes((n, 0, len(text))) + text for n, text in ((90, b"Lisbon"), (101, b"Portugal")))


@pytest.mark.parametrize("suffix", CARRIERS)
def test_strip_gps_takes_the_names_of_places_too(suffix, picture, tmp_path):
    packet = XMP.replace(b"<dc:title>", PLACES + b"<dc:title>").replace(
        b" exif:GPS", b' xmlns:p="http://ns.adobe.com/photoshop/1.0/" p:Country="Portugal" exif:GPS'
    )
    text = {"exif:GPSLatitude": "52", "Location": "Lisbon", "Title": "words"}
    full = replace(picture, metadata=replace(picture.metadata, xmp=packet, iptc=RECORDS + IPTC, text=text))
    write_picture(full, tmp_path / f"b{suffix}")
    with_place = (tmp_path / f"b{suffix}").read_bytes()
    assert b"Lisbon" in with_place and b"Portugal" in with_place and b"Alfama" in with_place
    write_picture(full, tmp_path / f"a{suffix}", saving=SaveOptions(strip_gps=True))
    data = (tmp_path / f"a{suffix}").read_bytes()
    assert not any(word in data for word in (b"Lisbon", b"Portugal", b"Alfama", b"Latitude"))
    assert b"Oslo" in data and b"caf" in data
    found = read_picture(tmp_path / f"a{suffix}").metadata
    assert found.iptc == (IPTC if suffix in (".jpg", ".png", ".tif") else b"")
    assert found.text.get("Title") == ("words" if suffix == ".png" else None)


LONG = b"\x1c\x02\x78\x80\x04" + struct.pack(">L", 40_000) + b"x" * 40_000


@pytest.mark.parametrize(
    ("records", "left"),
    [
        (b"", b""),
        (IPTC, IPTC),
        (RECORDS + IPTC + b"\x00\x00", IPTC),
        (LONG + RECORDS, LONG),
        (IPTC + RECORDS[:7], IPTC),
        (b"\x1c\x02\x5a\xff\xff", b""),
        (b"noise", b""),
    ],
)
def test_iptc_without_the_place(records, left):
    assert iptc.remove_place(records) == left


ENTITIES = '<!DOCTYPE x [<!ENTITY a "b">]><x:xmpmeta xmlns:x="adobe:ns:meta/">&a;</x:xmpmeta>'
DEEP = XMP.replace(b"<dc:title>", b"<a>" * 3000 + b"</a>" * 3000 + b"<dc:title>")


@pytest.mark.parametrize(
    "packet",
    [
        b"no xml",
        b"<a/>",
        ENTITIES.encode(),
        XMP[:300],
        b"\xff\xfe" + XMP,
        DEEP,
        b"\xfe\xff" + ENTITIES.encode("utf-16-be"),
    ],
)
def test_broken_xmp_is_dropped_and_said(packet, picture, tmp_path):
    broken = replace(picture, metadata=replace(picture.metadata, xmp=packet))
    notes = write_picture(broken, tmp_path / "a.png", provenance=PROVENANCE)
    assert "XMP" in " ".join(notes)
    assert read_provenance(tmp_path / "a.png")["seed"] == 7


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_packet_with_entities_is_refused_in_every_encoding(encoding):
    ours = ENTITIES.replace("&a;", f'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>{xmp.SRCLI}&a;')
    with pytest.raises(ValueError):
        xmp.update_xmp(ours.encode(encoding), (1, 1))
    assert xmp.parse_provenance(ours.encode(encoding)) is None


@pytest.mark.parametrize("deep", [150, 250, 3000, 100_000])
def test_a_deep_packet_is_kept_or_refused_and_never_a_crash(deep):
    packet = XMP.replace(b"<dc:title>", b"<a>" * deep + b"</a>" * deep + b"<dc:title>")
    if deep < 200:
        assert b"caf" in xmp.update_xmp(packet, (1, 1))
        return
    with pytest.raises(ValueError, match="without end"):
        xmp.update_xmp(packet, (1, 1))


def test_what_belonged_to_a_gain_map_goes():
    packet = XMP.replace(
        b"<dc:title>", b'<h:Version xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/">1.0</h:Version><dc:title>'
    )
    assert b"Version" not in xmp.update_xmp(packet, (1, 1))


# --- how it was made ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", CARRIERS)
def test_a_result_says_how_it_was_made(suffix, picture, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_picture(picture, path, provenance=PROVENANCE)
    assert read_provenance(path) == PROVENANCE
    with Image.open(path) as out:
        tags = out.getexif()
        comment = tags.get_ifd(DETAILS)[0x9286]
    assert tags[0x131] == tags[0x0B] == "srcli 9.9"
    assert json.loads(comment.removeprefix(b"ASCII\x00\x00\x00")) == PROVENANCE


def test_png_text_says_it_too(picture, tmp_path):
    with written(picture, tmp_path / "a.png", provenance=PROVENANCE) as out:
        assert json.loads(out.info["srcli"]) == PROVENANCE


@pytest.mark.parametrize("suffix", CARRIERS)
def test_the_result_of_a_result_tells_of_the_last_work_alone(suffix, picture, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_picture(picture, path, provenance=PROVENANCE)
    write_picture(read_picture(path), path, provenance={**PROVENANCE, "seed": 8})
    assert read_provenance(path)["seed"] == 8
    assert path.read_bytes().count(b"DigitalSourceType>http") == 1
    with Image.open(path) as out:
        assert b'"seed": 8' in out.getexif().get_ifd(DETAILS)[0x9286]


def test_the_users_own_words_are_not_written_over(tmp_path):
    own = Image.Exif()
    own[0x131] = "Editor 3"
    own.get_ifd(DETAILS)[0x9286] = b"ASCII\x00\x00\x00my words"
    with written(read_picture(saved(ramp(8, 8), "JPEG", exif=own)), tmp_path / "a.jpg", provenance=PROVENANCE) as out:
        tags = out.getexif()
    assert tags[0x131] == "Editor 3"
    assert tags.get_ifd(DETAILS)[0x9286].endswith(b"my words")
    assert tags[0x0B] == "srcli 9.9"


def test_made_of_strangers(tmp_path, picture):
    write_picture(picture, tmp_path / "a.png")
    (tmp_path / "b.txt").write_text("words")
    for name in ("a.png", "b.txt", "none", "."):
        assert read_provenance(tmp_path / name) is None


def test_too_long_for_jpeg_is_left_out_and_said(picture, tmp_path):
    long = XMP.replace(b"A caf", b"A" * 70_000)
    notes = write_picture(replace(picture, metadata=replace(picture.metadata, xmp=long)), tmp_path / "a.jpg")
    assert "too long" in " ".join(notes)
    assert read_picture(tmp_path / "a.jpg").metadata.exif
