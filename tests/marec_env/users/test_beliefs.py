"""The filter against the simulator it models: calibrated, exact where nothing is hidden, and equal
to the sum over all paths of intents where few are possible.
"""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from marec_env import random
from marec_env.catalog.histories import Histories
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError
from marec_env.users import make_users
from marec_env.users.beliefs import Filter, guessed_tastes
from marec_env.users.config import UsersConfig
from marec_env.users.oracles import Outlook, farsighted_slate
from marec_env.world import build_world
from tests.worlds import small_environment

K = 5
USERS = UsersConfig.model_validate(
    {"boredom": {"kind": "threshold"}, "patience": {"kind": "none"}}, strict=False
)


@pytest.fixture(scope="module")
def population():
    config = EnvironmentConfig.model_validate(small_environment(), strict=False)
    return build_world(config).population


def _begun(config, population, sessions, seed=0):
    users = make_users(config, population, sessions)
    users.reset(random.session_keys(seed, torch.arange(sessions)))
    return users


def _play(config, population, sessions, requests, guesses=None):
    """Return what a filter expected, what one that is told nothing did, and the clicks, all
    ``[requests, B, K]``, and who is known; slates are half planned, half drawn.
    """
    users = _begun(config, population, sessions, 3)
    known = ~users.is_new
    informed = Filter(config, population, users.user_index, known, guesses)
    blind = Filter(config, population, users.user_index, known, guesses)
    seen = torch.zeros(sessions, population.num_items, dtype=torch.bool)
    expected, blindly, clicked = [], [], []
    for request in range(requests):
        slate = informed.outlook(K).planned(seen)
        drawn = torch.rand(seen.shape, generator=torch.Generator().manual_seed(request))
        some = torch.arange(sessions) % 2 == 0
        slate[some] = drawn.masked_fill(seen, -1.0).topk(K).indices[some]
        expected.append(informed.expected(slate))
        blindly.append(blind.expected(slate))
        clicks = users.respond(slate).clicks
        informed.observe(slate, clicks)
        seen.scatter_(1, slate, True)
        clicked.append(clicks)
    return torch.stack(expected), torch.stack(blindly), torch.stack(clicked), known


@pytest.mark.parametrize("met", [True, False], ids=["met", "unmet"])
def test_beliefs_are_calibrated_and_learn_from_clicks(population, met):
    guesses = None if met else guessed_tastes(population, 8, 1)
    expected, blindly, clicks, known = _play(USERS, population, 300, 8, guesses)
    for rows in (known, ~known) if met else ():  # guesses are none of the model's tastes
        p, y = expected[:, rows], clicks[:, rows]
        for low, high in itertools.pairwise((0.0, 0.05, 0.1, 0.2, 0.4, 1.0)):
            there = (p >= low) & (p < high)
            if int(there.sum()) < 100:
                continue
            gap = (y - p)[there].sum() / (p * (1 - p))[there].sum().sqrt()
            assert abs(float(gap)) < 4.0, (low, float(gap))

    def log_loss(p):
        return torch.nn.functional.binary_cross_entropy(p.clamp(1e-6, 1 - 1e-6), clicks)

    # What was clicked before tells of what is clicked now.
    assert log_loss(expected) < 0.99 * log_loss(blindly)


def _alone(population, user, likes):
    """Return a population of one user, who likes so many items."""
    history = torch.full((1, population.history.length), -1)
    history[0, :likes] = torch.tensor([5, 90, 171])[:likes]
    return replace(
        population,
        user_factors=population.user_factors[user : user + 1],
        history=Histories.of_rows(history, history >= 0),
        groups=population.groups[:1],
        user_attributes={},
    )


def test_nothing_is_uncertain_of_a_user_with_one_intent(population):
    config = USERS.model_copy(
        update={"boredom": USERS.boredom.model_copy(update={"susceptible_share": 1.0})}
    )
    alone = _alone(population, 17, 1)
    users = _begun(config, alone, 3)
    beliefs = Filter(config, alone, users.user_index, torch.tensor([True, False, True]))
    examined = 0.85 ** torch.arange(K)
    of_topic = (alone.topics == alone.topics.mode().values).nonzero().squeeze(1)
    slates = of_topic[: 3 * K].view(3, 1, K).expand(-1, 3, -1)
    for slate in slates:
        expected = beliefs.expected(slate)
        torch.testing.assert_close(expected, users.click_probability(slate) * examined)
        seen = torch.zeros(3, alone.num_items, dtype=torch.bool)
        outlook, truth = beliefs.outlook(K), Outlook.of_truth(users, K)
        torch.testing.assert_close(outlook.now, truth.now, atol=2e-6, rtol=1e-3)
        assert torch.equal(outlook.planned(seen), truth.planned(seen))
        beliefs.observe(slate, users.respond(slate).clicks)
    assert float(expected[0, 0]) < 0.5 * float(Outlook.of_truth(users, K).fresh[0, slate[0, 0]])


