import pytest

from tests.runtime.clients import environments


@pytest.fixture(scope="session")
def node() -> None:
    """What Node is there, or the reason why these tests are skipped."""
    try:
        environments.node()
    except environments.NoNode as reason:
        pytest.skip(str(reason))
