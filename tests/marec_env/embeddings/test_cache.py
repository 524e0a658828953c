import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from marec_env.embeddings import (
    EmbeddingConfig,
    ReductionConfig,
    TextEncoder,
    embed_corpus,
    embed_texts,
    fit_reduction,
)
from marec_env.embeddings.vectors import Vectors

KNOWN = ("toy", "story", "war", "peace", "robot", "space", "child", "x", "y", "z")
TEXTS = [f"a {KNOWN[number % 10]} {KNOWN[number // 10]} film" for number in range(50)]


def files(config):
    return sorted((config.cache_root() / "embeddings").glob("*.safetensors"))


@pytest.fixture
def forbid_encoding(monkeypatch):
    def forbid():
        def refuse(*_):
            raise AssertionError("the encoder was loaded although everything is cached")

        monkeypatch.setattr("marec_env.embeddings.embed.TextEncoder", refuse)

    return forbid


def test_a_second_start_embeds_nothing(tiny, forbid_encoding):
    corpus = [*TEXTS, "", TEXTS[0]]
    first = embed_texts(tiny, corpus)
    assert len(first.unique(dim=0)) == 51 and torch.equal(first[0], first[-1])
    assert torch.equal(first[:51], TextEncoder(tiny).encode(corpus[:51]))
    assert [path.stat().st_mode & 0o777 for path in files(tiny)] == [0o644]
    forbid_encoding()
    assert torch.equal(embed_texts(tiny, corpus), first)


def test_each_corpus_has_a_file_of_its_distinct_texts(tiny):
    embed_texts(tiny, TEXTS)
    embed_texts(tiny, [*TEXTS, TEXTS[3]])
    assert len(files(tiny)) == 1
    embed_texts(tiny, TEXTS[1:])
    embed_texts(tiny, [*TEXTS[1:], TEXTS[0]])
    # Cut elsewhere, the same letters are other texts.
    embed_texts(tiny, ["ab", "c"])
    embed_texts(tiny, ["a", "bc"])
    assert len(files(tiny)) == 5
    assert not torch.equal(embed_texts(tiny, ["ab", "c"]), embed_texts(tiny, ["a", "bc"]))


@pytest.mark.parametrize(
    "change",
    [{"pooling": "cls"}, {"max_length": 4}, {"dtype": "bf16"}],
    ids=lambda change: next(iter(change)),
)
def test_settings_that_change_vectors_have_their_own_file(tiny, change):
    first = embed_texts(tiny, TEXTS)
    other = embed_texts(tiny.model_copy(update=change), TEXTS)
    assert not torch.allclose(first, other, atol=1e-4)
    assert len(files(tiny)) == 2
    assert torch.equal(embed_texts(tiny, TEXTS), first)


def test_changed_weights_or_tokenizer_have_their_own_file(tiny, tiny_bert, tmp_path):
    copy = shutil.copytree(tiny_bert, tmp_path / "copy")
    moved = tiny.model_copy(update={"encoder": str(copy)})
    embed_texts(tiny, TEXTS)
    embed_texts(moved, TEXTS)
    assert len(files(tiny)) == 1  # the same files elsewhere
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    embed_texts(moved, TEXTS)
    assert len(files(tiny)) == 2
    blob = bytearray((copy / "model.safetensors").read_bytes())
    blob[-1] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(blob))
    embed_texts(moved, TEXTS)
    assert len(files(tiny)) == 3


