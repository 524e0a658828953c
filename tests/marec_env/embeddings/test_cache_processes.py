"""Several processes at one cache, some of them killed."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from marec_env.embeddings import EmbeddingConfig, TextEncoder
from marec_env.embeddings.segment import KEYS
from marec_env.embeddings.space import open_store
from marec_env.embeddings.store import Store, keys_of

DIMENSION = 64


def vectors_of(numbers):
    base = torch.tensor(numbers, dtype=torch.float32).unsqueeze(1)
    return base * 7 + torch.arange(DIMENSION)


def fill(folder, first, count, step):
    """Append entries, a few at a time, each announced to the parent once it is stored."""
    store = Store(folder)
    for start in range(first, first + count, step):
        numbers = list(range(start, start + step))
        store.append(keys_of(str(n).encode() for n in numbers), vectors_of(numbers))
        os.write(1, f"{start + step}\n".encode())
    store.close()


def spawn(folder, first, count, step):
    """Fork a writer; returns its process number and the end of a pipe with its announcements."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        os.dup2(writable, 1)
        try:
            fill(folder, first, count, step)
        finally:
            os._exit(0)
    os.close(writable)
    return child, readable


def announced(readable, first):
    with os.fdopen(readable) as stream:
        lines = stream.read().split("\n")
    whole = [int(line) for line in lines[:-1]]  # the last may be torn by the kill
    return max(whole, default=first)


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_two_writers_one_killed_at_random_lose_nothing(tmp_path):
    chance = random.Random(0)
    expected, count = [], 3000
    for trial in range(8):
        base = trial * 2 * count
        survivor, survivor_pipe = spawn(tmp_path, base, count, 10)
        victim, victim_pipe = spawn(tmp_path, base + count, count, 10)
        time.sleep(chance.uniform(0.0, 0.05))
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        _, status = os.waitpid(survivor, 0)
        assert status == 0
        assert announced(survivor_pipe, base) == base + count
        stored = announced(victim_pipe, base + count)
        expected.extend(range(base, stored))
    found, known = Store(tmp_path).lookup(keys_of(str(n).encode() for n in expected))
    assert known.all()
    assert torch.equal(found, vectors_of(expected))
    everything = list(range(8 * 2 * count))
    found, known = Store(tmp_path).lookup(keys_of(str(n).encode() for n in everything))
    right = (found == vectors_of(everything)).all(dim=1).numpy()
    assert right[known].all()  # what a killed writer had not announced is right or absent


CODE = """
import sys, torch
from marec_env.embeddings import EmbeddingConfig, embed_texts
from marec_env.embeddings import encoder
encoder.CHUNK = 64
texts = sys.stdin.read().splitlines()
config = EmbeddingConfig(
    encoder=sys.argv[1], dtype="fp32", max_length=64, cache_folder=sys.argv[2], token_budget=256
)
print("ready", flush=True)
embed_texts(config, texts if sys.argv[3] == "up" else texts[::-1])
"""


def test_two_processes_embed_one_catalog_and_one_is_killed(tiny_bert, tmp_path):
    words = ("toy", "story", "war", "peace", "robot", "space", "child", "love", "drama")
    texts = [" ".join(four) for four in itertools.product(words, repeat=4)][:6000]

    def start(direction):
        arguments = [sys.executable, "-c", CODE, str(tiny_bert), str(tmp_path), direction]
        process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        process.stdin.write("\n".join(texts))
        process.stdin.close()
        return process

    survivor, victim = start("up"), start("down")
    victim.stdout.readline()
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(f"embeddings/*/*{KEYS}")) and time.monotonic() < deadline:
        time.sleep(0.01)
    victim.kill()
    victim.wait()
    assert survivor.wait(timeout=120) == 0
    config = EmbeddingConfig(
        encoder=str(tiny_bert), dtype="fp32", max_length=64, cache_folder=str(tmp_path)
    )
    found, known = open_store(config, torch.device("cpu")).lookup(
        keys_of(text.encode() for text in texts)
    )
    assert known.all()
    sample = list(range(0, 6000, 37))
    exact = TextEncoder(config, "cpu").encode([texts[row] for row in sample])
    assert torch.allclose(found[sample], exact, atol=1e-5)
