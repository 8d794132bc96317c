import pytest
import tiny


@pytest.fixture
def tiny_bundle(tmp_path):
    """A valid bundle of one's own, to use or to break."""
    return tiny.save(tmp_path / "tiny")


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory):
    """A valid bundle that all tests share."""
    return tiny.save(tmp_path_factory.mktemp("bundles") / "tiny")
