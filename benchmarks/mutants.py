"""How many planted faults the tests of the core notice: ``python benchmarks/mutants.py [FILE ...]``

mutmut changes one operator, number, name or argument at a time in the files that ``[tool.mutmut]``
of pyproject.toml lists, and runs the tests that reach the changed function. The table counts
mutants by file; survivors are named below it (``mutmut show NAME`` prints one). All files take
some hours of two cores; naming files does those only, ``--sample N`` tries N drawn mutants,
and what was tried before on unchanged code is kept. Survivors that only word a message, name the
device that the CPU is anyway, or give an argument its default are no faults.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

KILLED = {1: "killed", 3: "killed", 0: "survived", 33: "no test", 5: "no test"}
"""mutmut's exit codes; any other is a timeout or a crash, which a test run would notice too."""


def results(wanted: list[str]) -> dict[str, dict[str, int]]:
    """Return the exit code of each tried mutant, by file."""
    found = {}
    for meta in sorted(Path("mutants").rglob("*.meta")):
        place = str(meta.relative_to("mutants")).removesuffix(".meta")
        codes = json.loads(meta.read_text())["exit_code_by_key"]
        tried = {name: code for name, code in codes.items() if code is not None}
        if tried and (not wanted or place in wanted):
            found[place] = tried
    return found


def drawn(count: int, seed: int) -> list[str]:
    """Return the names of mutants drawn from all that were made."""
    names = [
        name
        for meta in sorted(Path("mutants").rglob("*.meta"))
        for name in json.loads(meta.read_text())["exit_code_by_key"]
    ]
    return random.Random(seed).sample(names, min(count, len(names)))


def row(place: str, mutants: int, count: Counter[str]) -> str:
    """Return a line of the table."""
    numbers = f"{count['killed']:>9}{count['survived']:>10}{count['no test']:>9}"
    return f"{place:<44}{mutants:>8}{numbers}"


def main() -> int:
    """Run mutmut, print the scores and the survivors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "files", nargs="*", help="files of the core; all that are listed by default"
    )
    parser.add_argument("--sample", type=int, help="mutants to draw; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report-only", action="store_true", help="print what the last run found")
    arguments = parser.parse_args()
    if not arguments.report_only:
        names = [f"{file.removesuffix('.py').replace('/', '.')}.*" for file in arguments.files]
        command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(arguments.workers)]
        if arguments.sample:
            if not Path("mutants").exists():  # a name that none has makes them and tries none
                subprocess.run([*command, "none"], capture_output=True)
            names = drawn(arguments.sample, arguments.seed)
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        log = Path("mutants.log")
        with log.open("w") as output:
            run = subprocess.run([*command, *names], env=os.environ | threads, stdout=output)
        if run.returncode:
            print(f"mutmut ended with {run.returncode}; what it said stands in {log}")
    total: Counter[str] = Counter()
    survivors = []
    print(f"{'file':<44}{'mutants':>8}{'noticed':>9}{'survived':>10}{'no test':>9}")
    for place, codes in results(arguments.files).items():
        count = Counter(KILLED.get(code, "killed") for code in codes.values())
        total += count
        survivors += [
            name for name, code in codes.items() if KILLED.get(code) in ("survived", "no test")
        ]
        print(row(place, len(codes), count))
    every = sum(total.values())
    print(row("all", every, total))
    print(f"\nnoticed: {100 * total['killed'] / max(every, 1):.1f} %")
    print("\n".join(survivors))
    return 0


if __name__ == "__main__":
    sys.exit(main())
