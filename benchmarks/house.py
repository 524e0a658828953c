"""How large the house is, and the way of one step through it.

``python benchmarks/house.py`` prints lines and files by room, and the files that one ``env.step``
of the default team enters, in the order in which it first enters them.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("marec_env", "agents")
LIMITS = {"lines": 28_000, "files": 220, "lines a file": 400, "files a step": 20}
"""What the two packages together, one file and one step keep to."""


def rooms() -> dict[str, dict[str, int]]:
    """Return lines by file, of each room: a folder of a package, or its own files."""
    found: dict[str, dict[str, int]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).parts
            room = "/".join(parts[:2]) if len(parts) > 2 else package
            found.setdefault(room, {})[str(path.relative_to(ROOT))] = len(
                path.read_text().splitlines()
            )
    return found


def way_of_a_step() -> tuple[dict[str, Counter[str]], int, int]:
    """Return what one step enters: functions by file, Python calls, and how deep they go."""
    sys.path.insert(0, str(ROOT))
    import marec_env

    env = marec_env.parallel_env()
    env.reset(seed=0)
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    env.step(actions)  # what is made on first use is not a step's way
    entered: dict[str, Counter[str]] = {}
    depth = deepest = 0

    def watch(frame: object, event: str, _argument: object) -> None:
        nonlocal depth, deepest
        code = frame.f_code  # type: ignore[attr-defined]
        if not code.co_filename.startswith(str(ROOT)) or "/.venv/" in code.co_filename:
            return
        if event == "call":
            depth += 1
            deepest = max(deepest, depth)
            place = str(Path(code.co_filename).relative_to(ROOT))
            entered.setdefault(place, Counter())[code.co_qualname] += 1
        elif event == "return":
            depth -= 1

    sys.setprofile(watch)
    env.step(actions)
    sys.setprofile(None)
    entered.pop("benchmarks/house.py", None)
    calls = sum(sum(functions.values()) for functions in entered.values())
    return entered, calls, deepest


def main() -> int:
    """Print both; exit with 1 where a limit is exceeded and ``--check`` is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 where a limit is exceeded"
    )
    parser.add_argument(
        "--functions", action="store_true", help="name each file's functions as well"
    )
    arguments = parser.parse_args()
    print(f"{'room':<28}{'files':>6}{'lines':>8}")
    counts = rooms()
    for room, files in counts.items():
        print(f"{room:<28}{len(files):>6}{sum(files.values()):>8,}")
    every = {place: lines for files in counts.values() for place, lines in files.items()}
    print(f"{'both packages':<28}{len(every):>6}{sum(every.values()):>8,}\n")
    entered, calls, deepest = way_of_a_step()
    print(f"One env.step enters {len(entered)} files with {calls} Python calls, {deepest} deep:")
    for place, functions in entered.items():
        print(f"  {place:<40}{sum(functions.values()):>5} calls")
        if arguments.functions:
            for name, count in functions.items():
                print(f"      {name} {count}")
    found = {
        "lines": sum(every.values()),
        "files": len(every),
        "lines a file": max(every.values()),
        "files a step": len(entered),
    }
    print()
    for name, limit in LIMITS.items():
        verdict = "kept" if found[name] <= limit else "exceeded"
        print(f"{name:<14}{found[name]:>8,}  limit {limit:>6,}  {verdict}")
    return int(arguments.check and any(found[name] > limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
