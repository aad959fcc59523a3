"""A student's folder, made once for all tests of the course."""

import pytest
from handout import make
from solved import STUDENT


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A new folder of a student; do not write into it."""
    out = tmp_path_factory.mktemp("student") / "out"
    make(out, STUDENT)
    return out
