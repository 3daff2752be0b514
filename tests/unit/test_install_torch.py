"""`scripts/install-torch` never fetches PyTorch for CUDA unasked where no NVIDIA device is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "install-torch"
FAKES = {
    "python": '#!/bin/sh\necho "$*" >> "$CALLS"\ncase "$*" in *"$REFUSED"*) exit 1;; esac\n',
    "uname": "#!/bin/sh\necho $SYSTEM\n",
}
NVIDIA = {"nvidia-smi": "#!/bin/sh\n"}

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or Path("/dev/nvidiactl").exists(), reason="the machine would decide, not the test"
)


def install(
    folder: Path, *words: str, programs: dict[str, str] = FAKES, system: str = "Linux", refused: str = "nothing"
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the script where only these programs are found; returns what was asked of `python` too."""
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    calls = folder / "calls"
    env = {"PATH": str(folder), "CALLS": str(calls), "SYSTEM": system, "REFUSED": refused}
    command = ["/bin/sh", str(SCRIPT), str(folder / "python"), *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done, calls.read_text().splitlines()


def test_without_a_device_the_cpu_build_is_asked_for(tmp_path):
    done, calls = install(tmp_path)
    assert done.returncode == 0
    assert len(calls) == 1
    assert calls[0].endswith("+cpu")


def test_uv_is_asked_where_pip_knows_no_cpu_build(tmp_path):
    done, calls = install(tmp_path, refused="+cpu")
    assert done.returncode == 0
    assert "--torch-backend cpu" in calls[-1]


def test_nothing_else_is_fetched_where_neither_has_one(tmp_path):
    done, calls = install(tmp_path, refused="cpu")
    assert done.returncode == 1
    assert "TORCH=" in done.stderr
    assert [call for call in calls if "torch==" in call and "cpu" not in call] == []


def test_with_a_device_pip_chooses_and_the_size_is_said(tmp_path):
    done, calls = install(tmp_path, programs=FAKES | NVIDIA)
    assert "gigabytes" in done.stdout
    assert "cpu" not in calls[-1]


@pytest.mark.parametrize(
    ("words", "system", "last"), [(("torch==2.12.0",), "Linux", "torch==2.12.0"), ((), "Darwin", "torch==2.13.0")]
)
def test_a_requirement_is_taken_as_it_is_and_other_systems_have_one_build(tmp_path, words, system, last):
    _, calls = install(tmp_path, *words, system=system)
    assert [call.split()[-1] for call in calls] == [last]
