"""What a step says of itself."""

import torch

from marec_env.vector import VecStep


def test_a_step_says_sizes_and_means():
    state, seen = torch.zeros(4, 7), {"a_0": torch.zeros(4, 3)}
    step = VecStep(
        observations=seen,
        state=state,
        rewards={"a_0": torch.tensor([1.0, 2.0, 3.0, 6.0])},
        terminated=torch.tensor([True, False, False, True]),
        truncated=torch.tensor([False, True, False, False]),
        final_state=state,
        final_observations=seen,
        metrics={"clicks": torch.tensor([0.0, 0.0, 1.0, 0.0])},
        # As where shapes are fixed: a row a session, of which the third did not end.
        episodes={
            "length": torch.tensor([5.0, 40.0, 99.0, 9.0]),
            "clicks_per_request": torch.zeros(4),
        },
    )
    assert repr(step).splitlines() == [
        "VecStep of 4 sessions: 2 ended, 1 cut off",
        "  observations: a_0 [4, 3]; state [4, 7]",
        "  mean rewards: a_0 3",
        "  mean metrics: clicks 0.25",
        "  means of ended episodes: length 18",
    ]
