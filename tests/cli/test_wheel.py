"""What a user installs is what was tested: the wheel, in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import srcli

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(build, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`srcli` of a fresh environment. Libraries are lent by this one; srcli itself is the wheel's alone."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=True)
    bin = folder / ("Scripts" if sys.platform == "win32" else "bin")
    subprocess.run([bin / "python", "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True)
    site = subprocess.check_output([bin / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    Path(site.decode().strip(), "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return bin / "srcli"


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False)


def test_the_wheel_s_own_code_answers(program, tmp_path):
    python = program.with_name("python")
    where = run(python, "-c", "import srcli; print(srcli.__file__)", cwd=tmp_path)
    assert str(program.parents[1]) in where.stdout
    helped = run(program, "--help", cwd=tmp_path)
    assert helped.returncode == 0
    for command in ("upscale", "stylize", "restore-old-photo", "colorize", "models", "doctor"):
        assert command in helped.stdout
    assert run(program, "--version", cwd=tmp_path).stdout == f"srcli {srcli.__version__}\n"


def test_the_doctor_of_the_wheel_finds_its_lock_and_weights(program, tmp_path):
    done = run(program, "doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["runs by default"]["upscale"] == "builtin"
    assert "srcli models pull" in facts["runs by default"]["colorize"]


def test_the_wheel_enlarges_a_picture(program, tmp_path):
    done = run(program, "upscale", ROOT / "examples" / "cat.jpg", "-o", tmp_path / "cat.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'cat.png'}\n"
