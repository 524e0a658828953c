"""The small logs of the tests of data serve calibration, too."""

from tests.marec_env.data.conftest import *  # noqa: F403
