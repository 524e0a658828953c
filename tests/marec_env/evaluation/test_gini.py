import numpy as np
import pytest

from marec_env.evaluation.statistics import gini


def test_gini_by_hand():
    assert gini(np.ones(5)) == pytest.approx(0.0)
    assert gini([0.0, 0.0, 0.0, 7.0]) == pytest.approx(0.75)
    # mean absolute difference of (1, 3) over all ordered pairs is 1, mean 2: 1 / (2 * 2)
    assert gini([3.0, 1.0]) == pytest.approx(0.25)
    assert gini([0.0, 0.0, 0.0]) == 0.0
