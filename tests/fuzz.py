"""Bad input of many kinds: ``python tests/fuzz.py --minutes 3 --seed 0``.

Configurations, overrides, data folders, the JSON of a run's folder, plug-ins and calls from Python
are drawn from grammars. Right is success, or a :class:`~marec_env.errors.MarecError` whose lines
name what is wrong and hold nothing that acts in a terminal: at the command line that is one line
and exit code 2, which a few real commands check. Anything else is printed with the number that
draws it again (``--only NUMBER``). Most inputs are tried in this process, some dozens a second.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import yaml  # noqa: E402

import marec_env  # noqa: E402
from agents.cli import run as run_command  # noqa: E402
from agents.config import RunConfig  # noqa: E402
from marec_env.config.fields import all_paths  # noqa: E402
from marec_env.config.loader import load, load_text  # noqa: E402
from marec_env.data.config import DataConfig  # noqa: E402
from marec_env.data.log import load_log  # noqa: E402
from marec_env.errors import MarecError  # noqa: E402

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]")
LONGEST = 2000  # characters of a message
PATHS = sorted(all_paths(RunConfig))
WORDS = [
    "",
    "a",
    "none",
    "marec",
    "cuda:1",
    "os:system",
    "..:f",
    "é",
    "\x1b[31m",
    "a\nb",
    "x" * 400,
]
NUMBERS = [0, 1, -1, 2, 3, 7, 2**31, 2**32, 2**63, 10**30, 0.0, 0.5, 1.0, -0.5, 1e-300, 1e300]
CELLS = ["", "0", "1", "5", "-3", "4.0", "1e39", "nan", "inf", "x", "=1+1", "\x1b[2J", "9" * 30]
CELLS += ["1700000000", "1700000000000", "2020-01-02", "é", '"', "a,b", " ", "True"]
SMALL: dict[str, Any] = {
    "data": {"source": "synthetic/ecommerce", "synthetic": {"num_users": 20, "num_items": 60}},
    "embeddings": {"encoder": "hashing", "reduction": {"dimension": 8}},
    "catalog": {"num_topics": 4},
    "population": {"history": 8},
    "pipeline": {"candidates": 12, "slate_size": 3},
    "max_requests": 3,
}
Case = tuple[str, Callable[[], object]]


def value(rng: random.Random, depth: int = 2) -> Any:
    """Draw plain data."""
    kind = rng.randrange(9 if depth else 6)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 5:
        return rng.choice(WORDS)
    if kind == 5:
        return rng.choice([None, True, False, float("nan"), float("inf")])
    if kind == 6:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    keys = [rng.choice([*WORDS[1:], "kind", "weight", "names"]) for _ in range(rng.randrange(4))]
    return {key: value(rng, depth - 1) for key in keys}


def _put(tree: dict[str, Any], path: str, what: Any) -> None:
    *above, last = path.split(".")
    for part in above:
        below = tree.get(part)
        tree[part] = tree = below if isinstance(below, dict) else {}
    tree[last] = what


def a_text(rng: random.Random) -> Case:
    """A configuration of drawn keys and values, its characters sometimes damaged."""
    tree: dict[str, Any] = {}
    for _ in range(rng.randint(1, 5)):
        path = rng.choice(PATHS)
        if rng.random() < 0.15:
            path = f"{path}x" if rng.random() < 0.5 else path.rpartition(".")[2]
        if rng.random() < 0.5:
            tree.setdefault(path.split(".")[0], {})
        _put(tree, path, value(rng)) if isinstance(tree, dict) else None
    text = yaml.safe_dump(tree, allow_unicode=True)
    for _ in range(rng.choice([0, 0, 0, 1, 3])):
        place = rng.randrange(len(text) + 1)
        text = (
            text[:place]
            + rng.choice(["\t", ":", "- ", "&a", "*a", "!!x ", "{", "\x00", "\n"])
            + text[place:]
        )
    return text, lambda: load_text(text, "drawn.yaml", RunConfig)


def an_override(rng: random.Random) -> Case:
    """``--set`` of drawn keys."""
    sets = []
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(PATHS)
        if rng.random() < 0.3:
            path = rng.choice(
                [path.rpartition(".")[2], path[:-1], f"{path}.0", "", "a..b", path + ".\x1b"]
            )
        sets.append(
            rng.choice(["{}={}", "{}", "{}=={}", "{}={}"]).format(path, json.dumps(value(rng)))
        )
    return repr(sets), lambda: load(ROOT / "configs" / "default.yaml", RunConfig, sets)


def an_environment(rng: random.Random) -> Case:
    """A small environment with drawn users, pipeline or rewards, and a few steps in it."""
    settings = copy.deepcopy(SMALL)
    keys = [
        path for path in PATHS if re.match(r"environment\.(users|pipeline|rewards|measure)\.", path)
    ]
    for path in rng.choices(keys, k=rng.randint(1, 3)):
        likely = rng.choice([0, 1, 2, 5, 0.0, 0.1, 0.5, 0.9, 1.0, 3.0, "none", True])
        what = likely if rng.random() < 0.8 else value(rng, 1)
        _put(settings, path.partition(".")[2], what)

    def play() -> None:
        env = marec_env.make_vec(settings, num_sessions=2)
        step = env.reset(rng.randrange(100))
        for _ in range(2):
            step = env.step(env.default_actions())
        for reward in step.rewards.values():
            assert torch.isfinite(reward).all(), "a reward that is not finite"

    return json.dumps(settings, default=str), play


def a_folder(rng: random.Random, folder: Path) -> Case:
    """A data folder with damaged headers, cells and rows."""
    users, items = rng.choice([1, 8, 20]), rng.choice([1, 12, 30])
    heads = {
        "interactions.csv": ["user_id", "item_id", "rating", "timestamp"],
        "items.csv": ["item_id", "title", "genres"],
    }
    extra = ["event", "propensity", "", "Unnamed: 0", "price", "click", "year", "like", "position"]
    files = {}
    for name, head in heads.items():
        head = [h for h in head if rng.random() < 0.93]
        head += rng.sample(extra, rng.choice([0, 0, 1, 2]))
        rng.shuffle(head) if rng.random() < 0.2 else None
        rows = []
        for row in range(items if name == "items.csv" else users * 8):
            good = {
                "user_id": f"u{rng.randrange(users)}",
                "item_id": f"i{row if name == 'items.csv' else rng.randrange(items)}",
                "rating": str(rng.randint(1, 5)),
                "timestamp": str(1_600_000_000 + rng.randrange(10**7)),
                "title": f"Title {row} (1999)",
                "genres": rng.choice(["a", "b|c", ""]),
            }
            rows.append([good.get(h, rng.choice(CELLS[1:4])) for h in head])
        for _ in range(rng.choice([0, 0, 1, 5])):
            if rows and head:
                rows[rng.randrange(len(rows))][rng.randrange(len(head))] = rng.choice(CELLS)
        lines = [",".join(line) for line in [head, *rows]]
        files[name] = "\n".join(lines) + "\n"
    if rng.random() < 0.05:
        files.pop(rng.choice(sorted(files)))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    config = DataConfig(source=str(folder), like_threshold=rng.choice([4.0, 1.0, 0.0, 9.0]))
    return json.dumps(files)[:3000], lambda: load_log(config)


def a_run_folder(rng: random.Random, run: Path, folder: Path) -> Case:
    """A run's folder with valid JSON of another shape, damaged bytes or files that are gone."""
    from agents.comparison.runs import read_run
    from agents.comparison.summary import summarise
    from agents.recommender import Recommender
    from agents.runs.trained import load_run

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run, folder)
    files = [f for f in sorted(folder.rglob("*")) if f.suffix in (".json", ".jsonl", ".yaml")]
    said = []
    for file in rng.sample(files, min(len(files), rng.choice([1, 1, 2]))):
        text = file.read_text()
        how = rng.randrange(5)
        if how == 0:
            file.write_text(json.dumps(value(rng)))
        elif how == 1:
            file.write_bytes(text.encode()[: rng.randrange(len(text) + 1)])
        elif how == 2:
            file.write_bytes(text.encode() + b"\xff\xfe\x00")
        elif how == 3 and file.suffix == ".json":
            tree = json.loads(text)
            if isinstance(tree, dict) and tree:
                tree[rng.choice(sorted(tree))] = value(rng)
            file.write_text(json.dumps(tree))
        else:
            file.unlink()
        said.append(f"{file.relative_to(folder)}:{how}")
    action = rng.choice(
        [
            lambda: load_run(folder).policy,
            lambda: summarise([read_run(folder)]),
            lambda: Recommender.load(folder),
        ]
    )
    return " ".join(said), action


