"""Ranking tasks: which profiles are compared, by which label, with what must differ, against which negatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from morphoclip import schema
from morphoclip.evaluation.ranking.similarity import SIMILARITIES

REPLICATE, SISTER, COMPOUND_GENE, CRISPR_ORF = "replicate", "sister", "compound_gene", "crispr_orf"
MEAN_COSINE = "mean_cosine"  # a control: of pairs across modalities that share the label, beside random pairs
TARGET = "target"  # the label that is a compound's targets, and a reagent's gene
WELLS = "well"
PLACES = {"batch": schema.BATCH, "source": schema.SOURCE, "plate": schema.PLATE, "position": schema.WELL}
COMPOUND = "Metadata__compound"  # the molecule of a profile; made where a task asks for it
DIFFERENT = {**PLACES, "modality": schema.MODALITY, "compound": COMPOUND, "dose": schema.DOSE}
CONTROLLED = ("plate", "set")
CHOICES = {
    "profiles": (WELLS, "consensus", "batch", "source"),
    "average": ("median", "mean"),
    "dose": ("each", "top", "all"),
    "negatives": (*CONTROLLED, "others"),
    "score": ("average_precision", "nearest"),
}


@dataclass(frozen=True)
class Task:
    """A question on profiles; each is a YAML file in configs/task, and any field can be set by `task.NAME.FIELD=`.

    Attributes:
        name: of the file, shown as the task.
        title: heading in the report.
        profiles: `well`, or averages over the wells of a perturbation: of the set (`consensus`), of each `batch` or `source`.
        average: `median` or `mean` of the wells.
        dose: where perturbations have several doses: a profile for `each` dose, for the `top` dose only, or one over `all`.
        modalities: modalities that take part; empty: all.
        across: modalities of a second set of the same cell line; profiles of the first are matched with the second's.
        label: column of what positives share, several values separated by '|'; `target`: the protocol's column of
            targets or gene of each modality.
        different: in what a positive must differ from the query: `batch`, `source`, `plate`, `position` (well),
            `modality`, `compound` (molecule), `dose`, or a column. Among `others` negatives must differ in it too.
        negatives: negative controls of the query's own `plate` or of the whole `set`, or the `others`: the profiles
            without the label. Consensus profiles have no controls among them.
        distance: cosine | abs_cosine | …, or modality -> distance, for those that take part.
        only_shared: modalities whose profiles without a second one of the label are left out, as negatives too.
        where: column -> names or patterns (`poscon*`) of the wells that are queries; empty: all.
        group: column of the label in the task's table.
        retrieved: score the perturbations that the task replicate retrieves; all of them too, as <task>_ungated.
        score: `average_precision`, or `nearest`: the fraction of profiles whose nearest neighbour shares the label.
        controls: scores beside it, names of `CONTROLS`, `shuffled_labels` or `mean_cosine`.
        asked: named by the user; if it cannot be scored, this is an alarm or error, else a note.

    Raises:
        ValueError: an unknown value, or fields that contradict each other.
    """

    name: str
    title: str = ""
    profiles: str = WELLS
    average: str = "median"
    dose: str = "each"
    modalities: Sequence[str] = ()
    across: Sequence[str] = ()
    label: str = schema.PERTURBATION
    different: Sequence[str] = ()
    negatives: str = "others"
    distance: str | Mapping[str, str] = "cosine"
    only_shared: Sequence[str] = ()
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)
    group: str = ""
    retrieved: bool = False
    score: str = "average_precision"
    controls: Sequence[str] = ("shuffled_labels", "cell_count_alone")
    asked: bool = True

    def __post_init__(self) -> None:
        for key, choices in CHOICES.items():
            if getattr(self, key) not in choices:
                raise ValueError(f"task {self.name}: {key}={getattr(self, key)!r}: choose among {list(choices)}")
        distances = self.distance.values() if isinstance(self.distance, Mapping) else [self.distance]
        if wrong := set(distances) - set(SIMILARITIES):
            raise ValueError(
                f"task {self.name}: distance={sorted(wrong)} is unknown: choose among {sorted(SIMILARITIES)}"
            )
        for key in ("modalities", "across", "different", "only_shared", "controls"):
            if isinstance(getattr(self, key), str):
                raise ValueError(f"task {self.name}: {key}={getattr(self, key)!r}: give a list, [{getattr(self, key)}]")
        if self.where and self.profiles != WELLS:
            raise ValueError(f"task {self.name}: where={dict(self.where)} selects wells, so it needs profiles=well")
        if self.negatives in CONTROLLED and self.profiles != WELLS:
            raise ValueError(
                f"task {self.name}: negatives={self.negatives} are wells, so they need profiles=well; consensus profiles "
                "are ranked among others"
            )
        if self.profiles == WELLS and self.by_label and self.score == "average_precision":
            raise ValueError(
                f"task {self.name}: wells are ranked by {schema.PERTURBATION}; for the label {self.label} use "
                "profiles=consensus, or score=nearest"
            )

    @property
    def by_label(self) -> bool:
        """Whether the label is another than the perturbation, a list of values for each profile."""
        return self.label != schema.PERTURBATION

    @property
    def heading(self) -> str:
        return self.title or self.name.replace("_", " ").capitalize()

    @property
    def differing(self) -> tuple[str, ...]:
        """The columns of `different`."""
        return tuple(DIFFERENT.get(name, name) for name in self.different)

    def distance_of(self, modality: str) -> str | None:
        """The similarity among the profiles of a modality; None if they take no part."""
        if self.modalities and modality not in self.modalities:
            return None
        return self.distance.get(modality) if isinstance(self.distance, Mapping) else self.distance
