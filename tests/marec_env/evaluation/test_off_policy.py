"""Estimators on a synthetic log whose truth is known in closed form."""

from itertools import permutations

import numpy as np
import pytest

from marec_env.evaluation import off_policy

ACTIONS, FEATURES = 5, 4
TASK = np.random.default_rng(0)
WEIGHTS = TASK.normal(size=(FEATURES, ACTIONS))
LOGGING = 0.5 * TASK.normal(size=(FEATURES, ACTIONS))
TARGET = 1.0 * WEIGHTS


def _softmax(logits):
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def _sample(size, seed):
    """Return rewards, ratios, and the true mean reward of each action, with the target policy."""
    generator = np.random.default_rng(seed)
    context = generator.normal(size=(size, FEATURES))
    chance = 1 / (1 + np.exp(-context @ WEIGHTS))
    logging, target = _softmax(context @ LOGGING), _softmax(context @ TARGET)
    action = (generator.random((size, 1)) > logging.cumsum(axis=1)).sum(axis=1)
    rows = np.arange(size)
    reward = (generator.random(size) < chance[rows, action]).astype(float)
    return reward, (target / logging)[rows, action], chance, target, action


def _truth():
    _, _, chance, target, _ = _sample(400_000, seed=99)
    return float((chance * target).sum(axis=1).mean())


TRUTH = _truth()


def _errors(size, model, repetitions=200):
    """Return the root mean square error of each estimator at a log of ``size`` requests."""
    found = {"ips": [], "snips": [], "dm": [], "dr": []}
    for seed in range(repetitions):
        reward, ratio, chance, target, action = _sample(size, seed)
        guess = model(chance)
        value = (guess * target).sum(axis=1)
        predicted = guess[np.arange(size), action]
        found["ips"].append(off_policy.importance_sampling(reward, ratio).value)
        found["snips"].append(off_policy.self_normalised(reward, ratio).value)
        found["dm"].append(off_policy.doubly_robust(reward, 0.0, 0.0, value).value)
        found["dr"].append(off_policy.doubly_robust(reward, ratio, predicted, value).value)
    return {name: float(np.sqrt(np.mean((np.array(v) - TRUTH) ** 2))) for name, v in found.items()}


def good(chance):
    return chance + 0.05


def poor(chance):
    return np.full_like(chance, 0.2)


def test_error_falls_with_the_logs_size():
    small, large = _errors(200, good), _errors(3200, good)
    for name in ("ips", "snips", "dr"):
        assert large[name] < 0.4 * small[name], name  # a root of 16 is 4


def test_doubly_robust_beats_plain_where_the_model_is_good():
    errors = _errors(400, good)
    assert errors["dr"] < 0.8 * errors["ips"]
    assert errors["dr"] < errors["dm"]


def test_doubly_robust_does_no_harm_where_the_model_is_poor():
    errors = _errors(400, poor)
    assert errors["dr"] < 1.1 * errors["ips"]
    assert errors["dr"] < 0.5 * errors["dm"]


@pytest.mark.parametrize("name", ["ips", "snips", "dr"])
def test_intervals_cover_the_truth(name):
    covered = 0
    for seed in range(400):
        reward, ratio, chance, target, action = _sample(1000, 1000 + seed)
        if name == "dr":
            guess = good(chance)
            predicted, value = guess[np.arange(1000), action], (guess * target).sum(axis=1)
            estimate = off_policy.doubly_robust(reward, ratio, predicted, value)
        elif name == "ips":
            estimate = off_policy.importance_sampling(reward, ratio)
        else:
            estimate = off_policy.self_normalised(reward, ratio)
        covered += estimate.low <= TRUTH <= estimate.high
    assert 0.92 <= covered / 400 <= 0.98


def test_requests_of_one_session_are_one_unit():
    reward, ratio, chance, target, action = _sample(200, 0)
    guess = good(chance)
    parts = reward, ratio, guess[np.arange(200), action], (guess * target).sum(axis=1)
    session = np.repeat(np.arange(200), 4)  # each request four times over, as if four requests
    again = [np.repeat(part, 4, axis=0) for part in parts]
    for estimator, places in (
        (off_policy.importance_sampling, (0, 1)),
        (off_policy.self_normalised, (0, 1)),
        (off_policy.doubly_robust, (0, 1, 2, 3)),
    ):
        once = estimator(*(parts[k] for k in places))
        told = estimator(*(again[k] for k in places), session=session)
        assert (told.value, told.low, told.high) == pytest.approx((once.value, once.low, once.high))
        assert told.count == 200


def test_on_policy_ratios_return_the_mean():
    reward = np.array([0.0, 1.0, 1.0, 0.0])
    for estimator in (off_policy.importance_sampling, off_policy.self_normalised):
        assert estimator(reward, np.ones(4)).value == pytest.approx(0.5)
    assert off_policy.effective_sample_size(np.ones(4)) == pytest.approx(4)
    assert off_policy.effective_sample_size([1.0, 0.0]) == pytest.approx(1)
    with pytest.raises(ValueError, match="all ratios are 0"):
        off_policy.self_normalised(reward, np.zeros(4))


def test_plackett_luce_probabilities_sum_to_one():
    scores = np.random.default_rng(1).normal(size=(1, 4))
    slates = np.array(list(permutations(range(4), 2)))
    log = off_policy.plackett_luce_log_probability(np.repeat(scores, len(slates), axis=0), slates)
    assert np.exp(log.sum(axis=1)).sum() == pytest.approx(1.0)
    odds = np.exp(scores[0])
    first, second = slates[5]
    expected = odds[first] / odds.sum() * odds[second] / (odds.sum() - odds[first])
    assert np.exp(log[5].sum()) == pytest.approx(expected)


def test_cascade_ratios_estimate_slates_with_less_variance():
    """Clicks by position; the truth by enumeration over all slates of two of four items."""
    generator = np.random.default_rng(3)
    logging, target = np.zeros(4), np.array([1.2, 0.4, -0.5, -1.0])
    chance = np.array([0.6, 0.4, 0.3, 0.1])
    seen = np.array([1.0, 0.5])
    slates = np.array(list(permutations(range(4), 2)))
    table = off_policy.plackett_luce_log_probability(np.tile(target, (len(slates), 1)), slates)
    truth = float(np.exp(table.sum(axis=1)) @ (chance[slates] * seen).sum(axis=1))
    whole, cascade = [], []
    for _ in range(300):
        noisy = logging + generator.gumbel(size=(300, 4))
        picks = np.argsort(-noisy, axis=1)[:, :2]
        clicks = (generator.random((300, 2)) < chance[picks] * seen).astype(float)
        log_target = off_policy.plackett_luce_log_probability(np.tile(target, (300, 1)), picks)
        log_logging = off_policy.plackett_luce_log_probability(np.tile(logging, (300, 1)), picks)
        by_prefix = off_policy.prefix_ratios(log_target, log_logging)
        whole.append(off_policy.importance_sampling(clicks, by_prefix[:, -1]).value)
        cascade.append(off_policy.importance_sampling(clicks, by_prefix).value)
    for estimates in (whole, cascade):
        error = np.std(estimates) / np.sqrt(300)
        assert abs(np.mean(estimates) - truth) < 4 * error
    assert np.std(cascade) < np.std(whole)


def test_folds_have_equal_shares():
    folds = off_policy.cross_fit_folds(103, folds=5)
    assert sorted(np.bincount(folds)) == [20, 20, 21, 21, 21]