JUNK = [None, 1, "x", float("nan"), [], {}, torch.zeros(3), torch.full((2,), float("nan"))]


def junk(*_arguments: object, **_settings: object) -> object:
    """Give whatever the fuzzer chose; a plug-in of every kind."""
    if isinstance(junk.gives, BaseException):  # type: ignore[attr-defined]
        raise junk.gives  # type: ignore[attr-defined]
    return junk.gives  # type: ignore[attr-defined]


def a_plugin(rng: random.Random) -> Case:
    """A user's own term, channel, component or user model that gives anything."""
    junk.gives = rng.choice([*JUNK, ValueError("no"), SystemExit(0), KeyError("k")])  # type: ignore[attr-defined]
    gives = junk.gives  # type: ignore[attr-defined]
    place = rng.choice(
        ["fuzz:junk", "fuzz:JUNK", "fuzz:nothing", "nowhere:f", "fuzz", "json:loads"]
    )
    settings = copy.deepcopy(SMALL)
    where = rng.choice(["team", "component", "users", "channel"])
    if where == "team":
        settings["rewards"] = {"team": {"engagement": 1.0, place: 0.5}}
    elif where == "component":
        settings["pipeline"]["components"] = ["profile", "recall", place, "feature", "ranking"]
    elif where == "users":
        settings["users"] = {"model": place}
    else:
        settings["pipeline"]["recall"] = {"channels": ["popular", place]}

    def play() -> None:
        junk.gives = gives  # type: ignore[attr-defined]
        env = marec_env.make_vec(settings, num_sessions=2)
        env.reset(0)
        env.step(env.default_actions())

    return f"{where} {place} gives {gives!r}", play


