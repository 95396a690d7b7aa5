"""What a cross-modal loss may know about its rows besides their embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LossContext:
    """Labels of the B images and U other rows (prompts, molecules) of this rank; codes mean the same on all ranks.

    Attributes:
        image_id: int64 (B,), which prompt belongs to the image.
        other_id: int64 (U,), the prompt of each row of `other`. Each distinct prompt need be there once only; one
            that several ranks hold counts once.
        perturbation: int64 (B,), what replicates share. A negative code leaves the row out of `SupConLoss`.
        plate: int64 (B,).
        image_profile: (B, C, D), pooled per-channel image profiles before any embedding is added (CWCL's weights).
        image_frozen: (B, D), embeddings in the frozen image space (S2L's distances).
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
            ValueError: one of them was not given.
        """
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{loss} needs {', '.join(missing)} in its LossContext")
        return tuple(getattr(self, name) for name in names)
