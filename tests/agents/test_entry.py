"""What a command's end looks like: one line and exit code 2, with a plug-in's traceback below."""

from agents.entry import run_command
from marec_env.errors import ConfigError
from marec_env.registry import naming


def test_what_a_plug_in_raised_is_shown_below_its_line(capsys):
    def margin():
        return 1 / 0

    def command():
        with naming("reward term 'shop:margin'"):
            margin()

    assert run_command(command) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "error: reward term 'shop:margin' failed: ZeroDivisionError: division by zero"
    assert told[1].startswith("Traceback")
    assert any("in margin" in line for line in told)


def test_a_mistake_is_one_line(capsys):
    def command():
        with naming("reward term 'shop:margin'"):
            raise ConfigError("rewards.team: name one")

    assert run_command(command) == 2
    assert capsys.readouterr().err == "error: rewards.team: name one\n"
