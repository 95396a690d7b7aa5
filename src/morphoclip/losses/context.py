"""Labels and profiles of the rows of a loss, besides their embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LossContext:
    """Labels of the B images and U other rows (prompts, molecules) of this rank, in codes shared by all ranks.

    Attributes:
        image_id: int64 (B,), id of the image's prompt.
        other_id: int64 (U,), id of the prompt in each row of `other`. One row per distinct prompt is enough; a prompt on
            several ranks counts once.
        perturbation: int64 (B,), equal for replicates. `SupConLoss` ignores rows with a negative code.
        plate: int64 (B,).
        image_profile: (B, C, D), pooled image profiles per channel, before channel embeddings are added (for CWCL).
        image_frozen: (B, D), embeddings in the frozen image space (for S2L).
    """

    image_id: Tensor | None = None
    other_id: Tensor | None = None
    perturbation: Tensor | None = None
    plate: Tensor | None = None
    image_profile: Tensor | None = None
    image_frozen: Tensor | None = None

    def require(self, loss: str, *names: str) -> tuple[Tensor, ...]:
        """The fields `names`.

        Raises:
            ValueError: one of them is None.
        """
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{loss} needs {', '.join(missing)} in its LossContext")
        return tuple(getattr(self, name) for name in names)
