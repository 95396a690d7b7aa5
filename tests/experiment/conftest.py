"""The CPJUMP1 data of `tests/evaluation`, as a fixture."""

from tests.evaluation.conftest import cpjump1, make_screen  # noqa: F401
