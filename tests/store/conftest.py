"""What tests of the store share."""

from pathlib import Path

import pytest

from tests.store.volume import Volume


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """An empty volume and one source."""
    return Volume.at(tmp_path)
