import threading
import time

import pytest
import torch

from marec_env.embeddings import EmbeddingStream, embed_texts, fit_reduction
from marec_env.embeddings.config import ReductionConfig
from marec_env.embeddings.encoder import TextEncoder
from marec_env.errors import ConfigError, DataError

TEXTS = ["toy story", "war and peace", "a robot in space", "love"]


def test_results_arrive_after_the_delay_and_once(tiny):
    with EmbeddingStream(tiny, delay=2, device="cpu") as stream:
        stream.submit(0, TEXTS[:2])
        stream.submit(1, TEXTS[2:])
        assert stream.collect(0) == [] and stream.collect(1) == []
        (first,) = stream.collect(2)
        assert (first.request, first.texts) == (0, tuple(TEXTS[:2]))
        (second,) = stream.collect(9)
        assert stream.collect(9) == []
    found = torch.cat([first.vectors, second.vectors])
    assert torch.allclose(found, embed_texts(tiny, TEXTS), atol=1e-6)


def slow(monkeypatch, seconds=0.0, gate=None):
    encode = TextEncoder.encode_chunks

    def delayed(self, inputs, on_batch=None):
        time.sleep(seconds)
        if gate is not None:
            assert gate.wait(timeout=30)
        return encode(self, inputs, on_batch)

    monkeypatch.setattr(TextEncoder, "encode_chunks", delayed)


def test_submitting_does_not_wait_for_the_encoder(tiny, monkeypatch):
    gate = threading.Event()
    slow(monkeypatch, gate=gate)
    with EmbeddingStream(tiny, delay=5, device="cpu") as stream:
        for request in range(4):
            stream.submit(request, [TEXTS[request]])
            assert stream.collect(request) == []
        gate.set()  # only now can the encoder begin
        assert [arrival.request for arrival in stream.collect(8)] == [0, 1, 2, 3]


@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_arrivals_depend_on_requests_and_not_on_speed(tiny, monkeypatch, seconds):
    slow(monkeypatch, seconds)
    seen = []
    with EmbeddingStream(tiny.model_copy(update={"cache": False}), delay=1) as stream:
        for request in range(4):
            stream.submit(request, TEXTS[: request + 1])
            seen.append([(a.request, a.vectors) for a in stream.collect(request)])
    assert [[request for request, _ in step] for step in seen] == [[], [0], [1], [2]]
    alone = TextEncoder(tiny).encode(TEXTS[:3])
    assert torch.equal(seen[3][0][1], alone)


def test_the_catalogs_reduction_is_applied(tiny):
    full = embed_texts(tiny, TEXTS)
    reduction = fit_reduction(ReductionConfig(dimension=2), full)
    with EmbeddingStream(tiny, reduction, delay=0) as stream:
        stream.submit(3, TEXTS)
        (arrival,) = stream.collect(3)
    assert torch.allclose(arrival.vectors, reduction.apply(full), atol=1e-5)


def test_what_arrives_is_cached_for_the_next_run(tiny, monkeypatch):
    with EmbeddingStream(tiny, delay=0) as stream:
        stream.submit(0, TEXTS)
        stream.collect(0)

    def refuse(*_):
        raise AssertionError("embedded again")

    monkeypatch.setattr("marec_env.embeddings.embed.TextEncoder", refuse)
    assert embed_texts(tiny, TEXTS).shape == (4, 32)


def test_errors_reach_the_caller(tiny):
    with pytest.raises(ConfigError, match="delay of a stream is -1"):
        EmbeddingStream(tiny, delay=-1)
    with EmbeddingStream(tiny, delay=0) as stream:
        stream.submit(2, [None])
        with pytest.raises(DataError, match="must be a string"):
            stream.collect(2)
        stream.submit(4, ["a film"])
        with pytest.raises(ConfigError, match="texts of request 3 came after those of 4"):
            stream.submit(3, ["a film"])
