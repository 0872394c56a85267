"""The prepared data set of the tests of training."""

import pytest

from tests.support import commands


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> str:
    """Prepare the data set of `small_run`, which no test changes; return its folder."""
    return commands.prepared(tmp_path_factory.mktemp("prepared"))
