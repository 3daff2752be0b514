"""Make an environment with only the packages that a machine with a GPU must have, to test a pack in.

The packages are links into this environment.

python -m benchmarks.gpu.bare FOLDER
"""

from __future__ import annotations

import sys
import venv
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

NAMED = ("torch", "transformers", "numpy", "pillow", "safetensors", "opencv-python-headless")


def find_with_needed(names: tuple[str, ...]) -> dict[str, Distribution]:
    """These distributions and their requirements on this system, by name."""
    found: dict[str, Distribution] = {}
    queue = list(names)
    while queue:
        name = queue.pop()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # required on other systems or by other versions
            continue
        needed = map(Requirement, found[name].requires or ())
        queue += [need.name for need in needed if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def link_packages(found: dict[str, Distribution], site: Path) -> None:
    """Link their packages and modules into `site`."""
    site.mkdir(parents=True, exist_ok=True)
    for each in found.values():
        for top in {file.parts[0] for file in each.files or ()} - {"..", "__pycache__"}:
            link = site / top
            if not link.is_symlink():
                link.symlink_to(Path(str(each.locate_file(top))).resolve())


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    venv.create(folder, clear=True)
    link_packages(find_with_needed(NAMED), folder / "lent")
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(f"{folder / 'lent'}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
