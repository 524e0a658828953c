"""All speed tables of one GPU, beside the CPU's: ``python benchmarks/gpu.py [--out gpu.json]``.

Where marec is not installed: ``python -m benchmarks.gpu`` in the repository. Under six minutes,
without a network and without Ray (the training table needs RLlib; it is left out where RLlib is
missing). What is measured:

* users alone, and the pipeline with users, its own default actions and autoreset: requests a second
  by sessions side by side, time of a step and peak memory of the device;
* what a step asks of the device: kernel launches, copies, waits, and the time it is busy, counted
  by ``torch.profiler``; on the CPU the number of operators;
* training, default networks, rollouts of 32: environment steps a second;
* embedding, by token budget and precision, with sentence-transformers beside it. Without
  ``--encoder`` the weights are random, of the shape of all-MiniLM-L6-v2: speed does not depend on
  them. Texts are random words, 9 and 59 on average.

CPU columns are one thread of the same machine. ``--cpu-smoke`` runs everything on the CPU at tiny
sizes, which shows that it works and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from importlib import metadata
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from marec_env import random
from marec_env.classic import get_preset
from marec_env.config.loader import load_mapping
from marec_env.embeddings import EmbeddingConfig, TextEncoder
from marec_env.embeddings.tokens import TextTokenizer
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import MarecError
from marec_env.graph import capturing
from marec_env.simulator import Simulator
from marec_env.world import build_world, moved

LIMIT = 330.0  # seconds, after which tables are left out
PACKAGES = (
    "torch",
    "numpy",
    "transformers",
    "tokenizers",
    "sentence-transformers",
    "ray",
    "triton",
)
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
WORDS = 20_000  # different words of the texts
CPU = torch.device("cpu")
FULL = {
    "users": (1024, 16_384, 131_072, 524_288),
    "pipeline": (64, 1024, 8192, 32_768, 131_072),
    "profiled": (1024, 16_384),
    "training": (256, 4096, 16_384),
    "seeds": 10,
    "budgets": (4096, 32_768, 131_072),
    "texts": {"titles": (65_536, 9), "descriptions": (65_536, 59)},
    "compared": 8192,  # texts of sentence-transformers
    "on_cpu": {"users": 1024, "pipeline": 1024, "training": 256, "texts": 256},
    "seconds": 1.0,
}
SMOKE = {
    "users": (8,),
    "pipeline": (8,),
    "profiled": (8,),
    "training": (8,),
    "seeds": 2,
    "budgets": (64, 256),
    "texts": {"titles": (40, 9), "descriptions": (20, 59)},
    "compared": 20,
    "on_cpu": {"users": 8, "pipeline": 8, "training": 8, "texts": 10},
    "seconds": 0.05,
}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(step: Callable[[], object], device: torch.device, seconds: float, warm: int = 3) -> float:
    """Return calls a second; the clock stops when the device has done them all."""
    for _ in range(warm):
        step()
    wait(device)
    calls, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds or calls < 2:
        step()
        calls += 1
        if device.type == "cuda" and calls % 8 == 0:
            wait(device)  # else launches may be queued for longer than is measured
    wait(device)
    return calls / (time.perf_counter() - begin)


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def users_step(sessions: int, device: torch.device) -> Callable[[], object]:
    preset = get_preset("marec")
    users = preset.users(
        sessions, device=str(device), population=moved(preset.population(0), device)
    )
    keys = random.session_keys(0, torch.arange(sessions, device=device))
    slates = random.integers(keys, 0, "benchmark/slates", preset.slate_size, users.num_items)
    users.reset(keys)

    def step() -> None:
        keys.add_(1)
        users.reset(keys, users.respond(slates).left)

    return step


def captured(step: Callable[[], object]) -> Callable[[], object]:
    """Return the step as one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with capturing(graph):
        step()
    return graph.replay


