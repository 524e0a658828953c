from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logit

from marec_env.rewards import TERMS
from marec_env.rewards import terms as outcomes


def term(name, outcome):
    return TERMS.get(name)(outcome).tolist()


def test_outcomes_of_the_users(outcome):
    assert term("engagement", outcome) == pytest.approx([2 / 3, 0.0])
    assert term("satisfaction", outcome) == pytest.approx([0.7, 0.2])
    assert term("retention", outcome) == [1.0, 0.0]


def test_recall_counts_the_best_unseen_items_among_the_candidates(outcome):
    # Session 0 has seen 9, so 0, 6 and 7 count: 0 and 6 are candidates.
    # Session 1: 5, 2 and 7 count; 2 and 7 are candidates.
    assert term("recall", outcome) == pytest.approx([2 / 3, 2 / 3])
    outcome.request.candidates = torch.tensor([[1, 2, 3, 4, 5], [5, 2, 7, 0, 1]])
    assert term("recall", outcome) == pytest.approx([0.0, 1.0])


def test_recall_is_counted_alike_on_every_device():
    source = torch.Generator().manual_seed(0)
    rank = torch.rand(8, 50, generator=source).argsort(1)
    items, top = rank[:, :12], torch.rand(8, 50, generator=source).argsort(1)[:, :30]
    seen = torch.rand(8, 50, generator=source) < 0.5
    found, wanted = torch.empty(2, 8, dtype=torch.int64)
    arrays = [value.numpy() for value in (items, top, seen)]
    outcomes._find(*arrays, 10, found.numpy(), wanted.numpy())
    expected = outcomes._found_by_table(items, top, seen, 10)
    assert torch.equal(found, expected[0])
    assert torch.equal(wanted, expected[1])


def test_recall_with_fewer_relevant_items_than_wanted(outcome):
    outcome.seen_before[0, [0, 6, 7]] = True
    assert term("recall", outcome)[0] == pytest.approx(1.0)  # only item 1 is left, and recalled


def test_recall_looks_past_the_head_of_the_list_where_that_was_seen(outcome):
    truth = replace(outcome.truth, top=torch.arange(12).expand(2, -1), top_count=2)
    judged = replace(outcome, truth=truth)
    outcome.seen_before[1, :9] = True  # all but 9, 10 and 11, which lie far down the list
    outcome.request.candidates = torch.tensor([[0, 2], [9, 11]])
    assert term("recall", judged) == pytest.approx([0.5, 0.5])


def test_probe_quality_is_the_correlation_with_the_click_logit(outcome):
    assert term("probe_quality", outcome) == [0.5, 0.5], "no profile, no quality"
    request = outcome.request
    request.profile_cf = torch.nn.functional.normalize(torch.tensor([[1.0, 2, 3], [1, 0, 0]]))
    request.profile_text = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0]])
    )
    cf, text = request.knowledge.cf.numpy(), request.knowledge.text.numpy()
    items = outcome.truth.probe[0].numpy()
    score = (
        cf[items] @ request.profile_cf[0].numpy() + text[items] @ request.profile_text[0].numpy()
    )
    target = logit(outcome.truth.probe_probability[0].numpy())
    found = term("probe_quality", outcome)
    assert found[0] == pytest.approx(0.5 * (1 + np.corrcoef(score, target)[0, 1]), abs=1e-5)
    assert found[1] == 0.5, "nothing to predict where all are equal"


def test_ranking_quality_is_over_all_candidates(outcome):
    assert term("ranking_quality", outcome) == [0.5, 0.5]
    target = torch.logit(outcome.truth.candidate_probability)
    outcome.request.scores = 3.0 * target + 1.0
    assert term("ranking_quality", outcome) == pytest.approx([1.0, 0.5])
    outcome.request.scores = -target
    assert term("ranking_quality", outcome) == pytest.approx([0.0, 0.5])


def test_costs(outcome):
    assert term("compute_cost", outcome) == [0.0, 0.0]
    assert term("extra_cost", outcome) == [0.0, 0.0]
    outcome.request.compute_cost = torch.tensor([0.05, 0.0])
    outcome.request.extra_cost = torch.tensor([0.0, 0.3])
    assert term("compute_cost", outcome) == pytest.approx([0.05, 0.0])
    assert term("extra_cost", outcome) == pytest.approx([0.0, 0.3])


