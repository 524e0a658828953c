"""``evaluate.py game`` end to end on a small environment."""

import json

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
