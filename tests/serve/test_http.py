"""Jobs over HTTP: from a picture to its result, and everything that a server must refuse or survive."""

from __future__ import annotations

import asyncio
import errno
import gc
import io
import json
import re
import shutil
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from PIL import Image, ImageCms
from starlette.testclient import TestClient

from srcli.api import PictureOptions, Pipeline
from srcli.errors import InputError
from srcli.serve import jobs as jobs_module
from srcli.serve.app import create_app
from srcli.serve.guard import BodyTooLarge, BodyTooSlow, _limit_body
from srcli.serve.jobs import JOB_CANCELLED, JOB_DONE, JOB_FAILED, JOB_QUEUED, JobRecord, JobStore
from srcli.serve.naming import clean_name
from srcli.serve.options import parse_options
from srcli.serve.orders import ORDER_FIELDS, parse_order
from srcli.serve.protocol import make_protocol
from srcli.serve.run import format_address
from srcli.serve.settings import ServerLimits, ServerSettings, is_loopback
from srcli.serve.worker import JobWorker

TOKEN = "a-token-of-the-tests"
KEY = {"authorization": f"Bearer {TOKEN}"}


class IdleWorker(JobWorker):
    """Does jobs when a test says so."""

    def start(self) -> None:
        pass


class Bench:
    """A server without a network, and a client of it."""

    def __init__(self, folder, **limits):
        self.settings = ServerSettings(folder=folder, token=TOKEN, port=80, limits=ServerLimits(**limits))
        self.store = JobStore(folder, self.settings.limits.jobs)
        self.worker = IdleWorker(self.store, self.settings)
        app = create_app(self.settings, self.store, self.worker)
        self.client = TestClient(app, base_url="http://127.0.0.1", headers=KEY, raise_server_exceptions=False)

    def send(self, data=None, name="a.png", **fields):
        files = {"image": (name, draw() if data is None else data)}
        if "mask" in fields:
            files["mask"] = ("mask.png", fields.pop("mask"))
        return self.client.post("/v1/jobs", files=files, data=fields)

    def see(self, job):
        return self.client.get(f"/v1/jobs/{job['id']}").json()

    def files(self):
        return sorted(str(p.relative_to(self.settings.folder)) for p in self.settings.folder.rglob("*") if p.is_file())


@pytest.fixture
def open_bench():
    """Benches whose reading processes end with the test."""
    opened = []

    def open_one(folder, **limits):
        opened.append(Bench(folder, **limits))
        return opened[-1]

    yield open_one
    for bench in opened:
        bench.worker._reader.close()


@pytest.fixture
def bench(open_bench, tmp_path):
    return open_bench(tmp_path / "jobs")


def draw(size=(24, 16), form="PNG", **more) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **more)
    return file.getvalue()


def test_a_picture_becomes_a_result_that_keeps_what_it_was(bench):
    exif = Image.Exif()
    exif[0x10F] = "Camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    answer = bench.send(
        draw(form="JPEG", exif=exif, icc_profile=profile), "C:\\x\\../my cat.jpg", options='{"scale": 2}'
    )
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["name"], job["progress"]) == (JOB_QUEUED, "my cat.jpg", 0)
    assert bench.client.get(f"/v1/jobs/{job['id']}/result").status_code == 409
    bench.worker.run_next()
    done = bench.see(job)
    assert (done["status"], done["progress"], done["sizes"]) == (JOB_DONE, 1, {"source": [24, 16], "result": [48, 32]})
    result = bench.client.get(done["download"])
    assert result.headers["content-disposition"] == "attachment; filename*=UTF-8''my%20cat_x2.jpg"
    with Image.open(io.BytesIO(result.content)) as picture:
        assert picture.size == (48, 32)
        assert picture.getexif()[0x10F] == "Camera"
        assert picture.info["icc_profile"]
    page = bench.client.get(f"/v1/jobs/{job['id']}/compare")
    assert page.status_code == 200 and "default-src 'none'; script-src 'sha256-" in page.text
    events = bench.client.get(f"/v1/jobs/{job['id']}/events").text
    assert json.loads(events.removeprefix("data: "))["status"] == JOB_DONE