def test_intents_are_weighed_as_by_the_sum_over_all_their_paths(population):
    config = USERS.model_copy(
        update={
            "boredom": USERS.boredom.model_copy(update={"susceptible_share": 0.3, "weight": 4.0}),
            "intent": USERS.intent.model_copy(update={"switch_probability": 0.25}),
        }
    )
    alone = _alone(population, 40, 3)
    beliefs = Filter(config, alone, torch.tensor([0]), torch.tensor([True]))
    likes = alone.history.item[:3]
    interest = normalize(0.6 * alone.user_factors + 0.4 * alone.item_factors[likes], dim=1)
    logits = alone.scale * interest @ alone.item_factors.T + alone.quality + alone.intercept
    slates = [torch.arange(K), torch.arange(40, 40 + K), torch.tensor([5, 90, 171, 8, 9])]
    clicks = [torch.tensor([1.0, 0, 0, 1, 0]), torch.tensor([0, 1.0, 0, 0, 0])]
    exposure, losses = torch.zeros(alone.num_topics), []
    for slate in slates:
        losses.append(4.0 * ((exposure - 0.12) / 0.18).clamp(0, 1)[alone.topics[slate]])
        share = torch.bincount(alone.topics[slate], minlength=alone.num_topics) / K
        exposure = 0.75 * exposure + 0.25 * share
    total, wanted = 0.0, torch.zeros(K)
    for path in itertools.product(range(3), repeat=3):
        moves = math.prod(0.25 / 3 + 0.75 * (a == b) for a, b in itertools.pairwise(path))
        for bored, prior in ((0.0, 0.7), (1.0, 0.3)):
            chance = [
                0.85 ** torch.arange(K) * torch.sigmoid(logits[v, slate] - bored * loss)
                for v, slate, loss in zip(path, slates, losses, strict=True)
            ]
            weight = prior * moves
            for p, y in zip(chance, clicks, strict=False):
                weight *= float(torch.where(y > 0, p, 1 - p).prod())
            total, wanted = total + weight, wanted + weight * chance[2]
    for slate, answer in zip(slates, clicks, strict=False):
        beliefs.observe(slate.unsqueeze(0), answer.unsqueeze(0))
    torch.testing.assert_close(beliefs.expected(slates[2].unsqueeze(0))[0], wanted / total)


def test_a_guess_of_tastes_does_not_rest_on_the_users_own(population):
    tastes = population.user_factors.clone()
    tastes[7] = -tastes[7]
    before = guessed_tastes(population, 40, 1)
    after = guessed_tastes(replace(population, user_factors=tastes), 40, 1)
    mean = normalize(before.mean(1), dim=1)
    assert float(mean[7] @ normalize(after.mean(1), dim=1)[7]) > 0.95
    # ... and is one: nearer to the user's taste than another's guess is.
    own = (mean * population.user_factors).sum(1).mean()
    assert float(own) > float((mean.roll(1, 0) * population.user_factors).sum(1).mean()) + 0.1


def test_a_user_never_met_is_none_of_those_a_new_one_may_be(population):
    two = replace(
        population,
        user_factors=population.user_factors[[3, 9]],
        history=Histories.of_rows(*population.history.of(torch.tensor([3, 9]))),
        groups=population.groups[:2],
        user_attributes={},
    )
    who, new = torch.tensor([1, 0]), torch.tensor([False, False])
    guesses = torch.zeros(2, 1, population.user_factors.shape[1])
    slate = torch.arange(20, 20 + K).expand(2, -1)
    met, unmet = (Filter(USERS, two, who, new, given) for given in (None, guesses))
    known = Filter(USERS, two, who.flip(0), ~new).expected(slate)
    torch.testing.assert_close(unmet.expected(slate), known)
    torch.testing.assert_close(met.expected(slate), known.mean(0).expand(2, -1))


def test_the_planned_slate_of_the_truth_is_the_oracles(population):
    users = _begun(USERS, population, 40)
    seen = torch.zeros(40, population.num_items, dtype=torch.bool)
    offer = torch.arange(population.num_items).expand(40, -1)
    for _ in range(3):
        outlook = Outlook.of_truth(users, K)
        torch.testing.assert_close(outlook.now, users.click_probability())
        slate = outlook.planned(seen)
        assert torch.equal(slate, farsighted_slate(users, users.user_index, offer, K, seen))
        users.respond(slate)
        seen.scatter_(1, slate, True)


def test_a_slates_worth_is_its_clicks_now_and_those_that_its_topics_leave(population):
    users = _begun(USERS, population, 60)
    seen = torch.zeros(60, population.num_items, dtype=torch.bool)
    for _ in range(3):
        users.respond(Outlook.of_truth(users, K).myopic(seen))
    outlook = Outlook.of_truth(users, K)
    future = outlook.future(seen)
    myopic, planned = outlook.myopic(seen), outlook.planned(seen)
    now = [outlook.now.gather(1, slate) @ outlook.examined for slate in (myopic, planned)]
    assert bool((now[0] >= now[1] - 1e-6).all())
    bored = users.susceptibility > 0
    # By hand, of a topic's best item in every slate: the requests after this one stand for 15.
    topic = int(outlook.topics[planned[0, 0]])
    logit = outlook.logits[:, 0, outlook.topics == topic].max(1).values
    later = torch.tensor([1.0, 2.0, 4.0, 8.0]) * torch.sigmoid(
        logit.unsqueeze(1) - outlook.losses[:, 0, topic, 1, 1:]
    )
    one = future[:, topic, 1] - future[:, topic, 0]
    torch.testing.assert_close(one, outlook.examined.mean() * later.sum(1))
    gain = outlook.worth(planned, future) - outlook.worth(myopic, future)
    assert float(gain[bored].mean()) > 0.1 and float(gain[~bored].abs().max()) < 0.05


def test_users_it_does_not_understand_are_refused(population):
    odd = UsersConfig.model_validate(
        {"choice": {"kind": "multinomial_logit"}, "drift": {"kind": "influence"}}, strict=False
    )
    nobody = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ConfigError, match="does not know drift, choice: multinomial_logit"):
        Filter(odd, population, nobody, torch.tensor([True]))
