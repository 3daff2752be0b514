"""What README and docs show works: commands, scripts, links, messages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.cli.shown_commands import NEEDS, PAGES, ROOT, fences, furnish, run, shown

# What a line may begin with that is not run here: installing, and other people's programs.
NOT_RUN = ("make", "uv", "pipx", "pip", "docker", "git", "cd", ".", "export", "ray", "curl")
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@by_page
def test_every_command_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    for line in shown(page):
        if line.text.split()[0] in NOT_RUN or (line.needs and NEEDS[line.needs] is None):
            continue
        assert "srcli" in line.text
        code, said = run(line)
        assert code == NEEDS.get(line.needs or "", 0), f"{line.text}\n{said}"


@by_page
def test_a_command_stands_in_a_block_that_is_run(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^ {4}(?:srcli|pip|make) .*", text, re.MULTILINE) == []


@by_page
def test_scripts_are_the_shell_s_language(page: Path) -> None:
    for block in fences(page, "bash"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@by_page
def test_no_link_leads_nowhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if ":" in path:
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_site_has_every_page() -> None:
    named = set(re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert named == {page.name for page in PAGES if page.parent.name == "docs"}


def test_the_messages_of_troubleshooting_are_the_program_s() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").split("## Results")[0]
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) > 10
    assert [message for message in messages if message not in source] == []