def test_a_mask_mends_and_a_format_is_kept(bench):
    mask = np.zeros((16, 24), np.uint8)
    mask[4:8, 4:8] = 255
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    job = bench.send(task="restore", mask=file.getvalue(), format="tiff").json()
    plain = bench.send(task="restore", format="tiff").json()
    assert job["has_mask"]
    bench.worker.run_next()
    bench.worker.run_next()
    one, other = (
        np.array(Image.open(io.BytesIO(bench.client.get(bench.see(j)["download"]).content))) for j in (job, plain)
    )
    assert one.shape == (16, 24, 3)
    assert np.abs(one[5:7, 5:7].astype(int) - other[5:7, 5:7]).max() > 8


def test_all_results_in_one_file(bench):
    assert bench.client.get("/v1/results.zip").status_code == 404
    for _ in range(2):
        bench.send(name="same.png", options='{"scale": 1}')
        bench.worker.run_next()
    packed = bench.client.get("/v1/results.zip")
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        assert archive.namelist() == ["same_x1.png", "same_x1_2.png"]
        assert archive.testzip() is None
    assert not [name for name in bench.files() if ".zip" in name]


@pytest.mark.parametrize("headers", [{}, {"range": "bytes=0-9"}])
def test_a_zip_that_is_not_read_to_its_end_leaves_nothing(bench, monkeypatch, headers):
    bench.send()
    bench.worker.run_next()
    gc.collect()  # files that earlier tests left open
    files, before = bench.files(), open_files()
    monkeypatch.setattr("srcli.serve.app.CHUNK_BYTES", 64)

    async def leave() -> int:
        """Ask, take one piece, and go."""
        pieces, status = 0, 0

        async def receive():
            await asyncio.sleep(0)
            return {"type": "http.disconnect" if pieces else "http.request", "body": b"", "more_body": False}

        async def send(message):
            nonlocal pieces, status
            status = message.get("status", status)
            pieces += bool(message.get("body"))
            if pieces:
                raise OSError("the client left")

        given = {**KEY, "host": "127.0.0.1", **headers}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/v1/results.zip",
            "raw_path": b"/v1/results.zip",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        with suppress(RuntimeError):  # that the client left after the answer began; the server says nothing of it
            await bench.client.app(scope, receive, send)
        return status

    assert asyncio.run(leave()) in (200, 206)
    gc.collect()
    assert bench.files() == files
    assert open_files() == before


def open_files() -> int:
    """Of this process, where the system says so."""
    descriptors = Path("/proc/self/fd")
    return len(list(descriptors.iterdir())) if descriptors.is_dir() else 0


def test_a_file_that_is_no_picture_fails_alone(bench):
    bad, good = bench.send(b"no picture", "evil.png").json(), bench.send(options='{"scale": 1}').json()
    bench.worker.run_next()
    bench.worker.run_next()
    failed = bench.see(bad)
    assert (failed["status"], failed["kind"]) == (JOB_FAILED, "not-a-picture")
    assert failed["message"].startswith("evil.png") and str(bench.settings.folder) not in failed["message"]
    assert bench.see(good)["status"] == JOB_DONE


def test_a_mask_of_another_size_is_named(bench):
    job = bench.send(mask=draw((5, 5))).json()
    bench.worker.run_next()
    assert "the mask is 5x5" in bench.see(job)["message"]


def test_an_engine_without_weights_says_how_to_get_them(bench):
    job = bench.send(engine="pasd").json()
    bench.worker.run_next()
    failed = bench.see(job)
    assert failed["status"] == JOB_FAILED and "srcli models pull" in failed["message"]


def test_jobs_end_when_they_are_deleted(bench):
    job = bench.send().json()
    assert bench.client.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert bench.see(job)["status"] == JOB_CANCELLED
    assert bench.client.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert bench.client.get(f"/v1/jobs/{job['id']}").status_code == 404
    assert bench.files() == []


