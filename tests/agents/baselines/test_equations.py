"""Closed forms and published implementations as oracles for the vectorised ones."""

import numpy as np
import pytest
import torch
from implicit.als import AlternatingLeastSquares
from scipy import sparse

from agents.baselines.bandits import LinearPosterior
from agents.baselines.linear import ALS, BPR, EASE, ItemKNN
from agents.baselines.neural import LightGCN, NeuMF, SASRec, SASRecNetwork
from agents.baselines.scoring import TrainingLog, liked_items
from marec_env.errors import ConfigError


def test_als_folds_in_as_implicit_does(planted):
    policy = ALS(planted.log, seed=3, factors=8, confidence=6.0, regularization=0.7)
    reference = AlternatingLeastSquares(
        factors=8, alpha=6.0, regularization=0.7, random_state=3, num_threads=1, use_gpu=False
    )
    reference.item_factors = policy.item_factors.numpy()
    liked = torch.tensor([[-1, 4, 9], [30, 31, 77]])
    places = ([0, 0, 1, 1, 1], [4, 9, 30, 31, 77])
    rows = sparse.csr_matrix((np.ones(5, np.float32), places), shape=(2, planted.items))
    expected = np.stack([reference.recalculate_user(k, rows[k]) for k in range(2)])
    np.testing.assert_allclose(policy.user_vectors(liked).numpy(), expected, atol=1e-4)


def test_ease_is_ridge_regression_with_zero_diagonal(planted):
    policy = EASE(planted.log, regularization=5.0)
    matrix = planted.log.matrix().toarray().astype(np.float64)
    for item in (0, 41):
        rest = [k for k in range(planted.items) if k != item]
        left = matrix[:, rest].T @ matrix[:, rest] + 5.0 * np.eye(planted.items - 1)
        expected = np.linalg.solve(left, matrix[:, rest].T @ matrix[:, item])
        np.testing.assert_allclose(policy.weights[rest, item].numpy(), expected, atol=1e-5)
        assert policy.weights[item, item] == 0


def test_item_knn_sums_cosines(planted):
    policy = ItemKNN(planted.log, neighbours=planted.items)
    matrix = planted.log.matrix().toarray()
    norms = np.linalg.norm(matrix, axis=0)
    cosine = matrix.T @ matrix / np.maximum(np.outer(norms, norms), 1e-9)
    np.fill_diagonal(cosine, 0)
    history = torch.tensor([[-1, 4, 9], [30, 31, 77]])
    expected = [cosine[[4, 9]].sum(axis=0), cosine[[30, 31, 77]].sum(axis=0)]
    scores = policy.scores(planted.simulator(history).view)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)


def test_bpr_fold_in_ascends_its_objective(planted):
    policy = BPR(planted.log, factors=8, iterations=20)
    liked = torch.tensor([[4, 9, 2]])
    user = policy.user_vectors(liked)
    margin = policy.item_factors[liked[0]] - policy.centre

    def objective(vector):
        fit = torch.nn.functional.logsigmoid(margin @ vector).mean()
        return float(fit - 0.5 * policy.regularization * vector.square().sum())

    found = objective(user[0])
    assert found > objective(torch.zeros_like(user[0]))
    policy.fold_in_steps *= 50
    assert found > objective(policy.user_vectors(liked)[0]) - 0.1


def test_lightgcn_folds_a_new_user_in_as_a_node(planted):
    """Against the whole graph: two layers, the new node's own embedding zero."""
    log = TrainingLog(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2, 3)
    policy = LightGCN(log, epochs=3, dim=4, layers=2)
    view = planted.simulator(torch.tensor([[0, 1]])).view
    scores = policy.scores(view)[0]
    users = policy.messages[[0, 1]].sum(dim=0) / 2**0.5
    torch.testing.assert_close(scores, policy.items @ users, atol=1e-4, rtol=1e-3)
    # One-layer model: the message of an item is half its embedding over the root of its degree.
    shallow = LightGCN(log, epochs=3, dim=4, layers=1)
    torch.testing.assert_close(shallow.messages[2], torch.zeros(4) + shallow.messages[2])
    assert not torch.allclose(shallow.messages[1], shallow.messages[0])


def test_linear_posterior_is_ridge_regression(planted):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(planted.items, 3, generator=generator)
    posterior = LinearPosterior(features, torch.rand(planted.items, generator=generator), ridge=2.0)
    history = torch.tensor([[-1, 5, 8]])
    liked = torch.tensor([[False, True, False]])
    shown, clicks = torch.tensor([[7, 9]]), torch.tensor([[0.0, 1.0]])
    mean, factor = posterior.solve(planted.simulator(history, liked, clicks, shown).view)
    rows = posterior.features[[5, 8, 7, 9]]
    reward = torch.tensor([1.0, 0.0, 0.0, 1.0])
    precision = rows.T @ rows + 2.0 * torch.eye(4)
    expected = torch.linalg.solve(precision, rows.T @ reward + 2.0 * posterior.prior)
    torch.testing.assert_close(mean[0], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(factor[0] @ factor[0].T, precision, atol=1e-5, rtol=1e-4)


def test_sasrec_looks_back_only_and_past_padding():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SASRecNetwork(10, length=6, dim=8, dropout=0.0).eval()
    sequence = torch.tensor([[-1, -1, 1, 2, 3, 4]])
    changed = sequence.clone()
    changed[0, 5] = 7
    first, second = network.states(sequence), network.states(changed)
    torch.testing.assert_close(first[:, :5], second[:, :5])
    assert not torch.allclose(first[:, 5], second[:, 5])
    torch.testing.assert_close(network.states(sequence[:, 2:])[0, -1], first[0, -1])


def test_liked_items_are_in_order_of_time(planted):
    history = torch.tensor([[-1, 3, 4, 5], [6, 7, 8, 9]])
    liked = torch.tensor([[False, True, False, True], [True, True, True, True]])
    shown = torch.tensor([[20, 21, -1], [22, 23, 24]])
    clicks = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    view = planted.simulator(history, liked, clicks, shown).view
    assert liked_items(view, 10).tolist() == [[-1, -1, 3, 5, 21], [6, 7, 8, 9, 24]]
    assert liked_items(view, 2).tolist() == [[5, 21], [9, 24]]


def test_sequences_keep_the_latest_likes():
    log = TrainingLog(torch.tensor([0, 0, 0, 2]), torch.tensor([5, 6, 7, 1]), 3, 8)
    assert log.sequences(2).tolist() == [[6, 7], [-1, -1], [-1, 1]]


@pytest.mark.parametrize("kind", [NeuMF, LightGCN, SASRec])
def test_networks_learn_although_gradients_are_off_where_they_are_built(planted, kind):
    """An evaluation builds baselines under no_grad or inference_mode."""
    log = TrainingLog(planted.log.user[:200], planted.log.item[:200], 20, planted.items)
    view = planted.simulator(torch.tensor([[-1, 4, 9]])).view
    expected = kind(log, seed=2, epochs=1).scores(view)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert torch.equal(kind(log, seed=2, epochs=1).scores(view), expected)


def test_a_dense_autoencoder_beyond_memory_is_refused_with_the_estimate():
    log = TrainingLog(torch.tensor([0]), torch.tensor([1]), 1, 2_000_000)
    for kind, name in ((EASE, "ease"), (SASRec, "sasrec")):
        with pytest.raises(
            ConfigError, match=rf"{name}.* on 2,000,000 items: needs about [\d,.]+ GB"
        ):
            kind(log)
