import pytest

from marec_env.errors import ConfigError, PluginError, visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b]0;title\x07\x1b[31mred", r"\x1b]0;title\x07\x1b[31mred"),
        ("one\ntwo\r\tthree", r"one\ntwo\r\tthree"),
        ("\x9b2J", r"\x9b2J"),  # the one-byte form of an escape
        ("bytes \udcff", r"bytes \udcff"),  # of a file name that is no UTF-8
        ("\u202egnp.exe\u2069\u2028", r"\u202egnp.exe\u2069\u2028"),
        ("Amélie, 東京, 👩\u200d🚀, a=b", "Amélie, 東京, 👩\u200d🚀, a=b"),
    ],
)
def test_what_would_act_is_spelt_out(text, expected):
    assert visible(text) == expected
    assert visible(text).isprintable() or "\u200d" in text
    visible(text).encode()


def test_line_breaks_that_are_meant_stay():
    assert visible("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_a_notebook_shows_one_line_and_where_code_of_ones_own_failed():
    assert ConfigError("key: wrong\x1b")._render_traceback_() == [r"ConfigError: key: wrong\x1b"]
    try:
        try:
            {}["absent"]
        except KeyError as error:
            raise PluginError("reward term 'shop:margin' failed") from error
    except PluginError as error:
        first, *below = error._render_traceback_()
    assert first == "PluginError: reward term 'shop:margin' failed"
    assert below[-1] == "KeyError: 'absent'" and '{}["absent"]' in "\n".join(below)
