import io
import json
import logging
import sys
import tracemalloc
from functools import partial
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.nn import functional

from marec_env.embeddings import (
    EmbeddingConfig,
    HashingTestEncoder,
    TextEncoder,
    embed_texts,
    weights_hash,
)
from marec_env.embeddings.encoder import _Batch, resolve_budget
from marec_env.embeddings.packed_bert import Linear, grouped_attention, varlen_attention
from marec_env.embeddings.tokens import TextTokenizer, pack, token_budget_batches
from marec_env.errors import ConfigError, DataError

ODD_TEXTS = [
    "",
    " \t\n",
    "x" * 10_000,
    "love and war " * 800,
    "toy\x00story\x07\x1b[31m film\u200b",
    "😀🚀 a film 👩‍👩‍👧",
    "東京物語 (1953)",
    "Броненосец Потёмкин",
    "فيلم عن الحب",
    "เรื่องราว",
    "e\u0301 é \ufb01lm",
    "lone surrogate \ud800 here",
    "a film",
    "a film",
]
TEXTS = ["toy story (1995)", "a film about love", "war and peace.", "drama", "a " * 40, *ODD_TEXTS]


def minilm_config(**changes):
    return EmbeddingConfig(encoder="minilm", cache=False, **changes)


def test_equal_to_sentence_transformers_on_the_same_weights(minilm):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm), device="cpu")
    texts = [text.encode("utf-8", "replace").decode() for text in TEXTS]
    theirs = torch.from_numpy(model.encode(texts))
    ours = embed_texts(minilm_config(dtype="fp32"), TEXTS, device="cpu")
    assert ours.dtype == torch.float32 and ours.shape == (len(TEXTS), 384)
    assert (ours - theirs).abs().max() < 1e-5


def test_bf16_is_close_to_fp32(minilm):
    exact = embed_texts(minilm_config(dtype="fp32"), TEXTS, device="cpu")
    quick = embed_texts(minilm_config(dtype="bf16"), TEXTS, device="cpu")
    assert not torch.equal(exact, quick)
    assert functional.cosine_similarity(exact, quick).min() > 0.999
    assert torch.allclose(quick.norm(dim=1), torch.ones(len(TEXTS)), atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("model", ["tiny_bert", "tiny_roberta", "tiny_decoder", "tiny_distilbert"])
def test_equal_to_transformers_text_by_text(model, pooling, request, reference):
    folder = request.getfixturevalue(model)
    config = EmbeddingConfig(
        encoder=str(folder), pooling=pooling, max_length=64, dtype="fp32", token_budget=70,
        cache=False,
    )  # fmt: skip
    texts = [text.encode("utf-8", "replace").decode() for text in TEXTS]
    ours = TextEncoder(config, "cpu").encode(texts)
    assert (ours - reference(folder, texts, pooling)).abs().max() < 1e-5


def test_the_chosen_path_is_logged(tiny_bert, tiny_decoder, caplog):
    caplog.set_level(logging.INFO, "marec_env.embeddings")
    for folder in (tiny_bert, tiny_decoder):
        TextEncoder(EmbeddingConfig(encoder=str(folder), max_length=64), "cpu")
    assert "packed batches, grouped attention" in caplog.messages[0]
    assert "padded, GPT2Model" in caplog.messages[1]


def test_a_text_gives_the_same_vector_in_any_company(tiny):
    encoder = TextEncoder(tiny, "cpu")
    together = encoder.encode(TEXTS)
    alone = torch.cat([encoder.encode([text]) for text in TEXTS])
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.equal(together[-1], together[-2])


def test_chunks_and_progress_cover_every_text_once(tiny, monkeypatch):
    whole = TextEncoder(tiny, "cpu").encode(TEXTS)
    monkeypatch.setattr("marec_env.embeddings.encoder.CHUNK", 5)
    counted = []
    cut = TextEncoder(tiny, "cpu").encode(TEXTS, counted.append)
    assert sum(counted) == len(TEXTS) and max(counted) <= 5
    assert torch.allclose(cut, whole, atol=1e-6)


@pytest.mark.parametrize(("terminal", "most", "seen"), [(1, 3, 1), (1, 99, 0), (0, 3, 0)])
def test_long_requests_show_a_bar_in_a_terminal(tiny, monkeypatch, terminal, most, seen):
    stream = io.StringIO()
    stream.isatty = lambda: bool(terminal)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("marec_env.embeddings.embed._BAR_ABOVE", most)
    embed_texts(tiny, TEXTS)
    assert ("embedding" in stream.getvalue()) == bool(seen)
    assert bool(stream.getvalue()) == bool(seen)


def test_batches_go_by_the_device(tiny, monkeypatch):
    auto, cuda = tiny.token_budget, torch.device("cuda")
    assert auto == "auto"
    assert resolve_budget(tiny, torch.device("cpu"), 384) == 4096
    for free, expected in ((80e9, 131_072), (4e9, 54_253), (1e6, 4096)):
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda _, free=free: (int(free), int(80e9)))
        assert resolve_budget(tiny, cuda, 384) == expected
    given = tiny.model_copy(update={"token_budget": 64})
    assert resolve_budget(given, cuda, 384) == 64


