import json
import logging
import os
import time

import numpy as np
import pytest
import torch

from marec_env.embeddings import EmbeddingConfig, TextEncoder, embed_texts
from marec_env.embeddings import encoder as encoder_module
from marec_env.embeddings.hashes import HashMemo
from marec_env.embeddings.segment import KEYS, ROWS, SegmentWriter
from marec_env.embeddings.space import open_store
from marec_env.embeddings.store import Store, keys_of

KNOWN = ("toy", "story", "war", "peace", "robot", "space", "child", "x", "y", "z")
TEXTS = [f"a {KNOWN[number % 10]} {KNOWN[number // 10]} film" for number in range(50)]
CPU = torch.device("cpu")


def entries(numbers, dimension=5):
    """Keys, and vectors that follow from them."""
    keys = keys_of(str(number).encode() for number in numbers)
    column = torch.tensor(list(numbers), dtype=torch.float32).unsqueeze(1)
    return keys, torch.cat([column + place for place in range(dimension)], dim=1)


def segments(config):
    return sorted((config.cache_root() / "embeddings").glob(f"*/*{KEYS}"))


def forbid_encoding(monkeypatch):
    def refuse(*_):
        raise AssertionError("the encoder was loaded although everything is cached")

    monkeypatch.setattr("marec_env.embeddings.embed.TextEncoder", refuse)


def test_a_second_start_embeds_nothing(tiny, monkeypatch):
    first = embed_texts(tiny, [*TEXTS, "", TEXTS[0]])
    assert len(first.unique(dim=0)) == 51
    assert torch.allclose(first, TextEncoder(tiny).encode([*TEXTS, "", TEXTS[0]]), atol=1e-6)
    forbid_encoding(monkeypatch)
    assert torch.equal(embed_texts(tiny, [*TEXTS, "", TEXTS[0]]), first)
    assert torch.equal(embed_texts(tiny, TEXTS[::-1]), first[:50].flip(0))


def test_only_what_is_new_is_embedded(tiny, monkeypatch):
    first = embed_texts(tiny, TEXTS)
    asked = []
    encode = TextEncoder.encode_chunks

    def spy(self, texts, on_batch=None):
        asked.extend(texts)
        return encode(self, texts, on_batch)

    monkeypatch.setattr(TextEncoder, "encode_chunks", spy)
    mixed = embed_texts(tiny, ["love", TEXTS[3], "love", "comedy"])
    assert asked == ["love", "comedy"]
    assert torch.equal(mixed[1], first[3]) and torch.equal(mixed[0], mixed[2])
    assert not torch.equal(mixed[0], mixed[3])


@pytest.mark.parametrize(
    "change",
    [{"pooling": "cls"}, {"max_length": 4}, {"dtype": "bf16"}],
    ids=lambda change: next(iter(change)),
)
def test_settings_that_change_vectors_have_their_own_space(tiny, change):
    first = embed_texts(tiny, TEXTS)
    other = embed_texts(tiny.model_copy(update=change), TEXTS)
    assert not torch.allclose(first, other, atol=1e-4)
    assert len({path.parent for path in segments(tiny)}) == 2


def test_changed_weights_or_tokenizer_have_their_own_space(tiny, tiny_bert, tmp_path):
    import shutil

    copy = shutil.copytree(tiny_bert, tmp_path / "copy")
    moved = tiny.model_copy(update={"encoder": str(copy)})
    original = open_store(tiny, CPU).folder
    assert open_store(moved, CPU).folder == original
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    changed = open_store(moved, CPU).folder
    assert changed != original
    blob = bytearray((copy / "model.safetensors").read_bytes())
    blob[-1] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(blob))
    assert open_store(moved, CPU).folder not in {original, changed}


def test_refresh_replaces_what_is_there(tiny):
    store = open_store(tiny, CPU)
    store.append(keys_of(text.encode() for text in TEXTS), torch.ones(50, 32))
    store.close()
    assert torch.equal(embed_texts(tiny, TEXTS), torch.ones(50, 32))
    fresh = embed_texts(tiny.model_copy(update={"refresh": True}), TEXTS)
    assert not torch.allclose(fresh, torch.ones(50, 32))
    assert torch.equal(embed_texts(tiny, TEXTS), fresh)


@pytest.mark.parametrize("suffix", [ROWS, KEYS])
def test_damage_is_found_and_repaired(tiny, suffix, caplog, monkeypatch):
    first = embed_texts(tiny, TEXTS)
    (path,) = segments(tiny)
    size = {ROWS: 32 * 4, KEYS: 32}[suffix]
    with open(path.with_suffix(suffix), "r+b") as stream:
        stream.seek(7 * size + 9)
        byte = stream.read(1)
        stream.seek(7 * size + 9)
        stream.write(bytes([byte[0] ^ 16]))
    caplog.set_level(logging.WARNING)
    assert torch.allclose(embed_texts(tiny, TEXTS), first, atol=1e-6)
    assert ("1 damaged entries are embedded again" in caplog.text) == (suffix == ROWS)
    caplog.clear()
    forbid_encoding(monkeypatch)
    assert torch.allclose(embed_texts(tiny, TEXTS), first, atol=1e-6)
    assert not caplog.text


@pytest.mark.parametrize("suffix", [ROWS, KEYS])
def test_a_torn_tail_is_passed_over(tiny, suffix):
    first = embed_texts(tiny, TEXTS)
    (path,) = segments(tiny)
    target = path.with_suffix(suffix)
    os.truncate(target, target.stat().st_size - 5)
    _, known = open_store(tiny, CPU).lookup(keys_of(text.encode() for text in TEXTS))
    assert known.sum() == 49
    assert torch.allclose(embed_texts(tiny, TEXTS), first, atol=1e-6)


