"""Profiles ▶ scores. Public names load on first use, but for those whose function and file share a name."""

from importlib import import_module

# At once: otherwise the file, once imported by a neighbour, would stand in the function's place.
from morphoclip.evaluation.average_precision import average_precision, expected_average_precision

_HOMES = {
    "mean_average_precision": "significance",
    "exchange_test": "exchange",
    "Protocol": "protocol",
    "score": "scoring",
    "ScoreCard": "scorecard",
    "compare": "intervals",
    "write_report": "report",
}

__all__ = [
    "Protocol",
    "ScoreCard",
    "average_precision",
    "compare",
    "exchange_test",
    "expected_average_precision",
    "mean_average_precision",
    "score",
    "write_report",
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
