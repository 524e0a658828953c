"""The table of baselines: a name, and how to fit it on what the recommender may see."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from agents.baselines.bandits import LinearPosterior, LinTS, LinUCB
from agents.baselines.content import ArticleScheme, ContentSimilarity, Hybrid
from agents.baselines.factors import ALS, BPR, EASE
from agents.baselines.lightgcn import LightGCN
from agents.baselines.neighbours import ItemKNN
from agents.baselines.neumf import NeuMF
from agents.baselines.oracles import MyopicOracle, PlanningOracle
from agents.baselines.sasrec import SASRec
from agents.baselines.simple import PopularityPolicy, RandomSlates
from agents.baselines.teams import RandomTeam, StaticTeam, hand_set_actions
from agents.baselines.training_log import TrainingLog, training_log
from marec_env.embeddings import embed_texts
from marec_env.evaluation.policies import Policy
from marec_env.registry import Registry

if TYPE_CHECKING:
    from marec_env.simulator import Simulator

__all__ = ["BASELINES", "DEFAULT_BASELINES", "Factory", "baseline_names", "build_baseline"]

Factory = Callable[["Simulator", int], Policy]
"""Fits a policy for a simulator with a seed."""

BASELINES: Registry[Factory] = Registry("baseline")

DEFAULT_BASELINES = ("random", "popularity", "item_knn", "static", "oracle")
"""What a training run is compared with when nothing else is asked for; quick to fit."""


def build_baseline(name: str, simulator: Simulator, seed: int = 0) -> Policy:
    """Fit the baseline of that name, or of the factory at ``package.module:object``.

    Raises:
        ConfigError: the name is unknown.
    """
    return BASELINES.get(name)(simulator, seed)


def baseline_names() -> tuple[str, ...]:
    """Return all registered names."""
    return BASELINES.names()


def _log(simulator: Simulator) -> TrainingLog:
    return training_log(simulator.world.visible_log)


@BASELINES.register("random")
def _random(simulator: Simulator, seed: int) -> Policy:
    return RandomTeam(simulator.action_spaces, seed)


@BASELINES.register("random_slates")
def _random_slates(simulator: Simulator, seed: int) -> Policy:
    return RandomSlates()


@BASELINES.register("static")
def _static(simulator: Simulator, seed: int) -> Policy:
    return StaticTeam(hand_set_actions(simulator))


@BASELINES.register("popularity")
def _popularity(simulator: Simulator, seed: int) -> Policy:
    return PopularityPolicy(_log(simulator).counts)


@BASELINES.register("item_knn")
def _item_knn(simulator: Simulator, seed: int) -> Policy:
    return ItemKNN(_log(simulator))


@BASELINES.register("als")
def _als(simulator: Simulator, seed: int) -> Policy:
    return ALS(_log(simulator), seed)


@BASELINES.register("bpr")
def _bpr(simulator: Simulator, seed: int) -> Policy:
    return BPR(_log(simulator), seed)


@BASELINES.register("ease")
def _ease(simulator: Simulator, seed: int) -> Policy:
    return EASE(_log(simulator))


@BASELINES.register("neumf")
def _neumf(simulator: Simulator, seed: int) -> Policy:
    return NeuMF(_log(simulator), seed)


@BASELINES.register("lightgcn")
def _lightgcn(simulator: Simulator, seed: int) -> Policy:
    return LightGCN(_log(simulator), seed)


@BASELINES.register("sasrec")
def _sasrec(simulator: Simulator, seed: int) -> Policy:
    return SASRec(_log(simulator), seed)


def _posterior(simulator: Simulator) -> LinearPosterior:
    knowledge = simulator.world.knowledge
    return LinearPosterior(knowledge.cf, knowledge.popularity)


@BASELINES.register("linucb")
def _linucb(simulator: Simulator, seed: int) -> Policy:
    return LinUCB(_posterior(simulator))


@BASELINES.register("lints")
def _lints(simulator: Simulator, seed: int) -> Policy:
    return LinTS(_posterior(simulator))


def _content_parts(simulator: Simulator) -> ContentSimilarity:
    knowledge = simulator.world.knowledge
    return ContentSimilarity(knowledge.text, knowledge.popularity)


@BASELINES.register("content")
def _content(simulator: Simulator, seed: int) -> Policy:
    return _content_parts(simulator)


@BASELINES.register("article")
def _article(simulator: Simulator, seed: int) -> Policy:
    world = simulator.world
    encode = partial(embed_texts, world.config.embeddings)
    return ArticleScheme(world.catalog.texts, encode, world.knowledge.popularity)


@BASELINES.register("hybrid")
def _hybrid(simulator: Simulator, seed: int) -> Policy:
    log = _log(simulator)
    return Hybrid((EASE(log), _content_parts(simulator), PopularityPolicy(log.counts)))


@BASELINES.register("oracle_myopic")
def _oracle_myopic(simulator: Simulator, seed: int) -> Policy:
    return MyopicOracle()


@BASELINES.register("oracle")
def _oracle(simulator: Simulator, seed: int) -> Policy:
    return PlanningOracle()