def environment(device: torch.device, smoke: bool) -> EnvironmentConfig:
    """MovieLens where it is installed, else a generated log of its size; texts are hashed."""
    values: dict[str, Any] = {"embeddings": {"encoder": "hashing"}, "device": str(device)}
    if smoke:
        generated = {"num_users": 60, "num_items": 600, "days": 5}
    else:
        try:
            build_world(EnvironmentConfig.model_validate({**values, "device": "cpu"}))
            return EnvironmentConfig.model_validate(values)
        except MarecError as error:
            print(f"  a generated log takes MovieLens' place: {str(error)[:60]} ...")
        generated = {"num_users": 943, "num_items": 1682}
    values["data"] = {"source": "synthetic/streaming", "synthetic": generated}
    return EnvironmentConfig.model_validate(values)


def simulator_step(config: EnvironmentConfig, sessions: int) -> Callable[[], object]:
    simulator = Simulator(build_world(config), sessions)
    actions = simulator.default_actions()
    return lambda: simulator.step(actions)


def profiled(step: Callable[[], object], device: torch.device, steps: int = 5) -> dict[str, Any]:
    """Return what a step asks of the device, or how many operators it has on the CPU."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    for _ in range(3):
        step()
    wait(device)
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    taken = (time.perf_counter() - begin) / steps
    with profile(activities=activities) as recorded:
        for _ in range(steps):
            step()
        wait(device)
    events = recorded.key_averages()

    def count(*names: str) -> float:
        return sum(event.count for event in events if event.key in names) / steps

    found: dict[str, Any] = {
        "milliseconds": taken * 1e3,
        "operators": sum(e.count for e in events if e.key.startswith("aten::")) / steps,
        "nonzero": count("aten::nonzero"),
        "item": count("aten::item"),
    }
    if device.type == "cuda":
        found["launches"] = count(*LAUNCHES)
        found["graph_launches"] = count("cudaGraphLaunch")
        found["copies"] = count("cudaMemcpyAsync")
        found["waits"] = max(0.0, count(*WAITS) - 1 / steps)  # the last is this function's own
        busy = sum(getattr(event, "self_device_time_total", 0.0) for event in events)
        found["busy_milliseconds"] = busy / steps / 1e3
        slowest = sorted(events, key=lambda e: -getattr(e, "self_device_time_total", 0.0))[:5]
        found["slowest"] = {
            event.key[:60]: event.self_device_time_total / steps / 1e3 for event in slowest
        }
    return found


def same_play(here: EnvironmentConfig, there: EnvironmentConfig, sessions: int) -> dict[str, Any]:
    """Return the share of equal team rewards of the same sessions on two devices after so many
    requests.
    """
    simulators = [Simulator(build_world(config), sessions) for config in (here, there)]
    found: dict[str, Any] = {}
    for request in range(1, 41):
        steps = [simulator.step(simulator.default_actions()) for simulator in simulators]
        paid = [step.metrics["team_reward"].cpu() for step in steps]
        if request in (1, 8, 40):
            equal = (paid[0] - paid[1]).abs() < 1e-4
            found[f"equal_rewards_after_{request}"] = float(equal.float().mean())
    return found


def training_step(config: EnvironmentConfig, sessions: int, seeds: int = 1) -> Callable[[], object]:
    from agents.config import RunConfig
    from agents.runs.environment import build_trainers

    sampling = {"num_sessions": sessions, "rollout_length": 32}
    values = {
        "environment": config.model_dump(mode="json"),
        "sampling": sampling,
        "device": config.device,
    }
    trainers = build_trainers(load_mapping(values, RunConfig, "gpu.py"), range(seeds))
    return lambda: [trainer.iterate() for trainer in trainers]


def corpus(count: int, words: int) -> list[str]:
    """Return texts of random words, half to one and a half times as many as told."""
    keys = random.session_keys(0, torch.arange(count))
    lengths = words // 2 + random.integers(keys, 0, "benchmark/length", 1, words + 1).squeeze(1)
    drawn = random.integers(keys, 0, "benchmark/words", 2 * words, WORDS).tolist()
    rows = zip(drawn, lengths.tolist(), strict=True)
    return [" ".join(f"w{word}" for word in row[:length]) for row, length in rows]


def random_encoder(folder: Path, smoke: bool) -> Path:
    """Write a BERT of MiniLM's shape with random weights, and a tokenizer that knows the words."""
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    layers, width, inner, heads = (2, 32, 64, 4) if smoke else (6, 384, 1536, 12)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *(f"w{number}" for number in range(WORDS)), "|"]
    names = {word: place for place, word in enumerate(words)}
    size = len(names) if smoke else 30_522
    tokenizer = Tokenizer(models.WordPiece(names, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    settings = {f"{role}_token": special[place] for role, place in roles.items()}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    shape = {
        "model_type": "bert", "architectures": ["BertModel"], "hidden_size": width,
        "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner,
        "vocab_size": size, "max_position_embeddings": 512, "type_vocab_size": 2,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(shape))
    source = torch.Generator().manual_seed(0)
    weights = {}

    def linear(name: str, outer: int, of: int) -> None:
        weights[f"{name}.weight"] = 0.04 * torch.randn(outer, of, generator=source)
        weights[f"{name}.bias"] = torch.zeros(outer)

    def norm(name: str) -> None:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = torch.ones(width), torch.zeros(width)

    for name, rows in (("word", size), ("position", 512), ("token_type", 2)):
        table = 0.04 * torch.randn(rows, width, generator=source)
        weights[f"embeddings.{name}_embeddings.weight"] = table
    norm("embeddings.LayerNorm")
    for number in range(layers):
        base = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            linear(f"{base}.attention.self.{part}", width, width)
        linear(f"{base}.attention.output.dense", width, width)
        linear(f"{base}.intermediate.dense", inner, width)
        linear(f"{base}.output.dense", width, inner)
        norm(f"{base}.attention.output.LayerNorm")
        norm(f"{base}.output.LayerNorm")
    linear("pooler.dense", width, width)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


class Report:
    """The tables, as they are printed and as JSON."""

    def __init__(self, limit: float) -> None:
        self.began, self.limit = time.monotonic(), limit
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.last = ""

    def row(self, table: str, what: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Measure and print a row; what fails is a row that says so."""
        rows = self.tables.setdefault(table, [])
        if table != self.last:
            print(f"\n{table}")
        self.last = table
        if time.monotonic() - self.began > self.limit:
            found: dict[str, Any] = {"left_out": "out of time"}
        else:
            try:
                found = measure()
            except ImportError as error:
                found = {"left_out": f"{error.name} is not installed"}
            except Exception as error:  # whatever one row meets, the others are measured
                line = " ".join(str(error).split())[:160]
                found = {"failed": f"{type(error).__name__}: {line}"}
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        rows.append({"what": what, **found})
        cells = [f"{name} {_shown(value)}" for name, value in found.items() if name != "slowest"]
        print(f"  {what:<34} " + ", ".join(cells), flush=True)
        for name, value in found.get("slowest", {}).items():
            print(f"  {'':<34} {value:8.3f} ms {name}")


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def requests(
    step: Callable[[], object], sessions: int, device: torch.device, seconds: float
) -> dict[str, Any]:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    found = rate(step, device, seconds)
    row = {"requests_per_s": found * sessions, "milliseconds": 1e3 / found}
    if device.type == "cuda":
        row["peak_GiB"] = torch.cuda.max_memory_allocated(device) / 2**30
    return row


class Simulation:
    """Rows of users alone, the pipeline with users, and training."""

    users = "users alone (marec, 10 of 1,000 items)"
    pipeline = "pipeline and users (default environment)"
    asked = "what a step asks of the device"
    training = "training (default networks, rollouts of 32)"

    def __init__(
        self, report: Report, device: torch.device, size: dict[str, Any], smoke: bool
    ) -> None:
        self.report, self.device, self.size, self.smoke = report, device, size, smoke
        self.here, self.there = environment(CPU, smoke), environment(device, smoke)

    def _alone(self, place: torch.device, count: int) -> dict[str, Any]:
        return requests(users_step(count, place), count, place, self.size["seconds"])

    def _whole(self, where: EnvironmentConfig, place: torch.device, count: int) -> dict[str, Any]:
        return requests(simulator_step(where, count), count, place, self.size["seconds"])

    def _trained(
        self, where: EnvironmentConfig, place: torch.device, count: int, seeds: int = 1
    ) -> dict[str, Any]:
        step = training_step(where, count, seeds)
        found = rate(step, place, self.size["seconds"], warm=2)
        return {"env_steps_per_s": found * seeds * count * 32, "iteration_s": 1 / found}

    def team(self) -> None:
        """The pipeline, what a step of it asks of the device, and training."""
        row, device, there = self.report.row, self.device, self.there
        for count in self.size["pipeline"]:
            row(self.pipeline, f"B = {count:,}", lambda n=count: self._whole(there, device, n))
        play = lambda: same_play(self.here, there, 8 if self.smoke else 512)  # noqa: E731
        row(self.pipeline, "this device against the CPU", play)
        for count in self.size["profiled"]:
            asks = lambda n=count: profiled(simulator_step(there, n), device)  # noqa: E731
            row(self.asked, f"pipeline, B = {count:,}", asks)
        for count in self.size["training"]:
            what = f"sessions {count:,}"
            row(self.training, what, lambda n=count: self._trained(there, device, n))
        count, seeds = self.size["training"][0], self.size["seeds"]
        what = f"{seeds} seeds of {count:,} sessions, one batch"
        row(self.training, what, lambda: self._trained(there, device, count, seeds))

    def people(self) -> None:
        """Users alone, step by step and as one CUDA graph."""
        row, device = self.report.row, self.device
        for count in self.size["users"]:
            row(self.users, f"B = {count:,}", lambda n=count: self._alone(device, n))
            if device.type == "cuda":
                row(
                    self.users, f"B = {count:,}, as one CUDA graph",
                    lambda n=count: requests(
                        captured(users_step(n, device)), n, device, self.size["seconds"]
                    ),
                )  # fmt: skip
        for count in self.size["profiled"]:
            asks = lambda n=count: profiled(users_step(n, device), device)  # noqa: E731
            row(self.asked, f"users alone, B = {count:,}", asks)

    def beside(self) -> None:
        """The CPU's rows."""
        row, here, on_cpu = self.report.row, self.here, self.size["on_cpu"]
        count = on_cpu["pipeline"]
        what = f"CPU, one thread, B = {count:,}"
        with one_thread():
            row(self.pipeline, what, lambda: self._whole(here, CPU, count))
            row(self.asked, what, lambda: profiled(simulator_step(here, count), CPU))
            row(self.users, what, lambda: self._alone(CPU, on_cpu["users"]))
            what = f"CPU, one thread, sessions {on_cpu['training']:,}"
            row(self.training, what, lambda: self._trained(here, CPU, on_cpu["training"]))


def embedded(
    report: Report, device: torch.device, size: dict[str, Any], folder: Path, name: str
) -> None:
    """Measure one corpus."""
    texts, table = corpus(*size["texts"][name]), f"embedding of {name}"
    few = texts[: size["on_cpu"]["texts"]]
    basic = EmbeddingConfig(encoder=str(folder), cache=False)
    tokenizer = TextTokenizer(folder, basic.max_length)
    mean = sum(map(len, tokenizer(few))) / len(few)

    def timed(work: Callable[[list[str]], object], given: list[str]) -> dict[str, Any]:
        work(given[: len(given) // 8 + 1])
        begin = time.perf_counter()
        work(given)
        found = len(given) / (time.perf_counter() - begin)
        return {"texts_per_s": found, "tokens_per_s": found * mean}

    report.row(table, "tokenising alone", lambda: timed(tokenizer, texts))
    for dtype in ("fp32", "bf16"):
        for budget in (*size["budgets"], "auto"):
            config = basic.model_copy(update={"dtype": dtype, "token_budget": budget})
            report.row(
                table, f"{dtype}, budget {budget}",
                lambda c=config: timed(TextEncoder(c, device).encode, texts),
            )  # fmt: skip
    for dtype in ("float32", "bfloat16"):
        for batch in (256, 2048):
            report.row(
                table, f"sentence-transformers, {dtype}, {batch}",
                lambda b=batch, d=dtype: timed(
                    sentence_transformer(folder, device, b, d), texts[: size["compared"]]
                ),
            )  # fmt: skip
    with one_thread():
        report.row(
            table, "CPU, one thread, fp32", lambda: timed(TextEncoder(basic, CPU).encode, few)
        )
    encoder = TextEncoder(basic.model_copy(update={"dtype": "bf16"}), device)
    asked = texts[: size["compared"]]
    report.row(
        table, f"asked of the device, bf16, {len(asked):,} texts",
        lambda: profiled(lambda: encoder.encode(asked), device, steps=2),
    )  # fmt: skip
    if device.type == "cuda":
        report.row(table, "CUDA against the CPU", lambda: agreement(basic, few, device))


def sentence_transformer(
    folder: Path, device: torch.device, batch: int, dtype: str
) -> Callable[[list[str]], object]:
    with redirect_stderr(StringIO()):
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device=str(device), local_files_only=True)
    model.max_seq_length = 256
    model.to(getattr(torch, dtype))
    return lambda texts: model.encode(texts, batch_size=batch, normalize_embeddings=True)


def agreement(config: EmbeddingConfig, texts: list[str], device: torch.device) -> dict[str, Any]:
    here = TextEncoder(config, CPU).encode(texts)
    found = {}
    for dtype in ("fp32", "bf16"):
        there = TextEncoder(config.model_copy(update={"dtype": dtype}), device).encode(texts)
        found[f"least_cosine_{dtype}"] = float((here * there).sum(1).min())
    return found


def facts(device: torch.device, commit: str | None) -> dict[str, Any]:
    """Return card, commit and versions."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    if commit is None:
        told = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False,
            cwd=Path(__file__).parent,
        )  # fmt: skip
        commit = told.stdout.strip() or "unknown"
    found: dict[str, Any] = {
        "card": "none (CPU)",
        "commit": commit,
        "python": platform.python_version(),
        "processor_cores": os.cpu_count(),
        "versions": versions,
    }
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {"card": card.name, "memory_GiB": card.total_memory / 2**30}
        found["cuda"] = torch.version.cuda
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="where the JSON goes")
    parser.add_argument("--device", default="cuda", help="which GPU")
    parser.add_argument("--cpu-smoke", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--encoder", type=Path, help="folder of an encoder; else random weights")
    parser.add_argument("--only", choices=("simulation", "embedding"), help="one half of it")
    parser.add_argument("--commit", help="of the code, where there is no git")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for all rows")
    chosen = parser.parse_args(arguments)
    if not chosen.cpu_smoke and not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured (--cpu-smoke shows that it works)")
        return 0
    warnings.filterwarnings("ignore")
    device = CPU if chosen.cpu_smoke else torch.device(chosen.device)
    size = SMOKE if chosen.cpu_smoke else FULL
    report, head = Report(chosen.limit), facts(device, chosen.commit)
    print("\n".join(f"{name}: {value}" for name, value in head.items()))
    simulation = None
    if chosen.only != "embedding":
        simulation = Simulation(report, device, size, chosen.cpu_smoke)
        simulation.team()
    if chosen.only != "simulation":
        with tempfile.TemporaryDirectory() as folder:
            encoder = chosen.encoder or random_encoder(Path(folder), chosen.cpu_smoke)
            head["encoder"] = str(chosen.encoder or "random weights")
            for name in size["texts"]:
                embedded(report, device, size, encoder, name)
    if simulation is not None:
        simulation.people()
        simulation.beside()
    head["seconds"] = round(time.monotonic() - report.began, 1)
    print(f"\n{head['seconds']} s in all; written to {chosen.out}")
    chosen.out.write_text(json.dumps({**head, "tables": report.tables}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
