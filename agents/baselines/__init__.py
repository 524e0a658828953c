"""Classic recommenders, static and random teams, and privileged oracles, through one interface.

``build_baseline(name, world, seed)`` fits a policy on the share of the log that the recommender may
see; ``BASELINES.names()`` lists what is registered.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from agents.baselines.bandits import LinearPosterior, LinTS, LinUCB
from agents.baselines.content import ArticleScheme, ContentSimilarity, Hybrid
from agents.baselines.informed import Informed
from agents.baselines.linear import ALS, BPR, EASE, ItemKNN
from agents.baselines.neural import LightGCN, NeuMF, SASRec
from agents.baselines.scoring import (
    MyopicOracle,
    PlanningOracle,
    PopularityPolicy,
    RandomSlates,
    TrainingLog,
    training_log,
)
from agents.baselines.teams import RandomTeam, StaticTeam, hand_set_actions
from marec_env.embeddings import embed_texts
from marec_env.evaluation.policies import Policy
from marec_env.registry import Registry

if TYPE_CHECKING:
    from marec_env.simulator import Simulator

__all__ = ["BASELINES", "Factory", "build_baseline"]

Factory = Callable[["Simulator", int], Policy]
"""Fits a policy for a simulator with a seed."""

BASELINES: Registry[Factory] = Registry("baseline")


def build_baseline(name: str, simulator: Simulator, seed: int = 0) -> Policy:
    """Fit the baseline of that name, or of the factory at ``package.module:object``.

    Raises:
        ConfigError: the name is unknown.
    """
    return BASELINES.get(name)(simulator, seed)


def _log(simulator: Simulator) -> TrainingLog:
    return training_log(simulator.world.visible_log)


def _posterior(simulator: Simulator) -> LinearPosterior:
    knowledge = simulator.world.knowledge
    return LinearPosterior(
        knowledge.whole("cf", "a baseline of linear scores"), knowledge.popularity
    )


def _content(simulator: Simulator) -> ContentSimilarity:
    knowledge = simulator.world.knowledge
    return ContentSimilarity(knowledge.whole("text", "a baseline by content"), knowledge.popularity)


def _article(simulator: Simulator) -> Policy:
    world = simulator.world
    encode = partial(embed_texts, world.embeddings, device=world.config.device)
    return ArticleScheme(world.catalog.texts, encode, world.knowledge.popularity)


def _hybrid(simulator: Simulator) -> Policy:
    log = _log(simulator)
    return Hybrid((EASE(log), _content(simulator), PopularityPolicy(log.counts)))


_FACTORIES: dict[str, Factory] = {
    "random": lambda simulator, seed: RandomTeam(simulator.action_spaces, seed),
    "random_slates": lambda simulator, seed: RandomSlates(),
    "static": lambda simulator, seed: StaticTeam(hand_set_actions(simulator)),
    "popularity": lambda simulator, seed: PopularityPolicy(_log(simulator).counts),
    "item_knn": lambda simulator, seed: ItemKNN(_log(simulator)),
    "als": lambda simulator, seed: ALS(_log(simulator), seed),
    "bpr": lambda simulator, seed: BPR(_log(simulator), seed),
    "ease": lambda simulator, seed: EASE(_log(simulator)),
    "neumf": lambda simulator, seed: NeuMF(_log(simulator), seed),
    "lightgcn": lambda simulator, seed: LightGCN(_log(simulator), seed),
    "sasrec": lambda simulator, seed: SASRec(_log(simulator), seed),
    "linucb": lambda simulator, seed: LinUCB(_posterior(simulator)),
    "lints": lambda simulator, seed: LinTS(_posterior(simulator)),
    "content": lambda simulator, seed: _content(simulator),
    "article": lambda simulator, seed: _article(simulator),
    "hybrid": lambda simulator, seed: _hybrid(simulator),
    "informed_unmet": lambda simulator, seed: Informed("informed_unmet", met=False),
    "informed_myopic": lambda simulator, seed: Informed("informed_myopic", "myopic"),
    "informed": lambda simulator, seed: Informed("informed"),
    "oracle_myopic": lambda simulator, seed: MyopicOracle(),
    "oracle": lambda simulator, seed: PlanningOracle(),
}
for _name, _factory in _FACTORIES.items():
    BASELINES.register(_name)(_factory)