@pytest.mark.parametrize("remove", [False, True])
def test_a_running_job_stops_between_its_blocks(bench, monkeypatch, remove):
    job = bench.send(options='{"scale": 1}').json()

    def cancel_at_once(self, stage, done, total):
        bench.store.cancel(job["id"])
        if remove:
            bench.store.remove(job["id"])

    monkeypatch.setattr("srcli.serve.worker.PictureProgress.update", cancel_at_once)
    bench.worker.run_next()
    assert not [name for name in bench.files() if "result" in name]
    assert remove or bench.see(job)["status"] == JOB_CANCELLED


def test_a_restart_goes_on_with_the_queue(open_bench, tmp_path):
    first = open_bench(tmp_path)
    done, begun, waiting = (first.send(options='{"scale": 1}').json() for _ in range(3))
    first.worker.run_next()
    assert first.store.wait_for_next().id == begun["id"]  # and the server dies
    (tmp_path / ".upload-x").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "job.json").write_text("[1]")
    second = open_bench(tmp_path)
    assert [job.status for job in second.store.all()] == [JOB_DONE, JOB_QUEUED, JOB_QUEUED]
    assert not (tmp_path / ".upload-x").exists()
    second.worker.run_next()
    second.worker.run_next()
    assert [second.see(job)["status"] for job in (done, begun, waiting)] == [JOB_DONE] * 3


def test_a_job_that_ends_the_server_twice_has_failed(open_bench, tmp_path):
    """One that is ended in good order costs the job nothing."""
    bench = open_bench(tmp_path)
    job = bench.send().json()
    for _ in range(3):
        bench.store.wait_for_next()
        bench.worker.close()
        bench = open_bench(tmp_path)
        assert bench.see(job)["attempts"] == 0
    for status in (JOB_QUEUED, JOB_FAILED):
        bench.store.wait_for_next()  # and the server dies
        bench = open_bench(tmp_path)
        assert bench.see(job)["status"] == status
    assert "not tried again" in bench.see(job)["message"] and bench.see(job)["kind"] == "crash"


def test_what_is_done_is_seen_while_the_rest_is_made(bench, monkeypatch):
    from srcli.engines.builtin import engine

    monkeypatch.setattr(engine, "SMALLER", (16,))
    job = bench.send(draw((32, 16)), options='{"scale": 4}').json()
    assert job["preview"] is None
    looks = []
    update = bench.store.update

    def look(name, **changes):
        changed = update(name, **changes)
        if "previews" in changes:
            looks.append(bench.client.get(bench.see(job)["preview"]))
        return changed

    monkeypatch.setattr(bench.store, "update", look)
    bench.worker.run_next()
    first, last = (np.asarray(Image.open(io.BytesIO(look.content))).astype(int) for look in (looks[0], looks[-1]))
    assert len(looks) > 1 and {look.headers["content-type"] for look in looks} == {"image/jpeg"}
    assert first.shape == (16, 32, 3)
    assert np.abs(first - last)[:, :12].mean() < 3 < np.abs(first - last)[:, 20:].mean()
    assert bench.see(job)["preview"] is None
    assert bench.client.get(f"/v1/jobs/{job['id']}/preview").status_code == 404


def test_what_a_sampler_expects_is_seen_after_each_step(bench, monkeypatch):
    tiny = Path(__file__).parents[1] / "golden/pasd/tiny"
    pipeline = Pipeline.load("pasd", base=str(tiny / "base"), adapter=str(tiny / "pasd"), device="cpu", offline=True)
    monkeypatch.setattr(bench.worker, "_pipeline", lambda job: pipeline)
    options = {"scale": 2, "steps": 3, "process_size": 32, "caption": "none"}
    job = bench.send(engine="pasd", options=json.dumps(options)).json()
    looks = []
    count = bench.worker._count_preview

    def look(job):
        count(job)
        looks.append(bench.client.get(bench.see({"id": job.id})["preview"]))

    monkeypatch.setattr(bench.worker, "_count_preview", look)
    bench.worker.run_next()
    assert bench.see(job)["status"] == JOB_DONE, bench.see(job)["message"]
    seen = [np.asarray(Image.open(io.BytesIO(look.content))).astype(int) for look in looks]
    assert len(seen) == 4 and {one.shape for one in seen} == {(16, 24, 3)}  # three steps, and the finished block
    assert np.abs(seen[0] - seen[3]).mean() > 3


