import torch

from marec_env.embeddings import recency_weights, text_profile

VECTORS = torch.eye(3)


def test_a_profile_is_the_weighted_mean_direction():
    history = torch.tensor([[0, 1, -1], [2, 2, 1], [-1, -1, -1]])
    weights = torch.tensor([[3.0, 4.0, 99.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    expected = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert torch.allclose(text_profile(VECTORS, history, weights), expected)


def test_without_weights_every_event_counts_once():
    profile = text_profile(VECTORS, torch.tensor([[0, 0, 1]]))
    assert torch.allclose(profile, torch.tensor([[2.0, 1.0, 0.0]]) / 5**0.5)


def test_dislikes_push_away():
    profile = text_profile(VECTORS, torch.tensor([[0, 1]]), torch.tensor([[1.0, -1.0]]))
    assert profile[0, 0] > 0 > profile[0, 1]


def test_weights_halve_every_half_life():
    ages = torch.tensor([[0.0, 8.0, 16.0]])
    assert torch.allclose(recency_weights(ages, 8.0), torch.tensor([[1.0, 0.5, 0.25]]))
