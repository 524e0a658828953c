"""Text by models, measured: ``python benchmarks/text.py speed | throughput |
films | train FOLDER [most [arms ...]] | runs FOLDER``.

``speed``: env steps per CPU second with texts and without, interleaved. ``throughput``: tokens a
second of SmolLM2 by llama.cpp and of a model with random weights by transformers, by how many texts
are in work at a time. ``films``: SmolLM2's notes of the default task's films, and hand-set play by
who writes. ``train``: teams without notes, with the template's and with SmolLM2's, seed by seed,
into folders called ARM-SEED; at most ``most`` now, and none that is there already. ``runs``:
outcomes of such folders, seed by seed against the arms before.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median

import torch

from agents.baselines import build_baseline
from agents.commands.train import begin
from agents.config import RunConfig
from marec_env.environment_config import EnvironmentConfig
from marec_env.evaluation.rollout import rollout
from marec_env.evaluation.statistics import paired_difference
from marec_env.simulator import Simulator
from marec_env.text.config import GgufText, TransformersText
from marec_env.text.models import open_model
from marec_env.text.prompts import DESCRIPTION, item_prompts
from marec_env.world import World, build_world

SESSIONS, STEPS, ROUNDS, COHORTS = 256, 20, 7, 10
TEXTS, AT_A_TIME = 16, (1, 4, 16)
DEFAULT = ("cf", "text", "affinity", "item_to_item", "popular", "fresh", "diverse")
SMOLLM2: dict[str, object] = {"kind": "gguf", "max_tokens": 40}
ARMS = ("base", "template", "smollm2")
SEEDS = 10


def _world(**text: object) -> World:
    plain = EnvironmentConfig()
    pipeline: dict[str, object] = {}
    if text:
        pipeline = {
            "components": ("profile/told", "recall", "feature", "ranking"),
            "recall": {"channels": (*DEFAULT, "notes", "user_text")},
            "blocks": {**plain.pipeline.blocks, "notes": 0.03, "rerank": 0.03},
        }
    started = time.perf_counter()
    world = build_world(EnvironmentConfig.model_validate({"text": text, "pipeline": pipeline}))
    print(f"world with {text or 'no texts'}: {time.perf_counter() - started:.1f} s to build")
    return world


def speed() -> None:
    """Print env steps per CPU second, medians of interleaved rounds."""
    worlds = {"without": _world(), "with": _world(notes=True, user_every=5, rerank=64)}
    simulators = {name: Simulator(world, SESSIONS) for name, world in worlds.items()}
    rates: dict[str, list[float]] = {name: [] for name in simulators}
    for simulator in simulators.values():
        simulator.reset(seed=0)
    for _ in range(ROUNDS):
        for name, simulator in simulators.items():
            actions = simulator.default_actions()
            started = time.process_time()
            for _ in range(STEPS):
                simulator.step(actions)
            rates[name].append(SESSIONS * STEPS / (time.process_time() - started))
    for name, found in rates.items():
        print(f"{name:>8}: {median(found):,.0f} env steps a CPU second")
    ratio = median(a / b for a, b in zip(rates["with"], rates["without"], strict=True))
    print(f"   ratio: {ratio:.3f}")


def throughput() -> None:
    """Print tokens a second of both kinds of local models."""
    world = _world()
    asked = [(p.system, p.user) for p in item_prompts(world.log, world.catalog, "en")[:TEXTS]]
    with tempfile.TemporaryDirectory() as place:
        _save_random_model(Path(place))
        for size in AT_A_TIME:
            for config in (
                GgufText(concurrency=size, max_tokens=40),
                TransformersText(folder=place, concurrency=size, max_tokens=40),
            ):
                model = open_model(config)
                model.complete(asked[:1], DESCRIPTION)
                wall, used = time.perf_counter(), time.process_time()
                replies = model.complete(asked, DESCRIPTION)
                wall, used = time.perf_counter() - wall, time.process_time() - used
                tokens = sum(reply.written for reply in replies)
                print(
                    f"{config.kind}, {size} at a time: {tokens} tokens written, "
                    f"{tokens / wall:.1f} a second, {tokens / used:.1f} a CPU second"
                )


def films() -> None:
    """Print what SmolLM2's notes of the films took, how far they are from the template's (by
    their words, and by the items nearest by note), and clicks of hand-set play by who writes.
    """
    arms = {name: _environment(name) for name in ARMS}
    plain, written = (
        build_world(EnvironmentConfig.model_validate(arms[name])).texts
        for name in ("template", "smollm2")
    )
    print(written.report)
    ways = {"the template's": 0, "of the template's words alone": 0, "others": 0}
    for note, facts in zip(written.notes, plain.notes, strict=True):
        old, new = (set(re.findall(r"\w+", text.lower())) for text in (facts, note))
        ways[list(ways)[0 if note == facts else 1 if new <= old else 2]] += 1
    print(f"{len(plain.notes)} notes: {ways}")
    near, far = written.note_neighbours, plain.note_neighbours
    assert near is not None and far is not None
    same = 100 * (near.unsqueeze(2) == far.unsqueeze(1)).any(2).float().mean()
    print(f"of {near.shape[1]} items nearest by note, {same:.0f} % are also by the template's")
    _compare(arms, 2 * SESSIONS, COHORTS)


def _environment(arm: str) -> dict[str, object]:
    """Return the default task: without notes (``base``), or with them."""
    text = {"notes": arm != "base", **({"model": SMOLLM2} if arm == "smollm2" else {})}
    blocks = EnvironmentConfig().pipeline.blocks | ({} if arm == "base" else {"notes": 0.03})
    channels = DEFAULT + ("notes",) * (arm != "base")
    return {"text": text, "pipeline": {"recall": {"channels": channels}, "blocks": blocks}}


def _compare(arms: Mapping[str, Mapping[str, object]], sessions: int, cohorts: int) -> None:
    """Print clicks a session of hand-set play by arm, and paired differences to those before."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, section in arms.items():
        world = build_world(EnvironmentConfig.model_validate(section))
        policy = build_baseline("static", Simulator(world, 1))
        results = [rollout(world, policy, sessions, seed) for seed in range(cohorts)]
        clicks = [result.per_session["clicks"] for result in results]
        found[name] = {
            "all": [float(c.mean()) for c in clicks],
            "new users": [float(c[r.is_new].mean()) for c, r in zip(clicks, results, strict=True)],
            "cold items": [
                float(r.clicks[r.item_groups["cold"] == 1].sum()) / sessions for r in results
            ],
        }
        print(f"{name}: {mean(found[name]['all']):.2f}; {world.texts.report}", flush=True)
        for who, values in found[name].items():
            print(f"  {who}: {mean(values):.2f}")
            for other in list(found)[:-1]:
                print(f"  {who}, less {other}: {paired_difference(values, found[other][who])}")