def test_a_map_is_kept_beside_the_result_and_shown_with_it(bench):
    job, plain = (bench.send(options=options).json() for options in ('{"scale": 2, "map": true}', '{"scale": 2}'))
    bench.worker.run_next()
    bench.worker.run_next()
    answer = bench.client.get(f"/v1/jobs/{job['id']}/map")
    with Image.open(io.BytesIO(answer.content)) as found:
        assert (found.mode, found.size) == ("L", (48, 32))
    assert "a_x2_map.png" in answer.headers["content-disposition"]
    assert "guessed" in bench.client.get(f"/v1/jobs/{job['id']}/compare").text
    assert bench.client.get(f"/v1/jobs/{plain['id']}/map").status_code == 404


def test_a_full_disk_leaves_nothing_behind(bench, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jobs_module.shutil, "move", full)
    answer = bench.send()
    assert (answer.status_code, answer.json()["error"]["kind"]) == (507, "machine")
    assert bench.files() == [] and bench.store.all() == []


def test_a_result_that_cannot_be_written_fails_its_job(bench, monkeypatch):
    job = bench.send(options='{"scale": 1}').json()
    shutil.rmtree(bench.settings.folder / job["id"] / "result")
    bench.worker.run_next()
    assert bench.see(job)["status"] == JOB_FAILED


def test_a_job_whose_folder_is_gone_fails_alone(bench):
    lost, next_one = bench.send().json(), bench.send(options='{"scale": 1}').json()
    shutil.rmtree(bench.settings.folder / lost["id"])
    bench.worker.run_next()
    bench.worker.run_next()
    assert [bench.see(job)["status"] for job in (lost, next_one)] == [JOB_FAILED, JOB_DONE]


def test_records_that_are_none_and_tuples_survive_a_restart(open_bench, tmp_path):
    first = open_bench(tmp_path)
    job = first.send(options='{"fit": [48, 48]}').json()
    first.worker.run_next()
    odd = tmp_path / "odd"
    odd.mkdir()
    record = json.loads((tmp_path / job["id"] / "job.json").read_text())
    (odd / "job.json").write_text(json.dumps(record | {"id": "odd", "created": "x"}))
    second = open_bench(tmp_path)
    assert [kept.id for kept in second.store.all()] == [job["id"]]
    assert second.client.get(second.see(job)["download"]).status_code == 200
    assert second.client.get("/v1/results.zip").status_code == 200


def test_two_removals_are_as_good_as_one(bench):
    job = bench.send().json()
    bench.store.cancel(job["id"])
    bench.store.remove(job["id"])
    bench.store.remove(job["id"])
    assert bench.store.all() == []


def test_the_queue_has_an_end(open_bench, tmp_path):
    bench = open_bench(tmp_path, jobs=1)
    bench.send()
    answer = bench.send()
    assert answer.status_code == 400 and "there are 1 jobs already" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "", "cookie": f"srcli_80={TOKEN}"}, 200),
        ({"authorization": "", "cookie": f"srcli_81={TOKEN}"}, 401),
        ({"authorization": "", "cookie": f'other={{"a":1}}; srcli_80={TOKEN}'}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:80"}, 421),
        ({"host": "localhost:80"}, 200),
        ({"host": "[::1]:80"}, 200),
    ],
)
def test_who_may_ask(bench, headers, status):
    assert bench.client.get("/v1/jobs", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 404),
        ({"origin": "http://127.0.0.1"}, 404),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_other_sites_change_nothing(bench, headers, status):
    assert bench.client.delete("/v1/jobs/x", headers=headers).status_code == status


