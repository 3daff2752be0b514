"""The command line, which saves its state from the first moment on, and cuts pictures into small blocks.

    python -m tests.hasty KILL upscale ...

It runs twice, each time in a process of its own: the first kills itself when it has saved KILL states, the second
runs to its end. Prints the signal that ended the first, and the exit code of the second.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace

from srcli import cli
from srcli.engines.builtin import engine as builtin
from srcli.engines.pasd import engine as pasd  # noqa: F401  both processes have them from here
from srcli.sampling import resume

BLOCK = 16


def apart(kill: int) -> int:
    """The status of a process that runs the command line."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    load, save, left = builtin.load_builtin, resume.ResumeState.save, kill

    def fatal(self: resume.ResumeState, what: str, state: resume.SavedState) -> None:
        nonlocal left
        save(self, what, state)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    resume.FIRST_SAVE_AFTER = resume.SAVE_INTERVAL = 0.0
    resume.ResumeState.save = fatal
    builtin.load_builtin = lambda *given: replace(load(*given), block=BLOCK)
    cli.main()
    sys.exit(0)


def main() -> None:
    first = apart(int(sys.argv.pop(1)))
    second = apart(0)
    print(os.WTERMSIG(first), os.waitstatus_to_exitcode(second))


if __name__ == "__main__":
    main()