def test_garbage_in_the_folder_does_no_harm(tiny):
    first = embed_texts(tiny, TEXTS)
    (path,) = segments(tiny)
    path.write_bytes(os.urandom(999))
    (tiny.cache_root() / "hashes.json").write_text("{not json")
    (path.parent / "space.json").write_text("")
    assert torch.allclose(embed_texts(tiny, TEXTS), first, atol=1e-6)


def test_a_cache_that_cannot_be_written_costs_only_itself(tiny, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    blocked = tiny.model_copy(update={"cache_folder": str(tmp_path / "file")})
    caplog.set_level(logging.WARNING)
    assert torch.allclose(embed_texts(blocked, TEXTS), embed_texts(tiny, TEXTS), atol=1e-6)
    assert "cannot write the cache" in caplog.text


def test_a_full_disk_in_the_middle_keeps_what_was_written(tmp_path, monkeypatch):
    store = Store(tmp_path / "space")
    store.append(*entries(range(10)))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SegmentWriter, "append", full)
    store.append(*entries(range(10, 20)))
    vectors, known = Store(tmp_path / "space").lookup(entries(range(20))[0])
    assert known.tolist() == [True] * 10 + [False] * 10
    assert torch.equal(vectors[:10], entries(range(10))[1])


def test_the_limit_evicts_the_least_recently_used(tmp_path, tiny):
    config = tiny.model_copy(update={"cache_limit_gib": 20_000 / 2**30})
    old, new = TEXTS, [text + " and war" for text in TEXTS]
    newest = [text + " in space" for text in TEXTS]
    for texts in (old, new):
        embed_texts(config, texts)
        time.sleep(0.01)
    embed_texts(config, old)  # used again: `new` is now the least recently used
    embed_texts(config, newest)
    sizes = sum(path.stat().st_size for path in config.cache_root().glob("embeddings/*/*s"))
    assert sizes <= 20_000

    def cached(texts):
        return open_store(config, CPU).lookup(keys_of(t.encode() for t in texts))[1].all()

    assert cached(newest) and cached(old) and not cached(new)


def test_many_small_segments_are_merged_without_loss(tmp_path):
    for number in range(20):
        store = Store(tmp_path)
        store.append(*entries(range(number * 3, number * 3 + 5)))
        store.close()
    assert len(list(tmp_path.glob(f"*{KEYS}"))) < 6
    keys, vectors = entries(range(62))
    found, known = Store(tmp_path).lookup(keys)
    assert known.all() and torch.equal(found, vectors)


def test_a_reader_survives_a_merge_and_an_eviction(tmp_path):
    reader = Store(tmp_path)
    for number in range(16):
        store = Store(tmp_path)
        store.append(*entries([number]))
        store.close()
    mapped, _ = reader.lookup(entries([3])[0])
    store = Store(tmp_path)
    store.append(*entries([16]))
    store.close()  # merges
    assert torch.equal(mapped, entries([3])[1])
    found, known = reader.lookup(entries(range(17))[0])
    assert known.all() and torch.equal(found, entries(range(17))[1])


def test_leftovers_of_killed_processes_are_swept(tmp_path):
    writer = SegmentWriter(tmp_path, 5, hidden=True)
    writer.append(*entries([1]))
    writer.close()  # as if killed before it was published
    (tmp_path / "00000000000000000001-abcd-5.rows").write_bytes(b"rows without keys")
    store = Store(tmp_path)
    store.append(*entries([2]))
    store.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 3 and names[0] == ".lock"
    assert Store(tmp_path).lookup(entries([1, 2])[0])[1].tolist() == [False, True]


def test_keys_tell_texts_apart():
    keys = keys_of([b"a", b"b", b"a", b""])
    assert keys.shape == (4, 2) and keys.dtype == np.uint64
    assert (keys[0] == keys[2]).all() and len(np.unique(keys, axis=0)) == 3
    assert keys_of([]).shape == (0, 2)


def test_the_hash_memo_notices_a_changed_file(tmp_path):
    target = tmp_path / "weights"
    target.write_bytes(b"one")
    memo = HashMemo(tmp_path / "hashes.json")
    one = memo(target)
    assert HashMemo(tmp_path / "hashes.json")(target) == one
    target.write_bytes(b"two, longer")
    assert HashMemo(tmp_path / "hashes.json")(target) != one


def test_a_hundred_thousand_cached_items_start_fast(tiny, monkeypatch):
    texts = [f"item {number} of a large catalog" for number in range(100_000)]
    store = open_store(tiny, CPU)
    vectors = torch.rand(100_000, 384)
    store.append(keys_of(text.encode() for text in texts), vectors)
    store.close()
    forbid_encoding(monkeypatch)
    times = []
    for _ in range(3):
        start = time.process_time()  # wall-clock time is in benchmarks/embeddings.py
        found = embed_texts(tiny, texts)
        times.append(time.process_time() - start)
    assert torch.equal(found, vectors)
    assert min(times) < 0.2


def test_defaults_lie_outside_the_project(monkeypatch, tmp_path):
    monkeypatch.delenv("MAREC_CACHE", raising=False)
    assert str(EmbeddingConfig().cache_root()).endswith("/.cache/marec")
    monkeypatch.setenv("MAREC_CACHE", str(tmp_path))
    assert EmbeddingConfig().cache_root() == tmp_path
    assert EmbeddingConfig(cache_folder="here").cache_root().name == "here"
    assert encoder_module.CHUNK > 0
