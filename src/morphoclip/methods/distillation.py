"""Base of methods with a teacher, which is the moving average of the student and is exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from morphoclip.methods.base import Method, build
from morphoclip.models import Encoder, FeatureEncoder
from morphoclip.training.ema import Teacher


class Distillation(Method):
    """Base of DINO and CWA-MSN. A subclass ends its `__init__` with `add_teacher`.

    Args:
        ema_momentum: `_target_` of the schedule of the teacher's momentum.
        method: arguments of `Method`.
    """

    encoder_prefix = "teacher_encoder.module."

    def __init__(self, ema_momentum: Mapping[str, Any], **method: Any) -> None:
        super().__init__(**method)
        self.ema_momentum = build(ema_momentum)

    def add_teacher(self, head: nn.Module) -> None:
        """Initialise the teacher as a copy of the encoder and its head."""
        self.head = head
        self.teacher_encoder = Teacher(self.encoder)
        self.teacher_head = Teacher(head)

    def export_encoder(self) -> Encoder | FeatureEncoder:
        """The teacher's encoder."""
        return cast("Encoder | FeatureEncoder", self.teacher_encoder.module)

    def after_optimizer_step(self) -> None:
        momentum = self.ema_momentum(self.global_step, self.total_steps)
        self.teacher_encoder.update(self.encoder, momentum)
        self.teacher_head.update(self.head, momentum)
