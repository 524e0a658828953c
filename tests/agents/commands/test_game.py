"""``evaluate.py game`` end to end on a small environment."""

import json

import pytest

from agents.commands.studies import game


def test_report_is_written_as_json_and_markdown(tmp_path, capsys):
    config = tmp_path / "small.yaml"
    config.write_text(
        "environment:\n  max_requests: 4\n  embeddings: {encoder: hashing, cache: false}\n"
    )
    places = tmp_path / "game.json", tmp_path / "game.md"
    game(
        config,
        overrides=[],
        runs=[],
        budget=4,
        search_sessions=4,
        seeds=2,
        sessions=8,
        cohort=3,
        output=places[0],
        markdown=places[1],
    )
    report = json.loads(places[0].read_text())
    printed, written = capsys.readouterr().out, places[1].read_text()
    assert report["plan"]["search_seeds"] == [0, 1]
    for policy, row in report["levels"].items():
        mean, error = row["clicks"]["mean"], row["clicks"]["standard_error"]
        line = next(line for line in written.splitlines() if line.startswith(f"| {policy} |"))
        assert f"{mean:.2f} ± {error:.2f}" in line
        assert policy.split()[0] in printed
    assert len(report["differences"]) == written.count(" standard errors)")
    assert printed.replace("\n", " ").count("standard errors") == len(report["differences"])


@pytest.mark.figures
def test_the_ladder_is_written_with_its_figure_and_continued(tmp_path, capsys):
    config = tmp_path / "small.yaml"
    config.write_text(
        "environment:\n  max_requests: 2\n  embeddings: {encoder: hashing, cache: false}\n"
    )
    place = tmp_path / "ladder.json"
    asked = {"budget": 2, "search_sessions": 4, "seeds": 1, "sessions": 6, "cohort": 3}
    asked |= {"overrides": [], "runs": [], "markdown": None, "output": place}
    game(config, part="ladder", tries=1, **asked)
    report = json.loads(place.read_text())
    printed = " ".join(capsys.readouterr().out.split())
    for part in ("hidden: clicks of oracle over informed", "not expressible: clicks of informed"):
        assert part in printed
    assert "searched actions" in (tmp_path / "ladder.svg").read_text()
    report["clicks"].pop("oracle"), report["levels"].pop("oracle")
    report["clicks"]["random"] = [1.0] * 6
    place.write_text(json.dumps(report))
    game(config, part="ladder", tries=1, **asked)
    again = json.loads(place.read_text())
    assert again["clicks"]["random"] == [1.0] * 6 and "oracle" in again["levels"]
