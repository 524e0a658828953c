"""Users by a language model: who passes the gate, what is asked, and what is compared."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.commands.studies import calibration
from agents.studies.calibration.page import _reference_tables
from agents.studies.calibration.reference import Reference, _compared, judge_by_model
from agents.studies.records import plain
from marec_env.catalog.build import CatalogConfig, build_catalog
from marec_env.catalog.catalog import Catalog
from marec_env.data.log import InteractionLog
from marec_env.data.population import PopulationConfig
from marec_env.errors import ConfigError, DataError
from marec_env.reporting.table import table_console
from marec_env.text import Author
from marec_env.text.config import GgufText
from marec_env.text.models import Reply, normalised

BLOCKS = 4  # of the log ``blocks``: its users like the items of one


class Player:
    """Picks as the persona would who likes items of one block, ``skill`` log-odds more often."""

    name = "player"

    def __init__(self, skill: float) -> None:
        self.skill, self.asked, self.options = skill, list[str](), list[Any]()

    def score(self, prompts: Any, options: Any) -> list[Reply]:
        self.asked += [user for _, user in prompts]
        self.options += options
        return [
            Reply(json.dumps(self._scores(user, choice)))
            for (_, user), choice in zip(prompts, options, strict=True)
        ]

    def _scores(self, user: str, choice: Any) -> list[float]:
        liked = user.split("You liked: ")[1].split("\n")[0]
        block = numbers(liked)[0] % BLOCKS
        near = [self.skill * (n % BLOCKS == block) for text in choice for n in numbers(text)[:1]]
        none = [math.log(sum(map(math.exp, near)) / 3)] * (choice[-1] == "none of these")
        return normalised(near + none)


def numbers(text: str) -> list[int]:
    return [int(found) for found in re.findall(r"Item (\d+):", text)]


@pytest.fixture
def catalog(blocks: InteractionLog) -> Catalog:
    vectors = torch.randn(blocks.num_items, 8, generator=torch.Generator().manual_seed(0))
    return build_catalog(blocks, vectors, CatalogConfig(num_topics=4))


def judged(
    log: InteractionLog, catalog: Catalog, player: Any, folder: Path, **changes: Any
) -> Reference:
    author = Author(GgufText(), folder, lambda line: None, lambda config: player)
    settings = {"personas": 60, "slate_size": 5} | changes
    return judge_by_model(log, catalog, PopulationConfig(), author, **settings)


def test_who_knows_the_users_may_judge(
    blocks: InteractionLog, catalog: Catalog, tmp_path: Path
) -> None:
    player = Player(4.0)
    found = judged(blocks, catalog, player, tmp_path)
    assert found.passed and found.hits["model"].value > found.hits["popularity"].value + 0.2
    assert found.gain.value == pytest.approx(
        found.hits["model"].value - found.hits["popularity"].value
    )
    assert found.personas == 60 and found.unanswered == 0 and found.model == "player"
    picks = found.picks
    assert picks is not None and picks.slates == 180 and len(player.asked) == 240
    assert picks.agreement.low > 0 and picks.slope > 0
    assert picks.no_click["model"].value == pytest.approx(0.25, abs=1e-6)
    assert picks.suggestions["population.scale"] == pytest.approx(12.0 * picks.slope)
    json.dumps(plain(found), allow_nan=False)
    console = table_console()
    with console.capture() as shown:
        for table in _reference_tables(found):
            console.print(table.title, *table.notes, *map(str, table.rows))
    assert "it may judge." in shown.get() and "population.scale" in shown.get()


def test_who_does_not_may_not_and_is_asked_no_more(
    blocks: InteractionLog, catalog: Catalog, tmp_path: Path
) -> None:
    player = Player(0.0)
    found = judged(blocks, catalog, player, tmp_path)
    assert not found.passed and found.picks is None
    assert len(player.asked) == 60  # the gate's questions only
    (gate,) = _reference_tables(found)
    assert "it may judge nothing, and was asked no more" in gate.notes[0]


def test_what_a_persona_is_told_was_before_what_it_is_asked(
    blocks: InteractionLog, catalog: Catalog, tmp_path: Path
) -> None:
    player = Player(4.0)
    judged(blocks, catalog, player, tmp_path)
    likes: dict[int, list[int]] = {}
    for user, item, liked in zip(blocks.user, blocks.item, blocks.liked, strict=True):
        if liked:
            likes.setdefault(int(user), []).append(int(item))
    seen = set()
    for asked, options in zip(player.asked[:60], player.options[:60], strict=True):
        told = numbers(asked.split("\n")[0])
        assert len(told) <= 8
        (user,) = [u for u, items in likes.items() if follows(told, items)]
        seen.add(user)
        before = likes[user].index(told[-1])
        shown = [numbers(text)[0] for text in options]
        later = [item for item in shown if item in likes[user]]
        assert len(later) == 1 and likes[user].index(later[0]) > before
        met = blocks.item[blocks.user == user].tolist()
        assert not set(shown) - {later[0]} & set(met) and len(set(shown)) == 5
    assert len(seen) == 60
    places = [
        next(n for n, text in enumerate(options) if numbers(text)[0] % BLOCKS == block)
        for asked, options in zip(player.asked[:60], player.options[:60], strict=True)
        for block in [numbers(asked)[0] % BLOCKS]
    ]
    assert len(set(places)) > 1  # the answer has no place of its own
    for options in player.options[60:]:
        assert options[-1] == "none of these" and len(options) == 6


def follows(part: list[int], whole: list[int]) -> bool:
    return any(whole[n : n + len(part)] == part for n in range(len(whole)))


def test_a_model_that_does_not_answer_knows_nothing(
    blocks: InteractionLog, catalog: Catalog, tmp_path: Path
) -> None:
    class Silent(Player):
        def score(self, prompts: Any, options: Any) -> list[Reply]:
            return [Reply("", problem="time-out") for _ in prompts]

    found = judged(blocks, catalog, Silent(1.0), tmp_path)
    assert found.unanswered == 60 and not found.passed
    assert found.hits["model"].value < 0.5


def test_parametric_users_are_compared_with_picks_of_their_own_kind() -> None:
    """Picks made by half the logits, and clicks less often, are recognised as such."""
    generator = np.random.default_rng(0)
    logits = generator.normal(-1.0, 2.0, (3000, 6))
    likes = 0.5 * logits - np.log(np.exp(0.5 * logits).sum(1, keepdims=True)) + np.log(0.3)
    scores = np.concatenate([likes, np.full((3000, 1), np.log(0.7))], axis=1)
    picks = _compared(scores, logits, np.arange(3000), PopulationConfig())
    assert picks.slope == pytest.approx(0.5, abs=1e-3)
    assert picks.agreement.value == pytest.approx(1.0)
    assert picks.no_click["model"].value == pytest.approx(0.7)
    assert picks.no_click["parametric"].value == pytest.approx(
        (1 / (1 + np.exp(logits))).prod(1).mean()
    )
    assert picks.suggestions["population.scale"] == pytest.approx(6.0, abs=0.02)
    # With 70 % of six items' slates without a click, an item has about one chance in twenty.
    assert picks.suggestions["click rate of these slates"] == pytest.approx(0.06, abs=0.02)
    backwards = _compared(-scores, logits, np.arange(3000), PopulationConfig())
    assert backwards.slope < 0 and "population.scale" not in backwards.suggestions


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"slate_size": 20}, ConfigError, "2 to 19 items, not 20"),
        ({}, DataError, "0 users with 3 likes"),
    ],
)
def test_what_cannot_be_asked_is_named(
    changes: dict[str, int],
    error: type[Exception],
    says: str,
    blocks: InteractionLog,
    catalog: Catalog,
    tmp_path: Path,
) -> None:
    log = blocks if changes else blocks.select(blocks.user < 0)
    with pytest.raises(error, match=says):
        judged(log, catalog, Player(1.0), tmp_path, **changes)


def test_the_command_shows_the_gate_of_a_small_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model with random weights fails, as it must."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path / "model"
    words = ["<unk>", "<end>", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=len(words), n_embd=8, n_layer=1, n_head=1, n_positions=128)
    ).save_pretrained(folder)
    config = tmp_path / "small.yaml"
    text = {"model": {"kind": "transformers", "folder": str(folder)}, "folder": str(tmp_path)}
    environment = {
        "max_requests": 3,
        "data": {
            "source": "synthetic/streaming",
            "synthetic": {"num_users": 60, "num_items": 150},
        },
        "embeddings": {"encoder": "hashing", "cache": False},
        "catalog": {"num_topics": 4},
        "population": {"history": 12},
        "text": text,
        "pipeline": {"candidates": 20, "slate_size": 4},
    }
    config.write_text(json.dumps({"environment": environment}))
    output = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"--reference llm: .* is template"):
        calibration(
            config,
            overrides=["environment.text.model={kind: template}"],
            output=output,
            reference="llm",
        )
    calibration(config, overrides=[], output=output, sessions=16, reference="llm", personas=20)
    report = json.loads((output / "calibration.json").read_text())["reference"]
    assert report["picks"] is None and report["personas"] <= 20 and report["slate"] == 4
    printed = " ".join(capsys.readouterr().out.split())
    assert "it may judge nothing, and was asked no more" in printed
    assert "may judge nothing" in (output / "calibration.html").read_text()
    calibration(config, overrides=[], output=output, sessions=16)
    assert json.loads((output / "calibration.json").read_text())["reference"] is None
