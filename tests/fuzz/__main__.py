"""Fuzz every parser for a given time: `python -m tests.fuzz --seconds 600`. `make fuzz` does the same.

Each target gets rounds of new inputs in turn until the time is over. A finding is an exception that is no SrcliError,
a line of memory that was crossed, or an input that takes longer than LONGEST; its bytes are kept in out/fuzz.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded

from tests.fuzz.targets import TARGETS, Target

ROUND = 200  # inputs a turn
LONGEST = 20  # processor seconds for one input
STUCK = 300  # seconds in which one input must be done even on a busy machine
MEMORY = 8 << 30  # address space; torch alone reserves a good part of it
FOUND = Path("out") / "fuzz"


late: list[bool] = []


class Hang(BaseException):
    """One input took longer than LONGEST."""


def play(target: Target, count: Callable[[bool], None], number: int) -> None:
    """One round of a target. A finding is raised, after hypothesis has made it small."""

    @seeded(number)
    @settings(
        max_examples=ROUND,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def once(data: bytes) -> None:
        last[:] = [data]
        late.clear()
        signal.setitimer(signal.ITIMER_PROF, LONGEST)
        signal.alarm(STUCK)
        try:
            count(target(data))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
        if late:
            raise Hang

    last: list[bytes] = []
    try:
        once()
    except BaseException as error:
        error.__notes__ = [f"kept as {keep(last[0])}" if last else "no input"]  # hypothesis would print it whole
        raise


def keep(data: bytes) -> Path:
    """Write an input that found something where it can be looked at."""
    FOUND.mkdir(parents=True, exist_ok=True)
    path = FOUND / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path


def limit() -> None:
    """Bound memory, and time for each input, where the system can."""

    def ring(*_: object) -> None:
        late.append(True)  # where libraries swallow what is raised here, the input is a finding all the same
        raise Hang

    for name in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(name, ring)
    with suppress(ImportError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def main() -> int:
    words = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    words.add_argument("--seconds", type=float, default=60)
    words.add_argument("--seed", type=int, default=None, help="a random one, which is printed, if not given")
    words.add_argument("--only", choices=sorted(TARGETS), action="append")
    given = words.parse_args()
    number = random.randrange(1 << 32) if given.seed is None else given.seed
    warnings.simplefilter("ignore")
    limit()
    chosen = given.only or list(TARGETS)
    print(f"fuzzing {', '.join(chosen)} for {given.seconds:.0f} s from seed {number}", flush=True)
    return report(*fuzz(chosen, given.seconds, number))


def fuzz(chosen: list[str], seconds: float, number: int) -> tuple[Counter[str], Counter[str], dict[str, str]]:
    """Inputs and accepted inputs of each target, and the first finding of each, after which it is left out."""
    played, accepted, found = Counter[str](), Counter[str](), dict[str, str]()
    end = time.monotonic() + seconds
    while time.monotonic() < end and len(found) < len(chosen):
        for name in chosen:
            if name in found or time.monotonic() > end:
                continue

            def count(good: bool, name: str = name) -> None:
                played[name] += 1
                accepted[name] += good

            try:
                play(TARGETS[name], count, number)
            except (Exception, Hang):
                found[name] = traceback.format_exc()
                print(f"{name}: a finding\n{found[name]}", flush=True)
        number += 1
    return played, accepted, found


def report(played: Counter[str], accepted: Counter[str], found: dict[str, str]) -> int:
    for name, count in played.items():
        print(f"{name:16} {count:10,} inputs, {accepted[name]:10,} accepted, {int(name in found)} findings")
    print(f"{played.total():,} inputs, {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
