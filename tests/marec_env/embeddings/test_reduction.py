import numpy as np
import pytest
import torch

from marec_env.embeddings import EmbeddingConfig, ReductionConfig, fit_reduction
from marec_env.errors import ConfigError, DataError


@pytest.fixture
def embeddings():
    torch.manual_seed(0)
    latent = torch.randn(500, 5) * torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    return latent @ torch.randn(5, 40) + 0.01 * torch.randn(500, 40) + 3.0


def test_pca_keeps_what_varies(embeddings):
    reduction = fit_reduction(EmbeddingConfig(reduction=ReductionConfig(dimension=5)), embeddings)
    reduced = reduction.apply(embeddings)
    centred = embeddings - embeddings.mean(0)
    assert reduced.dtype == torch.float32 and reduced.shape == (500, 5)
    assert torch.allclose(reduced.norm(dim=1), torch.ones(500), atol=1e-5)
    exact = torch.nn.functional.normalize(centred, dim=1)
    assert torch.allclose(reduced @ reduced.T, exact @ exact.T, atol=0.02)


def test_pca_equals_numpys_decomposition(embeddings):
    """Leading directions by variance, scores scaled to unit length, largest entries positive."""
    found = fit_reduction(ReductionConfig(dimension=4), embeddings)
    data = embeddings.numpy().astype("float64")
    _, _, rows = np.linalg.svd(data - data.mean(axis=0), full_matrices=False)
    directions = rows[:4].T * np.sign(rows[:4].T[np.abs(rows[:4]).argmax(axis=1), range(4)])
    np.testing.assert_allclose(found.projection.numpy(), directions, atol=1e-5)
    np.testing.assert_allclose(found.mean.numpy(), data.mean(axis=0), rtol=1e-5)
    scores = (data[:3] - data.mean(axis=0)) @ directions
    expected = scores / np.linalg.norm(scores, axis=1, keepdims=True)
    np.testing.assert_allclose(found.apply(embeddings[:3]).numpy(), expected, atol=1e-5)


def test_signs_do_not_depend_on_the_order_of_rows(embeddings):
    section = ReductionConfig(dimension=5)
    one = fit_reduction(section, embeddings)
    other = fit_reduction(section, embeddings[torch.randperm(500)])
    assert torch.allclose(one.projection, other.projection, atol=1e-4)
    peak = one.projection.abs().argmax(dim=0)
    assert (one.projection[peak, torch.arange(5)] > 0).all()


def test_none_only_scales(embeddings):
    reduction = fit_reduction(ReductionConfig(method="none"), embeddings)
    assert torch.allclose(
        reduction.apply(embeddings), torch.nn.functional.normalize(embeddings, dim=1), atol=1e-6
    )


def test_fewer_items_than_dimensions_leave_the_rest_empty(embeddings):
    reduction = fit_reduction(ReductionConfig(dimension=8), embeddings[:4])
    reduced = reduction.apply(embeddings[:4])
    assert torch.isfinite(reduced).all()
    assert (reduced[:, 3:] == 0).all() and (reduced[:, :3].abs().sum(dim=1) > 0.9).all()


def test_bad_input_is_refused(embeddings):
    with pytest.raises(ConfigError, match=r"41.*allowed: 1 to 40"):
        fit_reduction(ReductionConfig(dimension=41), embeddings)
    with pytest.raises(DataError, match="not finite"):
        fit_reduction(ReductionConfig(), embeddings.index_fill(0, torch.tensor([3]), float("nan")))
    with pytest.raises(DataError, match=r"shape \[0, 40\]"):
        fit_reduction(ReductionConfig(), embeddings[:0])
    with pytest.raises(DataError, match="do not fit a reduction of 40"):
        fit_reduction(ReductionConfig(), embeddings).apply(embeddings[:, :39])
