import pytest
import tiny

from scgan_infer import bundle


@pytest.fixture
def tiny_bundle(tmp_path):
    """A valid bundle of one's own, to use or to break."""
    return bundle.save(tmp_path / "tiny", tiny.MANIFEST, tiny.GRAPHS, tiny.EXTRAS)


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory):
    """A valid bundle that all tests share."""
    return bundle.save(
        tmp_path_factory.mktemp("bundles") / "tiny", tiny.MANIFEST, tiny.GRAPHS, tiny.EXTRAS
    )
