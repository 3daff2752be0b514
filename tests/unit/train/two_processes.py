"""One of several processes of a run (python two_processes.py OUT ARGUMENTS): trains, then leaves its own weights."""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import save_file

from srcli.cli import app
from srcli.train import running


def main() -> None:
    out, kept = Path(sys.argv[1]), []
    prepare = running.Trainer.prepare

    def remembering(self: running.Trainer) -> None:
        prepare(self)
        kept.append(self)

    running.Trainer.prepare = remembering
    app(sys.argv[2:], standalone_mode=False)
    trainer = kept[0]
    state = {
        f"{index}.{name}": parameter.detach().clone()
        for index, learner in enumerate(trainer.learners)
        for name, parameter in learner.phase.module.named_parameters()
    }
    save_file(state, out / f"rank-{trainer.processes.rank}.safetensors")


if __name__ == "__main__":
    main()
