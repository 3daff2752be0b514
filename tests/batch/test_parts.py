"""Parts of a run by themselves: finding, naming, planning, messages, journals."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from benchmarks.tables import peak
from hypothesis import given
from hypothesis import strategies as st
from PIL import PngImagePlugin

from srcli.batch.journal.file import JournalFile, ReadPosition, read_records
from srcli.batch.planning import preflight
from srcli.batch.planning.inputs import FoundFile, InputFinder, input_names
from srcli.batch.planning.output_names import OutputNamer, OwnOutputs
from srcli.batch.planning.plan import BatchPlan
from srcli.batch.reading import protocol
from srcli.batch.reading.reader import PictureReader, ReaderPool
from srcli.batch.settings import InputOptions, OutputOptions, PipelineFactory, RunOptions, lock_digest
from srcli.errors import InputError, MachineError, PictureError
from srcli.files import numbered_names
from srcli.imaging.icc import IccProfile
from srcli.imaging.picture import Picture
from srcli.settings import DeviceChoice, LoraChoice, ModelChoice, TargetSize
from srcli.weights.lock import Entry, File
from srcli.weights.overlay import write_entry
from srcli.weights.places import find_places
from tests.batch.fakes import draw, settings_for
from tests.batch.hostile import hostile, install
from tests.unit.imaging.builders import tiff


def listed(folder: Path, data: bytes, **more: object) -> list[str]:
    (folder / "list").write_bytes(data)
    return list(input_names(InputOptions(listed=str(folder / "list"), **more)))


def test_a_list_has_a_name_a_line(tmp_path: Path) -> None:
    assert listed(tmp_path, b"a.png\r\n\nb c.png\n d.png") == ["a.png", "b c.png", " d.png"]
    assert listed(tmp_path, b"a\nb.png\0c\r.png\0", null=True) == ["a\nb.png", "c\r.png"]
    assert listed(tmp_path, b"\xff.png\n") == ["\udcff.png"]


def test_long_lists_are_cut_at_names_only(tmp_path: Path) -> None:
    names = [f"folder/{number:06}.png" for number in range(20_000)]
    assert listed(tmp_path, "\n".join(names).encode()) == names


def test_a_list_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="list"):
        list(input_names(InputOptions(listed=str(tmp_path / "none"))))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: InputOptions(),
        lambda: InputOptions(inputs=("-", "-")),
        lambda: InputOptions(inputs=("-",), listed="-"),
        lambda: InputOptions(inputs=("a",), max_pixels=0),
        lambda: InputOptions(inputs=("a",), frames="some"),
        lambda: OutputOptions(on_exists="ask"),
        lambda: OutputOptions(suffix="a/b"),
        lambda: OutputOptions(quality=101),
        lambda: OutputOptions(format="gif"),
        lambda: RunOptions(timeout=0),
        lambda: RunOptions(timeout=float("inf")),
        lambda: RunOptions(timeout=float("nan")),
        lambda: RunOptions(workers=0),
    ],
)
def test_orders_that_make_no_sense(wrong) -> None:
    with pytest.raises(InputError):
        wrong()


def own(name: str, size: int, kind: str = "base", **more: object) -> None:
    """The user has a weight of their own under this name."""
    entry = Entry(name=name, kind=kind, family="sd15", license="own", files={"a": File("a", size)}, **more)
    write_entry(find_places().overlay, entry)


def test_memory_is_part_of_the_recipe() -> None:
    """It may switch to weights in 8 bits, or to smaller tiles."""
    plain, scant = (
        settings_for("a", who=PipelineFactory(ModelChoice(engine="builtin"), DeviceChoice(memory=memory)))
        for memory in (None, 1 << 30)
    )
    assert plain.recipe() != scant.recipe()


def test_only_weights_that_a_run_may_open_decide_whether_it_is_done_again() -> None:
    choice = ModelChoice(engine="pasd", base="mine", loras=(LoraChoice(source="ink"),))
    before = [lock_digest(choice), lock_digest(ModelChoice(engine="builtin"))]
    own("other", 1)
    own("majicmix", 1)
    own("sd15", 1, learned=True)
    own("people/model", 1)
    assert [lock_digest(choice), lock_digest(ModelChoice(engine="builtin"))] == before
    seen = {before[0]}
    for name, more in (
        *(("mine", {"needs": ("part/vae",)}), ("part", {}), ("ink", {"kind": "lora"}), ("sd15", {})),
        *(("pasd", {}), ("blip", {"kind": "captioner"})),
    ):
        own(name, 2, **more)
        seen.add(lock_digest(choice))
    assert len(seen) == 7
    assert lock_digest(ModelChoice(engine="sr3")) != lock_digest(choice)


def target(given: str, **more: object) -> str:
    namer = OutputNamer(settings_for(given, **more), lambda path: (100, 50))
    return str(namer.target(FoundFile(Path(given), Path(given).parent)))


@pytest.mark.parametrize(
    ("given", "more", "expected"),
    [
        ("in/a.png", {}, "in/a_x2.png"),
        ("in/a.JPG", {}, "in/a_x2.JPG"),
        ("in/a.b.jpeg", {"scale": 2.5}, "in/a.b_x2.5.jpeg"),
        ("in/a.heic", {}, "in/a_x2.jpg"),
        ("in/a.gif", {}, "in/a_x2.png"),
        ("in/a", {}, "in/a_x2.png"),
        ("in/a.png", {"format": "jpeg"}, "in/a_x2.jpg"),
        ("in/a.png", {"suffix": "-big"}, "in/a-big.png"),
        ("in/a.png", {"size": TargetSize(width=400)}, "in/a_x4.png"),
        ("in/a.png", {"path": "out/"}, "out/a_x2.png"),
        ("in/a.png", {"path": "result.webp"}, "result.webp"),
        ("in/a.png", {"path": "-"}, "-"),
    ],
)
def test_names_of_results(given: str, more: dict, expected: str) -> None:
    assert target(given, **more) == expected


def test_an_ending_that_is_none_is_not_taken_for_a_folder() -> None:
    with pytest.raises(InputError, match="end it in"):
        target("in/a.png", path="result.v2")


@pytest.mark.parametrize(("path", "format"), [("w.tif", "png"), ("w.png", "jpeg"), ("w.JPG", "tiff")])
def test_a_name_and_a_format_that_contradict_each_other_are_refused(path: str, format: str) -> None:
    with pytest.raises(InputError, match="leave one"):
        target("in/a.png", path=path, format=format)


@pytest.mark.parametrize(("path", "format"), [("w.tif", "tiff"), ("w.jpeg", "jpg"), ("w.v2", "png")])
def test_a_name_and_a_format_that_agree_are_taken(path: str, format: str) -> None:
    assert target("in/a.png", path=path, format=format) == path


def test_a_result_of_stdin_has_a_name_where_its_factor_is_known() -> None:
    assert target("-", path="out/") == "out/stdin_x2.png"
    assert target("-", path="a.png", size=TargetSize(width=400)) == "a.png"
    with pytest.raises(InputError, match="-o FILE"):
        target("-", path="out/", size=TargetSize(width=400))


def test_one_file_cannot_take_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is one file, but there are several inputs"):
        OutputNamer(settings_for(tmp_path, path="out.png"), lambda path: (1, 1))


def test_numbers_are_counted_up() -> None:
    numbers = numbered_names(Path("in/a_x2.png"))
    assert [str(next(numbers)) for _ in range(2)] == ["in/a_x2-2.png", "in/a_x2-3.png"]


def finds(folder: Path, **more: object) -> list[str]:
    told = settings_for(folder, **more)
    plan = BatchPlan(InputFinder(told.input))
    plan.leave_out(OwnOutputs(told, lambda path: False, lambda path: None))
    return sorted(str(item.path.relative_to(folder)) for item in plan)


def test_a_name_alone_does_not_make_a_picture_a_result(tmp_path: Path) -> None:
    """Users name their own files like that, too."""
    names = ("a.png", "a_box.png", "a_restored.png", "a_x2.5-2.png", "a_x4.png")
    for name in names:
        draw(tmp_path / name)
    assert tuple(finds(tmp_path)) == names
    assert tuple(finds(tmp_path, path=str(tmp_path / "out"))) == names


def test_links_are_followed_to_files_and_not_to_folders(tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png")
    draw(tmp_path / "else" / "b.png")
    (tmp_path / "in" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "else").symlink_to(tmp_path / "else")
    (tmp_path / "in" / "c.png").symlink_to(tmp_path / "else" / "b.png")
    assert finds(tmp_path / "in", recursive=True) == ["a.png", "c.png"]


def many(count: int) -> Iterator[FoundFile]:
    return (FoundFile(Path(f"in/{number * 7919 % count:07}.png"), Path("in")) for number in range(count))


def measure_long_plan() -> None:
    """Make a long plan, and print how many bytes it took at most."""
    before = peak()
    plan = BatchPlan(many(20_000))
    plan.place(OutputNamer(settings_for("in"), lambda path: (1, 1)), rename=False)
    last = ""
    for item in plan:
        assert str(item.path) > last
        last = str(item.path)
    assert len(plan) == 20_000
    print(peak() - before)


def test_a_long_plan_is_in_order_and_needs_little_memory() -> None:
    """In a process of its own, whose memory no other test has used."""
    code = "from tests.batch.test_parts import measure_long_plan; measure_long_plan()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1 << 20 < int(done.stdout) < 8 << 20


def test_an_input_named_twice_is_one(tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png")
    told = settings_for(tmp_path / "in", tmp_path / "in" / "a.png", tmp_path / "in" / ".." / "in" / "a.png")
    assert len(BatchPlan(InputFinder(told.input))) == 1


def test_names_that_differ_in_case_only_are_two_where_the_file_system_says_so(tmp_path: Path) -> None:
    for name in ("A.png", "a.png"):
        draw(tmp_path / name)
    plan = BatchPlan(InputFinder(settings_for(tmp_path).input))
    plan.place(OutputNamer(settings_for(tmp_path), lambda path: (1, 1)), rename=False)
    assert [item.target.name for item in plan] == ["A_x2.png", "a_x2.png"]


def test_a_mask_is_not_written_over(tmp_path: Path) -> None:
    """Not by the very result that it helped to make, whatever the user allows."""
    draw(tmp_path / "a.tif")
    draw(tmp_path / "masks" / "a.png")
    masks = tmp_path / "masks"
    told = settings_for(tmp_path / "a.tif", path=str(masks / "a.png"), on_exists="overwrite", mask=str(masks))
    plan = BatchPlan(InputFinder(told.input))
    with pytest.raises(InputError, match="would be overwritten by its own result"):
        plan.place(OutputNamer(told, lambda path: (1, 1)), False, told.input)


def test_a_message_arrives_as_it_was_sent() -> None:
    whole = np.arange(24, dtype=np.uint16).reshape(2, 4, 3)
    picture = Picture(pixels=whole[:, ::2], alpha=whole[..., 0], profile=IccProfile(b"p", "RGB"), notes=("a", "b"))
    for message in (
        picture,
        protocol.Refusal("no", "kind"),
        protocol.ReadRequest(Path("\udcff"), b"x", InputOptions(inputs=("a",)), "size"),
    ):
        stream = io.BytesIO()
        protocol.send_message(stream, message)
        stream.seek(0)
        assert repr(protocol.receive_message(stream)) == repr(message)


@pytest.mark.parametrize(
    "value",
    [
        {"$": "Popen", "fields": {"args": "true"}},
        {"$": "Path", "fields": {}},
        {"$": "Picture", "fields": {"eval": 1}},
        {"$": "array", "part": 0, "dtype": "object", "shape": [1]},
        {"$": "array", "part": 0, "dtype": "uint8", "shape": [1 << 40]},
        {"$": "bytes", "part": 7},
        {"no": "type"},
    ],
)
def test_messages_hold_nothing_but_what_a_picture_is_made_of(value: object) -> None:
    header = json.dumps({"value": value, "parts": [1]}).encode()
    with pytest.raises(protocol.ProtocolError):
        protocol.receive_message(io.BytesIO(protocol.LENGTH.pack(len(header)) + header + b"x"))


@given(st.binary(max_size=200), st.booleans())
def test_noise_is_no_message(data: bytes, framed: bool) -> None:
    data = protocol.LENGTH.pack(len(data)) + data if framed else data
    with pytest.raises((EOFError, protocol.ProtocolError)):
        protocol.receive_message(io.BytesIO(data))


def test_a_header_without_end_is_no_message() -> None:
    deep = b"[" * 200_000
    with pytest.raises(protocol.ProtocolError):
        protocol.receive_message(io.BytesIO(protocol.LENGTH.pack(len(deep)) + deep))


def test_a_reader_survives_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "codec", monkeypatch)
    reader = PictureReader(InputOptions(inputs=("a",)), timeout=3)
    try:
        with pytest.raises(PictureError, match="crashed") as caught:
            reader.read(hostile(tmp_path / "k.png", b"KILL"))
        assert caught.value.kind == "crash"
        with pytest.raises(PictureError, match="the system killed") as caught:
            reader.read(hostile(tmp_path / "o.png", b"OOM"))
        assert caught.value.kind == "killed"
        (tmp_path / "codec" / "tried").unlink()
        with pytest.raises(PictureError, match="within") as caught:
            reader.read(hostile(tmp_path / "w.png", b"WAIT"))
        assert caught.value.kind == "timeout"
        once = PngImagePlugin.PngInfo()
        once.add_text("ONCE", "is no fault of the picture's")
        picture = reader.read(draw(tmp_path / "a.png", 30, 20, pnginfo=once))
        assert (picture.width, picture.height) == (30, 20)
        assert (tmp_path / "codec" / "tried").exists()
        assert reader.ask(tmp_path / "a.png", "size") == (30, 20)
        assert reader.ask(tmp_path / "a.png", "provenance") is None
    finally:
        reader.close()


class AtTheLastMoment(threading.Timer):
    """A timer that fires just as the answer is there."""

    def cancel(self) -> None:
        self.function(*self.args)
        super().cancel()


def test_a_timer_that_fires_as_the_answer_comes_harms_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threading.Timer", AtTheLastMoment)
    reader = PictureReader(InputOptions(inputs=("a",)))
    try:
        assert reader.ask(draw(tmp_path / "a.png", 30, 20), "size") == (30, 20)
        assert reader.ask(draw(tmp_path / "b.png", 20, 10), "size") == (20, 10)
    finally:
        reader.close()


def test_a_process_that_died_at_rest_is_no_fault_of_the_next_picture(tmp_path: Path) -> None:
    reader = PictureReader(InputOptions(inputs=("a",)))
    try:
        assert reader.ask(draw(tmp_path / "a.png", 30, 20), "size") == (30, 20)
        process = reader.start()
        process.kill()
        process.wait()
        assert reader.ask(tmp_path / "a.png", "size") == (30, 20)
    finally:
        reader.close()


def test_a_picture_of_floats_is_read_from_bytes_too() -> None:
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    reader = PictureReader(InputOptions(inputs=("-",)))
    try:
        picture = reader.read(Path("-"), tiff(values, sample_format=3))
        assert picture.pixels[..., 0].tolist() == np.rint(values * 65535).tolist()
    finally:
        reader.close()


def test_what_is_being_read_can_be_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "codec", monkeypatch)
    readers = ReaderPool(InputOptions(inputs=("a",)))
    with ThreadPoolExecutor(2) as pool:
        stalled = pool.submit(readers.read, hostile(tmp_path / "w.png", b"WAIT"))
        readers.drop()
        queued = pool.submit(readers.read, draw(tmp_path / "a.png"))
        for future in (stalled, queued):
            with pytest.raises(CancelledError):
                future.result()
    readers.close()


def test_stdin_is_read_up_to_what_a_picture_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(bytes(2000))))
    readers = ReaderPool(InputOptions(inputs=("-",), max_pixels=100))
    with pytest.raises(PictureError, match="max-pixels"):
        readers.read(Path("-"))
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="closed"):
        readers.read(Path("-"))
    readers.close()


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    first = JournalFile(tmp_path)
    with pytest.raises(MachineError, match="another run"):
        JournalFile(tmp_path)
    first.close()
    JournalFile(tmp_path).close()


def test_half_a_line_is_ended_before_the_next(tmp_path: Path) -> None:
    (tmp_path / ".srcli-journal.jsonl").write_bytes(b'{"event": "run"}\n{"event": "pic')
    journal = JournalFile(tmp_path)
    journal.add(status="done")
    journal.close()
    assert [record.get("status") for record in read_records(journal.path)] == [None, "done"]
    assert json.loads(journal.path.read_bytes().splitlines()[-1])["status"] == "done"


def test_a_journal_that_grows_is_read_once(tmp_path: Path) -> None:
    path, position = tmp_path / "journal", ReadPosition()

    def add(text: str) -> list[object]:
        with path.open("a") as file:
            file.write(text)
        return [record["n"] for record in read_records(path, position)]

    assert add('{"n": 1}\n{"n": 2}\n{"n":') == [1, 2]
    assert add(" 3}\n") == [3]
    assert add("") == []
    path.rename(path.with_name("old"))
    assert add('{"n": 4}\n') == [4]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    journal = JournalFile(tmp_path)
    journal.add(status="done")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 20, before[1]))
    try:
        with pytest.raises(MachineError, match="free some space"):
            journal.add(status="failed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    journal.add(status="skipped")
    journal.close()
    assert [record["status"] for record in read_records(journal.path)] == ["done", "skipped"]


def test_leavings_of_the_dead_are_swept_and_work_of_the_living_is_not(tmp_path: Path) -> None:
    import fcntl

    dead, alive = tmp_path / ".srcli-0.part", tmp_path / ".srcli-1.part"
    dead.write_bytes(b"x")
    with alive.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        preflight.remove_leftovers(tmp_path)
        assert (dead.exists(), alive.exists()) == (False, True)
    preflight.remove_leftovers(tmp_path)
    assert not alive.exists()
