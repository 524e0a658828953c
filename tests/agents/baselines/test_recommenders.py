import re

import pytest
import torch

from agents.baselines import scoring
from agents.baselines.bandits import LinearPosterior, LinTS, LinUCB
from agents.baselines.content import ArticleScheme, ContentSimilarity, Hybrid
from agents.baselines.linear import ALS, BPR, EASE, ItemKNN
from agents.baselines.neural import LightGCN, NeuMF, SASRec
from agents.baselines.scoring import PopularityPolicy, RandomSlates, best_unseen


@pytest.fixture(scope="module")
def text(planted):
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(planted.tastes, 16, generator=generator)
    noisy = centres.repeat_interleave(planted.per_taste, 0) + 0.3 * torch.randn(
        planted.items, 16, generator=generator
    )
    return torch.nn.functional.normalize(noisy, dim=1)


@pytest.fixture(scope="module")
def article(planted, text):
    """The articles' scheme with an encoder that averages the items a text names."""

    def encode(texts):
        named = [[int(word) for word in re.findall(r"\d+", line)] for line in texts]
        return torch.nn.functional.normalize(torch.stack([text[n].mean(0) for n in named]), dim=1)

    share = planted.log.counts / planted.log.counts.max()
    return ArticleScheme([f"item {k}" for k in range(planted.items)], encode, share)


@pytest.fixture(scope="module")
def policies(planted, text, article):
    """Every unprivileged recommender of slates, fitted on the planted log."""
    log = planted.log
    share = log.counts / log.counts.max()
    content = ContentSimilarity(text, share)
    posterior = LinearPosterior(text, share)
    ease = EASE(log, regularization=20.0)
    return {
        policy.name: policy
        for policy in (
            RandomSlates(),
            PopularityPolicy(log.counts),
            ItemKNN(log),
            ALS(log, factors=16),
            BPR(log, factors=16),
            ease,
            NeuMF(log, epochs=30, batch=256, learning_rate=5e-3),
            LightGCN(log, epochs=40, batch=2048),
            SASRec(log, epochs=60, length=12, dim=32, batch=32, learning_rate=3e-3),
            LinUCB(posterior),
            LinTS(posterior, deviation=0.05),
            content,
            article,
            Hybrid((ease, content)),
        )
    }


IMPERSONAL = ("random_slates", "popularity")
NAMES = (
    *IMPERSONAL,
    *("item_knn", "als", "bpr", "ease", "neumf", "lightgcn", "sasrec"),
    *("linucb", "lints", "content", "article", "hybrid"),
)


def test_all_are_tested(policies):
    assert set(policies) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_slates_are_unseen_and_without_repetition(planted, policies, sessions, name):
    slate = policies[name].recommend(sessions)
    assert slate.shape == (2 * planted.tastes, planted.k)
    assert slate.dtype == torch.int64
    assert not sessions.view.seen.gather(1, slate).any()
    assert all(row.unique().numel() == planted.k for row in slate)
    assert not policies[name].privileged


def test_popularity_reads_the_head_of_the_same_order(planted, policies, sessions):
    policy = policies["popularity"]
    assert policy.counts.unique().numel() < planted.items  # with ties
    by_scores = best_unseen(policy.scores(sessions.view), sessions.view.seen, planted.k)
    assert torch.equal(policy.recommend(sessions), by_scores)


def test_random_slates_of_a_large_catalog(planted, monkeypatch):
    monkeypatch.setattr(scoring, "_DRAW_ALL", 1)
    many = torch.arange(planted.tastes).repeat(40).unsqueeze(1)  # of one item seen each
    simulator = planted.simulator(many)
    slate = RandomSlates().recommend(simulator)
    assert not simulator.view.seen.gather(1, slate).any()
    assert all(row.unique().numel() == planted.k for row in slate)
    shown = torch.bincount(slate.flatten(), minlength=planted.items).float()
    mean = shown.mean()  # each about as often as the others
    assert (shown - mean).abs().max() < 5 * mean.sqrt()
    assert torch.equal(RandomSlates().recommend(simulator), slate)
    dense = planted.simulator(many)
    monkeypatch.setattr(scoring, "_DRAW_ALL", planted.items)
    assert not torch.equal(RandomSlates().recommend(dense), slate)


@pytest.mark.parametrize("name", NAMES)
def test_a_session_does_not_depend_on_its_batch(planted, policies, sessions, name):
    together = policies[name].recommend(sessions)
    alone = planted.simulator(sessions.view.history[:3])
    alone.session_keys = sessions.session_keys[:3]
    assert torch.equal(policies[name].recommend(alone), together[:3])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in IMPERSONAL])
def test_the_planted_taste_is_found(planted, policies, sessions, name):
    """Chance is 1 in 8; a good recommender fills the slate from the taste's 17 unseen items."""
    slate = policies[name].recommend(sessions)
    own = (torch.arange(2 * planted.tastes) % planted.tastes).unsqueeze(1)
    assert (slate // planted.per_taste == own).float().mean() > 0.7


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*IMPERSONAL, "article")])
def test_clicks_count_at_the_next_request(planted, policies, name):
    """A new user (no history) who clicks items of one taste is offered more of it."""
    history = torch.full((planted.tastes, 2), -1)
    before = policies[name].recommend(planted.simulator(history))
    shown = torch.arange(planted.tastes).unsqueeze(1) * planted.per_taste + torch.tensor([3, 4, 6])
    clicked = planted.simulator(history, shown=shown, clicks=torch.ones(shown.shape))
    after = policies[name].recommend(clicked)
    own = torch.arange(planted.tastes).unsqueeze(1)

    def share(slate):
        return float((slate // planted.per_taste == own).float().mean())

    assert share(after) > share(before) + 0.3


def test_the_articles_scheme_ignores_clicks(planted, policies):
    history = torch.tensor([[-1, 2, 3]])
    plain = planted.simulator(history)
    shown = torch.tensor([[101, 102]])
    clicked = planted.simulator(history, shown=shown, clicks=torch.ones(1, 2))
    policy = policies["article"]
    assert torch.equal(policy.scores(plain.view), policy.scores(clicked.view))


def test_the_articles_profile_is_a_text_of_what_was_consumed(planted, article):
    history = torch.tensor([[-1, 2, 45, 3], [-1, -1, -1, -1]])
    liked = torch.tensor([[False, True, False, True], [False] * 4])
    scores = article.scores(planted.simulator(history, liked=liked).view)
    assert article.profile_text((2, 45, 3)) == "item 3; item 45; item 2"
    [profile] = article.encode(["item 3; item 45; item 2"])
    popularity = 1e-6 * article.popularity
    assert torch.allclose(scores[0], article.features @ profile + popularity)
    assert torch.equal(scores[1], popularity)


@pytest.mark.parametrize("name", ["item_knn", "ease", "content", "article"])
def test_popularity_decides_for_users_without_likes(planted, policies, name):
    nobody = planted.simulator(torch.full((1, 3), -1))
    popular = policies["popularity"].scores(nobody.view)[0]
    slate = policies[name].recommend(nobody)[0]
    assert popular[slate].min() >= popular.topk(planted.k).values.min()


def test_disliked_history_is_no_like(planted, policies):
    liked = torch.tensor([[True, True, False, False]])
    history = torch.tensor([[1, 3, planted.per_taste + 1, planted.per_taste + 3]])
    slate = policies["item_knn"].recommend(planted.simulator(history, liked=liked))
    assert (slate // planted.per_taste == 0).float().mean() > 0.7