def a_call(rng: random.Random) -> Case:
    """Calls from Python with arguments of the wrong kind."""
    what = rng.choice([*JUNK, *NUMBERS, *WORDS, value(rng)])
    calls: dict[str, Callable[[], object]] = {
        "parallel_env": lambda: marec_env.parallel_env(what),
        "make_vec": lambda: marec_env.make_vec(SMALL, num_sessions=what),
        "reset": lambda: marec_env.parallel_env(SMALL).reset(seed=what),
        "step": lambda: _stepped(what, whole=True),
        "step one": lambda: _stepped(what, whole=False),
    }
    name = rng.choice(sorted(calls))
    return f"{name}({what!r})"[:300], calls[name]


def _stepped(what: Any, whole: bool) -> None:
    env = marec_env.parallel_env(SMALL)
    env.reset(seed=0)
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    env.step(what if whole else {**actions, env.agents[0]: what})


def a_command(rng: random.Random) -> Case:
    """A real command: exit code 0 or 2, and lines of errors only."""
    train, evaluate = str(ROOT / "train.py"), str(ROOT / "evaluate.py")
    path = rng.choice(PATHS)
    commands = [
        [train, "configs/nothing.yaml"],
        [train, "configs/default.yaml", "--set", f"{path}={json.dumps(value(rng, 1))}x\x1b"],
        [
            train,
            "configs/default.yaml",
            "--set",
            rng.choice(["env_steps=3", "seed=-1", "sampling.device=gpu"]),
        ],
        [train, "--resume", rng.choice(["nowhere", str(ROOT), "x" * 300])],
        [train, "configs/default.yaml", "--seeds", rng.choice(["x", "3-1", "0-99999999999", "-1"])],
        [evaluate, rng.choice(["nowhere", "compare", "run"]), "nowhere"],
        [evaluate, "explain", "nowhere", "--session", "-1"],
    ]
    command = rng.choice(commands)

    def run() -> None:
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, timeout=120
        )
        assert done.returncode == 2, f"exit code {done.returncode}: {done.stderr[-500:]}"
        assert "Traceback" not in done.stderr, done.stderr[-500:]
        assert not CONTROL.search(done.stderr), "a control character reached the terminal"

    return repr(command[1:]), run


