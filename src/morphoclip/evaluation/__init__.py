"""Profile tables ▶ scores. Public names load on first use."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from morphoclip.evaluation.card.comparison import compare
    from morphoclip.evaluation.card.scorecard import ScoreCard
    from morphoclip.evaluation.card.scoring import score
    from morphoclip.evaluation.measures.neighbours import nearest_neighbour_accuracy
    from morphoclip.evaluation.ranking.average_precision import average_precision
    from morphoclip.evaluation.ranking.chance import expected_average_precision
    from morphoclip.evaluation.ranking.exchange import exchange_test
    from morphoclip.evaluation.ranking.significance import mean_average_precision
    from morphoclip.evaluation.report.report import write_report
    from morphoclip.evaluation.tasks.measure import Measure
    from morphoclip.evaluation.tasks.protocol import Protocol

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "card.scorecard": ["ScoreCard"],
        "card.scoring": ["score"],
        "measures.neighbours": ["nearest_neighbour_accuracy"],
        "ranking.average_precision": ["average_precision"],
        "ranking.chance": ["expected_average_precision"],
        "ranking.exchange": ["exchange_test"],
        "card.comparison": ["compare"],
        "ranking.significance": ["mean_average_precision"],
        "report.report": ["write_report"],
        "tasks.measure": ["Measure"],
        "tasks.protocol": ["Protocol"],
    },
)