def test_the_printed_address_lets_a_browser_in(bench):
    answer = bench.client.get(f"/?token={TOKEN}", headers={"authorization": ""}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert {"httponly", "samesite=strict"} <= set(answer.headers["set-cookie"].lower().replace(" ", "").split(";"))
    page = bench.client.get("/")
    assert "Drop pictures" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert format_address(ServerSettings(folder=bench.settings.folder, token=TOKEN, host="::1")).startswith(
        "http://[::1]:8765/"
    )


def test_parts_of_the_page_have_their_types(bench):
    kinds = {
        "/": "text/html",
        "/page.js": "text/javascript",
        "/page.css": "text/css",
        "/v1/openapi.json": "application/json",
    }
    for path, kind in kinds.items():
        assert bench.client.get(path).headers["content-type"].startswith(kind)


def test_the_description_names_every_route(bench):
    described = bench.client.get("/v1/openapi.json").json()["paths"]
    routes = {
        (route.path, method.lower())
        for route in bench.client.app.routes
        if route.path.startswith("/v1/")
        for method in route.methods - {"HEAD"}
    }
    assert {(path, method) for path, methods in described.items() for method in methods} == routes


def test_the_description_names_every_field_and_option(bench):
    described = bench.client.get("/v1/openapi.json").json()["components"]["schemas"]
    assert set(described["Order"]["properties"]) == {"image", "mask", *ORDER_FIELDS}
    assert described["Options"]["properties"].keys() == get_type_hints(PictureOptions).keys()
    assert described["Job"]["properties"].keys() == bench.send().json().keys()
    kinds = {"number": 1.5, "integer": 2, "string": "x", "boolean": True}
    for name, facts in described["Options"]["properties"].items():
        value = facts["enum"][0] if "enum" in facts else kinds.get(facts["type"], [1, 2])
        assert parse_options(json.dumps({name: value})) == {name: tuple(value) if isinstance(value, list) else value}


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/v1/jobs/..%2f..%2fetc/result", "/page/page.js", "/v1/jobs/%00"]
)
def test_paths_lead_nowhere(bench, path):
    assert bench.client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data"),
        (b"x", "multipart/form-data; boundary=a"),
        (b"--a\r\nContent-Disposition: form-data; name=image\r\n\r\nx\r\n--a--\r\n", "multipart/form-data; boundary=a"),
        (b"x=1", "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
    ],
)
def test_bodies_that_are_no_forms_are_refused(bench, body, kind, caplog):
    answer = bench.client.post("/v1/jobs", content=body, headers={"content-type": kind})
    error = answer.json()["error"]
    assert (answer.status_code, error["kind"]) == (400, "input")
    assert error["message"].endswith("send a multipart form with a file named `image`")
    assert not caplog.records  # what libraries log without a handler goes to the server's stderr
    assert bench.files() == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"task": "paint"}, "`task` 'paint' is unknown"),
        ({"engine": "x"}, "`engine` 'x' is unknown"),
        ({"base": "/etc/passwd"}, "is not in weights.lock"),
        ({"format": "exe"}, "unknown"),
        ({"adapter": "/etc/passwd"}, "`adapter` is not a field"),
        ({"options": "{"}, "not JSON"),
        ({"options": "[" * 9999}, "not JSON"),
        ({"options": "[]"}, "must be a JSON object"),
        ({"options": '{"steps": true}'}, "give a whole number"),
        ({"options": '{"scale": NaN}'}, "give a number"),
        ({"options": '{"scale": 1e9}'}, "out of range"),
        ({"options": '{"mask": "/etc/passwd"}'}, "`mask` is not an option"),
        ({"task": "restore", "options": '{"fill": "smooth"}'}, "`fill` smooth goes with `mask`"),
        ({"options": '{"guidance_interval": [0.1]}'}, "a list of two numbers"),
        ({"options": '{"prompt": 1}'}, "give text"),
        ({"options": " " * 30_000}, "too long"),
        ({"options": '{"prompt": "\\ud800"}'}, "no text"),
        ({"options": '{"\\ud800": 1}'}, "no text"),
        ({"options": '{"scale": ' + "9" * 400 + "}"}, "give a number"),
    ],
)
def test_orders_are_checked_before_anything_is_kept(bench, fields, words):
    answer = bench.send(**fields)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]
    assert bench.files() == []