def test_diversity_is_the_chance_that_two_items_differ_in_topic(outcome):
    # Two of one topic and one of another: 1 - (4 + 1) / 9.
    assert term("diversity", outcome) == pytest.approx([4 / 9, 4 / 9])


def test_novelty_is_mean_unpopularity(outcome):
    expected = [1 - (0 + 4 + 1) / 33, 1 - (2 + 3 + 11) / 33]
    assert term("novelty", outcome) == pytest.approx(expected)


def test_coverage_adds_up_over_the_session(outcome):
    assert term("coverage", outcome) == pytest.approx([0.5, 0.5])
    outcome.request.memory.session_items[1, 0] = torch.tensor([4, 8, 1])  # topics 0, 0, 1
    assert term("coverage", outcome) == pytest.approx([0.5, 1.0])


def test_revenue(outcome):
    assert term("revenue", outcome) == pytest.approx([2 / 3, 0.0])
    price = torch.arange(12) * 10.0
    priced = replace(outcome, attributes={"price": price})
    assert term("revenue", priced) == pytest.approx([(0 + 10) / 3 / 110, 0.0])
    bought = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    outcome.feedback.behaviours["purchase"] = bought
    assert term("revenue", priced) == pytest.approx([0.0, 110 / 3 / 110])


def test_exposure_fairness_is_relative_to_the_half_that_is_less_popular(outcome):
    # Items 0 to 5 are the less popular half: 3 of 3 and 2 of 3, over one half, at most 1.
    assert term("exposure_fairness", outcome) == [1.0, 1.0]
    outcome.request.slate = torch.tensor([[6, 7, 0], [8, 9, 10]])
    assert term("exposure_fairness", outcome) == pytest.approx([2 / 3, 0.0])


def test_every_term_is_one_number_a_session(outcome):
    for name in TERMS:
        value = TERMS.get(name)(outcome)
        assert value.shape == (2,), name
        assert value.dtype == torch.float32, name
        assert bool(((value >= 0) & (value <= 1)).all()), name


def test_within_limits_by_hand(outcome):
    # One slate moves exposure by a quarter: session 0 is at 1/6 of topic 0 and 1/12 of topic 1.
    config = outcome.request.config
    audit = config.audit.model_copy(update={"max_topic_share": 0.15})
    outcome.request.config = config.model_copy(update={"audit": audit})
    assert term("within_limits", outcome) == pytest.approx([1 / 3, 1 / 3])
    outcome.request.memory.exposure[1, 2] = 0.3  # and topic 2 of session 1 is full already
    assert term("within_limits", outcome) == pytest.approx([1 / 3, 0.0])


def test_within_limits_counts_providers_over_the_whole_session(outcome):
    request = outcome.request
    request.knowledge.providers[:] = torch.arange(12) % 3
    object.__setattr__(request.knowledge, "num_providers", 3)
    audit = request.config.audit.model_copy(update={"max_provider_share": 0.5})
    request.config = request.config.model_copy(update={"audit": audit})
    # Slates 0, 4, 1 and 2, 3, 11 are of providers 0, 1, 1 and 2, 0, 2.
    assert term("within_limits", outcome) == pytest.approx([1 / 3, 1 / 3])
    request.memory.session_items[0, 0] = torch.tensor([2, 5, 8])  # another provider before
    request.memory.requests[0] = 1
    assert term("within_limits", outcome) == pytest.approx([1.0, 1 / 3])


def test_suitability_and_vetoes(outcome):
    assert term("suitability", outcome) == [1.0, 1.0]
    assert term("vetoed", outcome) == [0.0, 0.0]
    outcome.request.knowledge.attributes["risk"] = torch.arange(12.0)
    outcome.request.memory.limits[:] = torch.tensor([[1.0], [100.0]])
    assert term("suitability", outcome) == pytest.approx([2 / 3, 1.0])
    assert term("within_limits", outcome) == pytest.approx([2 / 3, 1.0])
    outcome.request.veto = torch.tensor([[0.0, 5.0, 0, 0, 0], [1.0, 1, 1, 1, 1]])
    assert term("vetoed", outcome) == pytest.approx([0.2, 1.0])