class Stream:
    """A device that works off its queue only when somebody waits for it, as late as can be."""

    def __init__(self, encoder, monkeypatch):
        self.sent, self.done, self.queued_at_tokenising = 0, 0, []
        encoder._device = torch.device("cuda")
        honest = encoder._tokenizer

        def tokenise(texts):
            self.queued_at_tokenising.append(self.sent - self.done)
            return honest(texts)

        def send(rows, vectors):
            self.sent += len(rows)
            return _Batch(rows, vectors, SimpleNamespace(synchronize=partial(self.wait, self.sent)))

        monkeypatch.setattr(encoder, "_tokenizer", tokenise)
        monkeypatch.setattr(_Batch, "sent", send)

    def wait(self, until):
        self.done = max(self.done, until)


def test_a_device_has_a_chunk_to_work_on_while_the_next_is_tokenised(tiny, monkeypatch):
    """And never more than two, so that a million texts take no more memory."""
    monkeypatch.setattr("marec_env.embeddings.encoder._CUDA_CHUNK", 10)
    texts, counted = TEXTS * 5, []
    encoder = TextEncoder(tiny.model_copy(update={"token_budget": 128}), "cpu")
    whole = encoder.encode(texts)
    stream = Stream(encoder, monkeypatch)
    found = encoder.encode(texts, counted.append)
    assert torch.allclose(found, whole, atol=1e-6) and sum(counted) == stream.done == len(texts)
    assert stream.queued_at_tokenising == [0, *[10] * 9]