def a_run(folder: Path) -> Path:
    """Train the smallest run."""
    sets = {f"environment.{key}": what for key, what in SMALL.items()}
    sets |= {"training.env_steps": 64, "training.checkpoint_every": 64, "sampling.num_sessions": 8}
    sets |= {"sampling.rollout_length": 4, "evaluation.sessions": 8, "tracking.wandb": "disabled"}
    sets |= {"evaluation.baselines": ["static", "popularity"]}
    options = [
        part for key, what in sets.items() for part in ("--set", f"{key}={json.dumps(what)}")
    ]
    command = [str(ROOT / "configs/default.yaml"), *options, "--run-dir", str(folder)]
    with open(os.devnull, "w") as quiet, redirect_stdout(quiet), redirect_stderr(quiet):
        assert run_command("train", command) == 0
    return folder


def verdict(action: Callable[[], object]) -> str | None:
    """Return what is wrong with how an input was taken, ``None`` if nothing."""
    try:
        action()
    except MarecError as error:
        text = str(error)
        if not text.strip():
            return "an empty message"
        if CONTROL.search(text.replace("\n", "")):
            return f"control characters in {text!r}"
        if any(len(line) > LONGEST for line in text.splitlines()):
            return f"a line of {max(map(len, text.splitlines()))} characters"
        return None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        trace = "".join(traceback.format_exception(error)[-6:])
        place = f"{Path(where.filename).name}:{where.lineno}"
        return f"{type(error).__name__} at {place}: {str(error)[:200]}\n{trace}"
    return None


def fuzz(minutes: float, seed: int, only: int | None = None, most: int | None = None) -> int:
    """Draw inputs until the time is up; print what was found and return how many were wrong."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(ROOT / "tests"))
    sys.modules["fuzz"] = sys.modules[__name__]
    os.environ.setdefault("MAREC_CACHE", tempfile.mkdtemp())
    tried: Counter[str] = Counter()
    wrong: dict[str, list[tuple[int, str, str]]] = {}
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as scratch:
        places = Path(scratch)
        run = a_run(places / "run")
        kinds: list[tuple[Callable[..., Case], tuple[Any, ...], int]] = [
            (a_text, (), 30),
            (an_override, (), 15),
            (an_environment, (), 20),
            (a_folder, (places / "data",), 15),
            (a_run_folder, (run, places / "copy"), 8),
            (a_plugin, (), 10),
            (a_call, (), 10),
        ]
        number = only or 0
        while time.monotonic() < end and (most is None or number < most):
            rng = random.Random(f"{seed}/{number}")
            kind, arguments, _ = rng.choices(kinds, [weight for _, _, weight in kinds])[0]
            if number % 400 == 399:
                kind, arguments = a_command, ()
            said, action = kind(rng, *arguments)
            with open(os.devnull, "w") as quiet:
                kept, sys.stderr = sys.stderr, quiet
                try:
                    found = verdict(action)
                finally:
                    sys.stderr = kept
            tried[kind.__name__] += 1
            if found is not None:
                wrong.setdefault(found.split("\n")[0][:120], []).append((number, said, found))
            if only is not None:
                print(said)
                break
            number += 1
    for first in wrong.values():
        number, said, found = first[0]
        print(f"--- {len(first)} times; --seed {seed} --only {number}: {said[:600]}\n{found}")
    counts = ", ".join(f"{name} {count}" for name, count in sorted(tried.items()))
    print(f"{tried.total()} inputs ({counts}); {sum(map(len, wrong.values()))} taken wrongly")
    return sum(map(len, wrong.values()))


def main() -> int:
    """Run the fuzzer; exit with 1 if an input was taken wrongly."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, help="stop after so many, time left or not")
    parser.add_argument("--only", type=int, help="draw this input alone")
    arguments = parser.parse_args()
    return int(fuzz(arguments.minutes, arguments.seed, arguments.only, arguments.inputs) > 0)


if __name__ == "__main__":
    sys.exit(main())
