"""What the tests with real processes share."""

from pathlib import Path

import pytest

from tests.flow.stub import prepared_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The initial model of a stub run: made once, copied for each."""
    return prepared_model(tmp_path_factory.mktemp("model"))
