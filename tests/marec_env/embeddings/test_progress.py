import io
import logging

import pytest

from marec_env.embeddings.embed import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(texts):
    with progress(texts) as on_batch:
        for _ in range(texts):
            on_batch(1, 15)


def test_long_requests_show_tokens_a_second_on_standard_error(monkeypatch):
    monkeypatch.setattr("marec_env.embeddings.embed._BAR_ABOVE", 20)
    monkeypatch.setattr("sys.stderr", Terminal())
    import sys

    run(texts=30)
    assert "embedding" in sys.stderr.getvalue() and "tokens/s" in sys.stderr.getvalue()


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_short_requests_and_pipes_show_nothing(monkeypatch, caplog, stream):
    caplog.set_level(logging.INFO)
    out = stream()
    monkeypatch.setattr("sys.stderr", out)
    run(texts=10)
    assert out.getvalue() == "" and not caplog.messages
    if stream is io.StringIO:
        monkeypatch.setattr("marec_env.embeddings.embed._BAR_ABOVE", 20)
        run(texts=30)
        assert out.getvalue() == "" and "embedded 30 texts" in caplog.messages[0]