def test_options_keep_their_types():
    given = parse_options('{"scale": 3, "guidance_interval": [0, 1], "steps": 4, "consistent": true, "prompt": "a"}')
    assert given == {"scale": 3.0, "guidance_interval": (0.0, 1.0), "steps": 4, "consistent": True, "prompt": "a"}
    assert isinstance(given["scale"], float)
    assert parse_options('{"quality": "best", "fit": [80, 60]}') == {"quality": "best", "fit": (80, 60)}
    with pytest.raises(InputError, match="`quality` 'nice' is unknown: choose one of draft, standard, best"):
        parse_options('{"quality": "nice"}')
    with pytest.raises(InputError, match="`x` is not a field"):
        parse_order("a.png", {"x": ""})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../x.png", "x.png"),
        ("a\\b\\c.jpg", "c.jpg"),
        ("\x1b[31m.png", "_[31m.png"),
        ("", "picture"),
        ("...", "picture"),
        ("a" * 300 + ".tiff", "a" * 120 + ".tiff"),
        ("größe.png", "größe.png"),
    ],
)
def test_names_are_only_names(given, kept):
    assert clean_name(given) == kept


def receive_pieces(*pieces):
    waiting = [*pieces]

    async def receive():
        if not waiting:
            await asyncio.sleep(60)
        return waiting.pop(0)

    return receive


def piece(body, more=True):
    return {"type": "http.request", "body": body, "more_body": more}


async def drain(receive, count):
    return [await receive() for _ in range(count)]


def test_a_body_without_a_length_is_counted():
    receive = _limit_body(receive_pieces(piece(b"abc"), piece(b"def")), ServerLimits(body=5))
    with pytest.raises(BodyTooLarge):
        asyncio.run(drain(receive, 2))


def test_a_body_that_stops_is_not_waited_for():
    receive = _limit_body(receive_pieces(piece(b"abc")), ServerLimits(silence=0.01))
    with pytest.raises(BodyTooSlow):
        asyncio.run(drain(receive, 2))


def test_a_body_in_drops_has_an_end_too():
    async def drop():
        await asyncio.sleep(0.02)
        return piece(b"a")

    with pytest.raises(BodyTooSlow):
        asyncio.run(drain(_limit_body(drop, ServerLimits(silence=10, sending=0.05)), 20))


class Transport:
    """A connection that is closed or not."""

    closed = False

    def get_extra_info(self, name, default=None):
        return default

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def write(self, data):
        pass


@pytest.mark.parametrize(
    ("pieces", "closed"),
    [
        ([], True),
        ([b"GET / HTTP/1.1\r\nHo"], True),
        ([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], False),
    ],
)
def test_a_connection_that_asks_for_nothing_is_closed(pieces, closed):
    import uvicorn
    from uvicorn.server import ServerState

    async def answer(scope, receive, send):
        await asyncio.sleep(10)

    async def connect():
        config = uvicorn.Config(answer, log_level="critical")
        config.load()
        connection = make_protocol(0.02)(config=config, server_state=ServerState(), app_state={})
        connection.connection_made(transport := Transport())
        for data in pieces:
            connection.data_received(data)
        await asyncio.sleep(0.1)
        return transport.closed

    assert asyncio.run(connect()) is closed


def test_a_body_that_says_it_is_too_large_is_refused_unread(open_bench, tmp_path):
    bench = open_bench(tmp_path, body=100)
    answer = bench.send()
    assert (answer.status_code, answer.json()["error"]["kind"]) == (413, "too-large")


def test_progress_only_grows(bench):
    job = bench.store.get(bench.send().json()["id"])
    bench.store.update(job.id, progress=0.7)
    bench.store.update(job.id, progress=0.2)
    assert bench.store.get(job.id).progress == 0.7


def test_what_a_server_may_be_told(tmp_path):
    for wrong in ({"port": 70000}, {"token": "short"}, {"token": "größe" * 4}):
        with pytest.raises(InputError):
            ServerSettings(**({"folder": tmp_path, "token": TOKEN} | wrong))
    assert is_loopback("127.3.4.5") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("example.org")


def test_records_are_whole_whenever_they_are_read(bench):
    job = bench.send().json()
    path = bench.settings.folder / job["id"] / "job.json"
    assert JobRecord(**json.loads(path.read_text())) == bench.store.get(job["id"])
    assert time.time() - job["created"] < 60 and re.fullmatch("[0-9a-f]{16}", job["id"])
