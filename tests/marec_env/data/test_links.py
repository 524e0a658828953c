"""Links of items: who is near whom, what is offered, what is not there."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from marec_env.data.links import linked_neighbours
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError, DataError
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.worlds import first_channel_alone, small_environment

ITEMS = 120


def test_neighbours_share_what_few_have() -> None:
    links = {0: "abc", 1: "ab", 2: "c", 3: "cd", 4: "d", 5: "e"}  # 5 shares nothing, 6 has nothing
    item = torch.tensor([i for i, names in links.items() for _ in names])
    entity = torch.tensor([ord(name) - ord("a") for names in links.values() for name in names])
    twice = torch.cat([item, item[:1]]), torch.cat([entity, entity[:1]])
    found = linked_neighbours(twice, 7, 3)
    assert found.tolist() == [
        [1, 2, 3],
        [0, -1, -1],
        [3, 0, -1],
        [4, 2, 0],
        [3, -1, -1],
        [-1, -1, -1],
        [-1, -1, -1],
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log whose items are linked to those ten, and twenty, further on; every seventh to none."""
    rows = [(f"u{u}", f"i{(u * 7 + n * 11) % ITEMS}", 5, n) for u in range(40) for n in range(20)]
    write(tmp_path / "interactions.csv", ("user_id", "item_id", "rating", "timestamp"), rows)
    titles = [(f"i{n}", f"Item {n}") for n in range(ITEMS)]
    write(tmp_path / "items.csv", ("item_id", "title"), titles)
    links = [(f"i{n}", f"person {n % 10}") for n in range(ITEMS) if n % 7]
    write(tmp_path / "links.csv", ("item_id", "entity"), links)
    return tmp_path


def write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def environment(folder: Path, links: bool = True) -> EnvironmentConfig:
    return EnvironmentConfig.model_validate(
        small_environment(
            data={"source": str(folder)},
            catalog={"num_topics": 6, "links": links},
            pipeline={
                "candidates": 20,
                "slate_size": 5,
                "recall": {"channels": ("graph", "popular")},
            },
        )
    )


def test_the_channel_brings_what_the_latest_likes_are_linked_to(folder: Path) -> None:
    world = build_world(environment(folder))
    number = torch.tensor([int(name[1:]) for name in world.log.item_ids])
    recent, request = first_channel_alone(world)
    brought = 0
    for row in range(len(recent)):
        liked = number[recent[row][recent[row] >= 0]]
        ends = {int(n) % 10 for n in liked if n % 7}
        items = number[request.candidates[row][request.candidate_channel[row] == 0]]
        assert all(int(n) % 10 in ends and n % 7 for n in items)
        assert bool(len(items)) == bool(ends)
        brought += len(items)
    assert brought > 50
    assert (request.candidates >= 0).all()  # what has no links is no gap


def test_other_links_are_another_world(folder: Path) -> None:
    before = build_world(environment(folder)).knowledge.linked
    write(folder / "links.csv", ("item_id", "entity"), [("i1", "x"), ("i2", "x")])
    after = build_world(environment(folder)).knowledge.linked
    assert before is not None and after is not None and not torch.equal(before, after)
    assert int((after >= 0).sum()) == 2


def test_what_is_missing_is_named(folder: Path) -> None:
    silent = Simulator(build_world(environment(folder, links=False)), 4)
    silent.reset(seed=0)
    with pytest.raises(ConfigError, match=r"reads links .* environment\.catalog\.links: true"):
        silent.step(silent.default_actions())
    write(folder / "links.csv", ("item_id", "entity"), [("i1", "x"), ("strange", "x")])
    with pytest.raises(DataError, match=r"links\.csv.*strange"):
        build_world(environment(folder))
    (folder / "links.csv").unlink()
    with pytest.raises(DataError, match=r"has no links\.csv; write one with the columns item_id"):
        build_world(environment(folder))