def test_a_killed_embedding_of_a_large_corpus_goes_on(tiny, monkeypatch):
    whole = embed_texts(tiny.model_copy(update={"cache": False}), TEXTS)
    monkeypatch.setattr("marec_env.embeddings.embed._PART", 20)
    honest, calls = TextEncoder.encode, []

    def encode(self, texts, on_batch=None):
        calls.append(len(texts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return honest(self, texts, on_batch)

    monkeypatch.setattr(TextEncoder, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        embed_texts(tiny, TEXTS)
    again = embed_texts(tiny, [*TEXTS, TEXTS[7]])
    assert calls == [20, 20, 20, 10]  # the first twenty only once
    assert torch.allclose(again[:-1], whole, atol=1e-6) and torch.equal(again[-1], again[7])
    assert len(files(tiny)) == 3


KILLED = """
import os, signal, sys
from marec_env.embeddings import EmbeddingConfig, TextEncoder, embed, embed_texts
from tests.marec_env.embeddings.test_cache import TEXTS
config = EmbeddingConfig(encoder=sys.argv[1], max_length=64, cache_folder=sys.argv[2])
embed._PART = 10
honest, calls = TextEncoder.encode, []
def encode(*given):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(*given)
TextEncoder.encode = encode
embed_texts(config, TEXTS)
"""


def test_what_a_killed_process_had_embedded_is_not_embedded_again(tiny, tiny_bert, monkeypatch):
    command = [sys.executable, "-c", KILLED, str(tiny_bert), str(tiny.cache_root())]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    done = len(files(tiny))
    assert done in (2, 3)  # the third may not have been written yet
    monkeypatch.setattr("marec_env.embeddings.embed._PART", 10)
    honest, calls = TextEncoder.encode, []
    monkeypatch.setattr(TextEncoder, "encode", lambda *given: (calls.append(1), honest(*given))[1])
    vectors = embed_texts(tiny, TEXTS)
    assert len(calls) == 5 - done
    whole = embed_texts(tiny.model_copy(update={"cache": False}), TEXTS)
    assert torch.allclose(vectors, whole, atol=1e-6)


def test_refresh_and_no_cache(tiny, forbid_encoding):
    first = embed_texts(tiny, TEXTS)
    (path,) = files(tiny)
    written = path.stat().st_mtime_ns
    assert torch.equal(embed_texts(tiny.model_copy(update={"refresh": True}), TEXTS), first)
    assert path.stat().st_mtime_ns > written
    path.unlink()
    embed_texts(tiny.model_copy(update={"cache": False}), TEXTS)
    assert files(tiny) == []


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 16
    path.write_bytes(content)


def _rewrite(path, change):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
    tensors = load_file(path)
    change(tensors, facts)
    save_file(tensors, path, facts)


DAMAGES = {
    "a flipped bit": _flip,
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 5),
    "empty": lambda path: path.write_bytes(b""),
    "no header": lambda path: path.write_bytes(b"\xff" * 4000),
    "other JSON": lambda path: path.write_bytes(len(b"[1,2]").to_bytes(8, "little") + b"[1,2]"),
    "no such tensor": lambda path: path.write_bytes(save({"x": torch.zeros(50, 32)})),
    "no metadata": lambda path: path.write_bytes(save({"vectors": torch.zeros(50, 32)})),
    "fewer rows": lambda p: _rewrite(p, lambda t, _: t.update(vectors=t["vectors"][:9].clone())),
    "one axis": lambda p: _rewrite(p, lambda t, _: t.update(vectors=torch.zeros(50))),
    "other numbers": lambda p: _rewrite(p, lambda t, _: t.update(vectors=t["vectors"].half())),
    "another corpus": lambda path: _rewrite(path, lambda _, facts: facts.update(corpus="0")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_told_and_mended(tiny, damage, caplog, forbid_encoding):
    first = embed_texts(tiny, TEXTS)
    (path,) = files(tiny)
    damage(path)
    caplog.set_level(logging.WARNING)
    assert torch.equal(embed_texts(tiny, TEXTS), first)
    assert [str(path) in line and "embedded again" in line for line in caplog.messages] == [True]
    caplog.clear()
    forbid_encoding()
    assert torch.equal(embed_texts(tiny, TEXTS), first)
    assert not caplog.text


def test_a_folder_in_the_place_of_the_file_costs_only_the_cache(tiny, caplog):
    first = embed_texts(tiny, TEXTS)
    (path,) = files(tiny)
    path.unlink()
    path.mkdir()
    caplog.set_level(logging.WARNING)
    assert torch.equal(embed_texts(tiny, TEXTS), first)
    assert "is damaged" in caplog.messages[0] and "cannot write" in caplog.messages[1]


@pytest.mark.parametrize(
    "name", ["notes.txt", "x.safetensors", "1-0-nan.keys", ".hidden", "ab\x1b[31m", "\udcff"]
)
def test_strays_beside_it_do_not_matter(tiny, name, caplog, forbid_encoding):
    folder = tiny.cache_root() / "embeddings"
    (folder / "a folder.safetensors").mkdir(parents=True)
    (folder / name).write_bytes(b"stray")
    caplog.set_level(logging.WARNING)
    first = embed_texts(tiny, TEXTS)
    forbid_encoding()
    assert torch.equal(embed_texts(tiny, TEXTS), first)
    assert not caplog.text


def test_a_cache_that_cannot_be_written_costs_only_itself(tiny, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    blocked = tiny.model_copy(update={"cache_folder": str(tmp_path / "file")})
    caplog.set_level(logging.WARNING)
    assert torch.equal(embed_texts(blocked, TEXTS), embed_texts(tiny, TEXTS))
    assert "cannot write the cache" in caplog.text


def test_the_limit_evicts_what_was_used_longest_ago(tiny, forbid_encoding):
    corpora = {name: [f"{text} {name}" for text in TEXTS] for name in ("old", "new", "newest")}
    config = tiny.model_copy(update={"cache_limit_gib": 15_000 / 2**30})  # two files of 7 kB
    for name in ("old", "new", "old", "newest"):  # old is used again
        embed_texts(config, corpora[name])
        time.sleep(0.01)
    assert sum(path.stat().st_size for path in files(config)) <= 15_000
    kept = files(config)
    forbid_encoding()
    embed_texts(config, corpora["old"])
    embed_texts(config, corpora["newest"])
    assert files(config) == kept and len(kept) == 2
    with pytest.raises(AssertionError, match="the encoder was loaded"):
        embed_texts(config, corpora["new"])


def test_what_a_killed_writer_left_counts_and_goes(tiny):
    config = tiny.model_copy(update={"cache_limit_gib": 10_000 / 2**30})
    left = config.cache_root() / "embeddings" / ".ab.safetensors.0123456789ab"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(5000))
    os.utime(left, (0, 0))
    embed_texts(config, TEXTS)
    assert not left.exists() and len(files(config)) == 1


CODE = """
import sys
from marec_env.embeddings import EmbeddingConfig, embed_texts
from tests.marec_env.embeddings.test_cache import TEXTS
config = EmbeddingConfig(encoder=sys.argv[1], max_length=64, cache_folder=sys.argv[2], refresh=True)
print("ready", flush=True)
while True:
    embed_texts(config, TEXTS)
"""


def test_a_reader_never_sees_half_a_file(tiny, tiny_bert, caplog):
    """While one process writes the file again and again, and is killed at last."""
    first = embed_texts(tiny, TEXTS)
    command = [sys.executable, "-c", CODE, str(tiny_bert), str(tiny.cache_root())]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    caplog.set_level(logging.WARNING)
    writer.stdout.readline()
    until, reads = time.monotonic() + 1.0, 0
    while time.monotonic() < until or reads < 5:
        assert torch.equal(embed_texts(tiny, TEXTS), first)
        reads += 1
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert torch.equal(embed_texts(tiny, TEXTS), first)
    assert not caplog.text


def test_defaults_lie_outside_the_project(monkeypatch, tmp_path):
    monkeypatch.delenv("MAREC_CACHE", raising=False)
    assert str(EmbeddingConfig().cache_root()).endswith("/.cache/marec")
    monkeypatch.setenv("MAREC_CACHE", str(tmp_path))
    assert EmbeddingConfig().cache_root() == tmp_path
    assert EmbeddingConfig(cache_folder="here").cache_root().name == "here"


def test_a_large_corpus_stays_in_its_files(tiny, monkeypatch):
    monkeypatch.setattr("marec_env.embeddings.embed._PART", 20)
    texts = [*TEXTS, TEXTS[7], TEXTS[30]]
    for _ in range(2):  # embedded, and read again
        vectors = embed_corpus(tiny, texts)
        assert isinstance(vectors, Vectors)
        mapped = Path("/proc/self/maps")
        if mapped.is_file():  # Linux
            assert all(str(path) in mapped.read_text() for path in files(tiny))
        whole = embed_texts(tiny.model_copy(update={"cache": False}), texts)
        assert vectors.shape == whole.shape
        for size in (7, 20, 1000):
            assert torch.equal(torch.cat([*vectors.split(size)]), whole)


def test_a_reduction_in_blocks_is_that_of_the_table(tiny, monkeypatch):
    monkeypatch.setattr("marec_env.embeddings.embed._PART", 20)
    section = ReductionConfig(dimension=4)
    vectors = embed_corpus(tiny, TEXTS)
    whole = fit_reduction(section, vectors.whole())
    expected = whole.apply(vectors.whole())
    monkeypatch.setattr("marec_env.embeddings.reduction.BLOCK", 16)
    blocks = fit_reduction(section, vectors)
    torch.testing.assert_close(blocks.mean, whole.mean)
    torch.testing.assert_close(blocks.apply(vectors), expected, rtol=1e-4, atol=1e-5)