def whole_texts(folder, max_length, texts):
    """Return token numbers by the tokenizer's own treatment of whole texts."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return [encoding.ids or [0] for encoding in tokenizer.encode_batch_fast(texts)]


SNIPPETS = [
    "film", "war.", "don't", "toy's", "|", "||", "a|b", "[SEP]", "[UNK]", "##s", "\t", "\n", "\x00",
    "\x07", "\xa0", "\u3000", "\u2028", "\u200b", "\u0301", "e\u0301", "\u0300\u0301", "ß", "İ",
    "Σ", "ς", "≠", "\u037e", "ﬁ", "東京", "😀", "👩‍👩‍👧", "فيلم", "\ufffd", "x" * 100, "x" * 101,
]  # fmt: skip


@pytest.mark.parametrize("max_length", [2, 3, 17, 256])
def test_words_met_before_are_tokenised_as_whole_texts_are(minilm, max_length, monkeypatch):
    monkeypatch.setattr("marec_env.embeddings.tokens._KNOWN_WORDS", 500)
    draw = Random(max_length)

    def text():
        parts = (
            draw.choice([*SNIPPETS, *" " * 20])
            if draw.random() < 0.9
            else chr(draw.randrange(9999))
            for _ in range(draw.randrange(draw.choice([3, 20, 300])))
        )
        return "".join(parts)

    tokenizer = TextTokenizer(minilm, max_length)
    assert tokenizer._words is not None
    for _ in range(6):
        texts = [text() for _ in range(100)]
        found = tokenizer(texts)
        assert [ids.tolist() for ids in found] == whole_texts(minilm, max_length, texts)
        assert {ids.dtype for ids in found} == {np.dtype(np.int64)}
    assert tokenizer([]) == []


def test_a_word_is_tokenised_once(tiny_bert):
    tokenizer, asked = TextTokenizer(tiny_bert, 64), []
    honest = tokenizer._words._tokenizer

    def encode(texts, **options):
        asked.extend(texts)
        return honest.encode_batch_fast(texts, **options)

    tokenizer._words._tokenizer = SimpleNamespace(encode_batch_fast=encode)
    for _ in range(2):
        tokenizer(["a toy story", "war | peace"])
        tokenizer(["a toy", "a  war story"])
    assert asked == ["a | toy | story | war |  | peace | "]  # one is between two spaces


def test_tokenising_many_texts_takes_the_memory_of_few(tiny_bert, monkeypatch):
    """Whether their words are old or new, and however long they are."""
    monkeypatch.setattr("marec_env.embeddings.tokens._KNOWN_WORDS", 1000)

    def peak(chunks, words):
        tokenizer = TextTokenizer(tiny_bert, 64)
        corpus = [
            [" ".join([f"{chunk}x{text} film"] * words) for text in range(200)]
            for chunk in range(chunks)
        ]
        tracemalloc.start()
        for texts in corpus:
            tokenizer(texts)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(40, words=5) < 1.5 * peak(10, words=5)
    assert peak(2, words=2000) < 1.5 * peak(2, words=100)


@pytest.mark.parametrize(
    "change",
    [
        lambda kind: kind["added_tokens"].append(
            {"id": 8, "content": "story", "single_word": False, "lstrip": True, "rstrip": False,
             "normalized": False, "special": True}
        ),
        lambda kind: kind["added_tokens"].append(
            {"id": 8, "content": "toy story", "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": True}
        ),
        lambda kind: kind.update(pre_tokenizer={"type": "Whitespace"}),
        lambda kind: kind.update(normalizer=None),
        lambda kind: kind["model"]["vocab"].pop("|"),
    ],
    ids=["strips", "spans words", "other words", "no normalizer", "no mark"],
)  # fmt: skip
def test_where_neighbours_may_matter_texts_are_tokenised_whole(change, tiny_bert, tmp_path):
    kind = json.loads((tiny_bert / "tokenizer.json").read_text())
    change(kind)
    (tmp_path / "tokenizer.json").write_text(json.dumps(kind))
    tokenizer = TextTokenizer(tmp_path, 6)
    assert tokenizer._words is None
    texts = ["", "a toy story 1995.", "Toy  story", "war | peace " * 9]
    assert [ids.tolist() for ids in tokenizer(texts)] == whole_texts(tmp_path, 6, texts)


def test_no_texts_give_no_vectors(tiny):
    assert TextEncoder(tiny, "cpu").encode([]).shape == (0, 32)
    assert embed_texts(tiny, []).shape == (0, 32)


def test_what_is_not_a_string_is_refused(tiny):
    with pytest.raises(DataError, match="must be a string, got float"):
        embed_texts(tiny, ["a film", float("nan")])


def test_more_tokens_than_positions_are_refused(tiny_bert):
    config = EmbeddingConfig(encoder=str(tiny_bert), max_length=65)
    with pytest.raises(ConfigError, match=r"65.*64 positions; allowed: 2 to 64"):
        TextEncoder(config, "cpu")


def test_what_cannot_fit_is_refused_with_the_estimate(tiny, monkeypatch):
    monkeypatch.setattr("marec_env.memory.available_memory", lambda: 20_000)
    encoder = TextEncoder(tiny, "cpu")
    encoder.encode(["a film", "toy"])  # 2 * 32 * 4 and 7 * 32 * 12 * 4 bytes
    with pytest.raises(ConfigError, match="embeddings of 200 texts in 32 dimensions: needs about"):
        encoder.encode(["a film"] * 200)
    with pytest.raises(ConfigError, match=r"embedding 20 tokens.*token_budget or max_length"):
        encoder.encode(["a film"] * 5)


def test_minilm_needs_no_transformers(minilm):
    import subprocess

    code = (
        "import sys; from marec_env.embeddings import *;"
        "embed_texts(EmbeddingConfig(encoder='minilm', cache=False), ['a film']);"
        "assert 'transformers' not in sys.modules and 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_batches_hold_their_budget():
    tokens = [torch.zeros(length).long().numpy() for length in (5, 30, 1, 9, 9, 2)]
    batches = list(token_budget_batches(tokens, 16))
    assert sorted(row for batch in batches for row in batch) == list(range(6))
    assert batches == [[2, 5, 0], [3], [4], [1]]
    assert list(token_budget_batches(tokens, 16, padded=True)) == [[2, 5, 0], [3], [4], [1]]
    assert list(token_budget_batches(tokens, 12, padded=True)) == [[2, 5], [0], [3], [4], [1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_grouped_attention_is_attention(dtype, scale):
    """Scores beyond the range of the written-out softmax (scale 6) included."""
    torch.manual_seed(0)
    lengths = [1, 3, 3, 16, 20, 20, 33]
    batch = pack([torch.zeros(length).long().numpy() for length in lengths])
    qkv = (scale * torch.randn(sum(lengths), 3 * 24)).to(dtype)
    mixed = grouped_attention(batch, heads=3)(qkv)
    expected = []
    for part in qkv.float().split(lengths):
        query, key, value = part.view(-1, 3, 3, 8).permute(1, 2, 0, 3)
        scores = (query @ key.transpose(1, 2)).to(dtype).float() / 8**0.5
        weights = torch.softmax(scores.to(dtype).float(), dim=-1)
        expected.append((weights @ value).transpose(0, 1).reshape(-1, 24))
    error = (mixed.float() - torch.cat(expected)).abs().max() / qkv.float().abs().max()
    assert error < (1e-5 if dtype == torch.float32 else 3e-2)


def test_varlen_attention_hands_the_kernel_what_it_expects(monkeypatch):
    """The CUDA kernel stood in for by a loop over texts with its documented arguments."""
    from torch.nn.attention import varlen

    def stand_in(query, key, value, ends_q, ends_k, max_q, max_k):
        assert ends_q.dtype == torch.int32 and torch.equal(ends_q, ends_k)
        lengths = ends_q.diff()
        assert int(lengths.max()) == max_q == max_k
        parts = []
        for text in zip(*(x.split(lengths.tolist()) for x in (query, key, value)), strict=True):
            q, k, v = (x.transpose(0, 1) for x in text)
            parts.append(functional.scaled_dot_product_attention(q, k, v).transpose(0, 1))
        return torch.cat(parts)

    monkeypatch.setattr(varlen, "varlen_attn", stand_in)
    torch.manual_seed(0)
    batch = pack([torch.zeros(length).long().numpy() for length in (1, 3, 3, 20)])
    qkv = torch.randn(27, 3 * 24)
    mixed = varlen_attention(batch, 3, torch.device("cpu"))(qkv)
    assert torch.allclose(mixed, grouped_attention(batch, 3)(qkv), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prepacked_layers_agree_with_plain_ones(dtype):
    torch.manual_seed(0)
    weight, bias = (0.1 * torch.randn(48, 32)).to(dtype), torch.randn(48).to(dtype)
    fast, plain = Linear(weight, bias), Linear(weight, bias, prepack=False)
    there = dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert (fast.kernel, plain.kernel) == ("oneDNN" if there else "torch", "torch")
    x, residual = torch.randn(7, 32).to(dtype), torch.randn(7, 48).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    for form in ({}, {"gelu": True}, {"plus": residual}):
        assert torch.allclose(fast(x, **form), plain(x, **form), atol=tolerance)


def test_a_wrong_prepacked_layer_is_not_used(monkeypatch):
    weight, bias = torch.randn(8, 8), torch.zeros(8)
    assert Linear(weight, bias).kernel == "oneDNN"
    honest = Linear.__call__

    def without_gelu(self, x, gelu=False, plus=None):
        return honest(self, x, gelu and self._packed is None, plus)

    monkeypatch.setattr(Linear, "__call__", without_gelu)
    assert Linear(weight, bias).kernel == "torch"  # a GELU that is none
    monkeypatch.setattr(Linear, "__call__", honest)
    monkeypatch.setattr(torch._C, "_has_mkldnn", False)
    assert Linear(weight, bias).kernel == "torch"


def test_the_test_encoder_says_what_it_is():
    assert "test" in weights_hash(EmbeddingConfig(encoder="hashing"))
    vectors = HashingTestEncoder().encode(["toy story", "story of a toy", "war", ""])
    assert torch.allclose(vectors.norm(dim=1), torch.ones(4))
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert torch.equal(vectors, embed_texts(EmbeddingConfig(encoder="hashing"), [
        "toy story", "story of a toy", "war", ""]))  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_cuda_equals_cpu(minilm, dtype):
    exact = embed_texts(minilm_config(dtype="fp32"), TEXTS, device="cpu")
    cuda = embed_texts(minilm_config(dtype=dtype), TEXTS, device="cuda")
    assert functional.cosine_similarity(exact, cuda).min() > (0.9999 if dtype == "fp32" else 0.999)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("budget", [64, "auto"])
def test_cuda_equals_cpu_on_many_batches_in_flight(tiny, monkeypatch, dtype, budget):
    monkeypatch.setattr("marec_env.embeddings.encoder._CUDA_CHUNK", 40)
    texts = [" ".join(text.split()[: 1 + n % 9]) for n in range(20) for text in TEXTS]
    exact = TextEncoder(tiny, "cpu").encode(texts)
    config = tiny.model_copy(update={"dtype": dtype, "token_budget": budget})
    counted = []
    cuda = TextEncoder(config, "cuda").encode(texts, counted.append)
    assert sum(counted) == len(texts)
    cosine = functional.cosine_similarity(exact, cuda)
    assert cosine.min() > (0.9999 if dtype == "fp32" else 0.99)
