"""The printed properties hold, and their measurements can fail."""

from __future__ import annotations

from agents.studies.users import main, report


def test_every_property_holds(capsys) -> None:
    assert main(["--sessions", "120"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [int(line[:2]) for line in printed] == [1, 2, 7, 9, 10, 12]


def test_another_seed_gives_other_numbers_and_the_same_verdicts() -> None:
    one, other = report(60, seed=0), report(60, seed=5)
    assert [line.found for line in one[:5]] != [line.found for line in other[:5]]
    assert all(line.holds for line in other)