def _save_random_model(folder: Path) -> None:
    """Save a GPT-2 of 6 layers and 512 dimensions with random weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = ["<unk>", "<end>", *(f"w{n}" for n in range(20_000))]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(words), n_embd=512, n_layer=6, n_head=8, bos_token_id=1, eos_token_id=1
    )
    GPT2LMHeadModel(config).save_pretrained(folder)


def train_arms(
    folder: Path, most: int, arms: Iterable[str], run: Callable[[str, int, Path], int]
) -> None:
    """Train each arm, seed by seed, into folders called ARM-SEED.

    Args:
        folder: of the runs; finished ones stay, those that were cut off begin anew.
        most: runs that are trained now; below 0 for all.
        arms: their names.
        run: trains an arm with a seed into a folder; returns the exit code.
    """
    for seed in range(SEEDS):
        for arm in arms:
            place = folder / f"{arm}-{seed}"
            if (place / "evaluation.json").exists():
                continue
            if not most:
                return
            shutil.rmtree(place, ignore_errors=True)
            if code := run(arm, seed, place):
                sys.exit(code)
            most -= 1


def train(folder: Path, most: int, arms: Sequence[str]) -> None:
    """Train teams without notes, with the template's and with SmolLM2's."""

    def run(arm: str, seed: int, place: Path) -> int:
        settings = {
            "seed": seed,
            "environment": {"kind": "marec", **_environment(arm)},
            "evaluation": {"every": None, "baselines": ()},
        }
        return begin(RunConfig.model_validate(settings), [seed], [place])

    train_arms(folder, most, arms, run)


def runs(folder: Path) -> None:
    """Print outcomes of trained teams by arm, and paired differences to the arms before."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for path in sorted(folder.glob("*-*/evaluation.json")):
        arm, _, seed = path.parent.name.rpartition("-")
        team = json.loads(path.read_text())["policies"]["trained team"]
        clicks, items = team["groups"]["clicks"], team["exposure"]["popularity"]
        cold = team["exposure"].get("cold")
        found.setdefault(arm, {})[int(seed)] = {
            "clicks": team["outcomes"]["clicks"]["mean"],
            "known users": clicks["known users"]["mean"],
            "new users": clicks["new users"]["mean"],
            "clicks on the least popular fifth, %": 100 * items["clicks"][0],
        }
        if cold is not None and cold["rates"][-1] is not None:
            found[arm][int(seed)] |= {
                "of what was shown, cold items, %": 100 * cold["impressions"][1],
                "clicks on cold items, %": 100 * cold["clicks"][1],
                "clicks a cold item shown, %": 100 * cold["rates"][1],
            }
    for place, (arm, seeds) in enumerate(found.items()):
        for name in next(iter(seeds.values())):
            values = [seeds[seed][name] for seed in sorted(seeds)]
            line = f"{arm:>8} {name}: {mean(values):.2f} over seeds {sorted(seeds)}"
            for other in list(found)[:place]:
                shared = sorted(set(seeds) & set(found[other]))
                gap = paired_difference(
                    [seeds[seed][name] for seed in shared],
                    [found[other][seed][name] for seed in shared],
                )
                line += f"; less {other} {gap}"
            print(line)


if __name__ == "__main__":
    part, *rest = sys.argv[1:]
    if part == "runs":
        runs(Path(rest[0]))
    elif part == "train":
        train(Path(rest[0]), int(rest[1]) if len(rest) > 1 else -1, rest[2:] or ARMS)
    else:
        {"speed": speed, "throughput": throughput, "films": films}[part]()
