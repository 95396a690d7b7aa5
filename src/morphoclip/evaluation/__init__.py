"""Profiles ▶ scores. Public names load on first use, so that reading a table needs no statistics library."""

from importlib import import_module

_HOMES = {
    "average_precision": "average_precision",
    "expected_average_precision": "average_precision",
    "mean_average_precision": "significance",
    "exchange_test": "exchange",
    "Protocol": "protocol",
    "score": "scorecard",
    "ScoreCard": "scorecard",
    "compare": "intervals",
    "write_report": "report",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # a function may share its file's name: it must win over the submodule
    return value
