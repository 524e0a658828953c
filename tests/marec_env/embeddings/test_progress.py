import io
import logging

from marec_env.embeddings.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(texts, above):
    with progress(texts, above) as on_batch:
        for _ in range(texts):
            on_batch(1, 15)


def test_long_requests_show_tokens_a_second_on_standard_error(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    run(texts=30, above=20)
    assert "embedding" in terminal.getvalue() and "tokens/s" in terminal.getvalue()


def test_short_requests_show_nothing(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    run(texts=10, above=20)
    assert terminal.getvalue() == ""


def test_without_a_terminal_one_line_is_logged(monkeypatch, caplog):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    caplog.set_level(logging.INFO)
    run(texts=30, above=20)
    assert "embedded 30 texts, 450 tokens" in caplog.messages[0]
