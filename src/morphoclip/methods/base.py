"""Base class of methods: schedules, random draws by (seed, step), the gradient guard, collapse monitors, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from morphoclip.augment import Compose, Rows, draw_visible
from morphoclip.batch import Batch
from morphoclip.checkpoints import FROZEN
from morphoclip.distributed import gather_rows, mean_over_ranks, rank
from morphoclip.methods.loading import Loading
from morphoclip.models import Encoder, FeatureEncoder, create_encoder
from morphoclip.models.depth import depths
from morphoclip.models.pooling import Pool
from morphoclip.training.curves import Curves
from morphoclip.training.ema import Teacher
from morphoclip.training.freezing import Freezing, with_zero_gradients
from morphoclip.training.guards import NonFiniteGuard, global_norm
from morphoclip.training.launch import check_precision
from morphoclip.training.monitors import collapse_monitors
from morphoclip.training.restart import ExactRestart
from morphoclip.training.seeding import fold, generator
from morphoclip.training.sharding import PRECISIONS as SHARDED_PRECISIONS
from morphoclip.training.sharding import shard
from morphoclip.training.watched import Metrics

LARGE = 1_000_000  # bytes


def build(spec: Mapping[str, Any], **kw: Any) -> Any:
    """Instantiate a plain dict with a `_target_`; `kw` are further arguments."""
    # Without conversion, Hydra would wrap objects in lists in its own config types.
    return instantiate(spec, _convert_="all", **kw)


class Method(Loading):
    """Base of the methods. A subclass calls `save_hyperparameters()` and defines `training_step`.

    All arguments are plain (dicts, numbers, strings), so that the method can be rebuilt from a checkpoint's
    hyperparameters under `weights_only=True`; nested dicts with a `_target_` are instantiated here.

    Args:
        encoder: arguments of `create_encoder`.
        optimizer: e.g. `{_target_: morphoclip.training.optimizers.AdamW, lr: …}`.
        augment: a `_target_` of a `morphoclip.augment.Compose`; None for no augmentation.
        seed: seed of all random draws.
        monitor_every: steps between computations of the collapse monitors.

    Attributes:
        trained_on: facts of the training data (`export.training_data(dataset)`), set before fitting. Checkpoints and
            exports contain them, so that `embed` can cut and scale images in the same way.
        logged: name -> (sum, number) of the values logged and not yet sent to loggers by `Curves`.
        collapse: the latest readings of `collapse_monitors` not yet read by `CollapseAlarm`.
        freezing: the parts of the encoder that are frozen, set before fitting; None for none.
        resting: parameters that are frozen in this step and thaw later.
        is_validating: `training_step` is called for held-out crops, to measure.
        measured_at, measuring_s: step of the latest `Measurement` (-1 before), and the seconds of all.
    """

    clip_each_parameter = False  # True clips each parameter's gradient separately

    encoder: Any  # an Encoder, or a FeatureEncoder for cached features
    encoder_prefix = "encoder."

    def __init__(
        self,
        encoder: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        augment: Mapping[str, Any] | None = None,
        seed: int = 0,
        monitor_every: int = 50,
    ) -> None:
        super().__init__()
        self.encoder = create_encoder(**encoder)
        self.recipe = build(optimizer)
        self.augmentation: Compose = build(augment) if augment else Compose()
        self.seed = seed
        self.monitor_every = monitor_every
        self.guard = NonFiniteGuard()
        self.trained_on: dict[str, Any] = {}
        self.logged: dict[str, tuple[Any, int]] = {}
        self.collapse: dict[str, Tensor] = {}
        self.freezing: Freezing | None = None
        self.resting: list[torch.nn.Parameter] = []
        self.is_validating, self.measured_at, self.measuring_s = False, -1, 0.0

    def export_encoder(self) -> Encoder | FeatureEncoder:
        """The encoder to compute profiles with."""
        return self.encoder

    def encoders(self) -> list[torch.nn.Module]:
        """The encoder that trains, and its teacher if there is one."""
        exported = self.export_encoder()
        return [self.encoder] if exported is self.encoder else [self.encoder, exported]

    def depths(self) -> dict[str, int]:
        """Name of each parameter of the encoder -> its depth, see `models.depth`."""
        return {f"encoder.{name}": depth for name, depth in depths(self.encoder).items()}

    @property
    def crop_pool(self) -> Pool | None:
        """The pool over crops; None for methods that do not pool."""
        return None

    def describe_towers(self) -> dict[str, Any] | None:
        """The text and molecule towers as plain data; None for methods without any."""
        return None

    # Randomness

    def step_key(self, batch_idx: int) -> tuple[int, int]:
        """(optimizer step, batch within it), the seed of draws: the same after a resume, and in all validations."""
        if self.is_validating:
            return -1 - batch_idx, 0
        return self.global_step, batch_idx % self.trainer.accumulate_grad_batches

    def draws(self, count: int, batch_idx: int, purpose: str) -> Rows:
        """The random numbers of this batch's `count` rows among those of all batches of the optimizer step.

        Rows are numbered as `EpochSampler` slices its items, so that an item gets the same numbers for any number of ranks
        and of accumulated batches.
        """
        step, batch = self.step_key(batch_idx)
        position = rank() * (1 if self.is_validating else self.trainer.accumulate_grad_batches) + batch
        return Rows(fold(self.seed, step, 0, purpose), position * count, self.device)

    def views(self, crops: Batch, batch_idx: int, *purposes: str, augmentation: Compose | None = None) -> list[Tensor]:
        """Standardised float views (B, C, H, W) of a batch of crops, one per purpose, each with its own augmentation."""
        augmentation = augmentation or self.augmentation
        x = self.encoder.scale(crops.tensor("images"), crops.tensor("low"), crops.tensor("high"))
        views = []
        for purpose in purposes:
            parameters = augmentation.draw(len(x), x.shape[1], self.draws(len(x), batch_idx, purpose))
            views.append(self.encoder.standardise(augmentation.apply(x, parameters)))
        return views

    def sampled_channels(self, crops: int, batch_idx: int, *purposes: str) -> Tensor | None:
        """int64 (V·crops, m), view-major: the channels of each view of each crop; None for encoders that use all channels.

        m is the same for all views and ranks of a step, so that views can share a forward pass.
        """
        if not self.encoder.samples_channels:
            return None
        channels = len(self.encoder.channels)
        draws = generator(self.seed, self.step_key(batch_idx)[0], 0, "number of channels")
        shown = int(torch.randint(1, channels + 1, (), generator=draws))
        chosen = [
            draw_visible(crops, channels, shown, self.draws(crops, batch_idx, f"channels of {purpose}"))[:, :shown]
            for purpose in purposes
        ]
        return torch.cat(chosen)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(fold(self.seed, *self.step_key(batch_idx), "dropout", rank()))
        optimizer = cast(LightningOptimizer, self.optimizers()).optimizer  # there is one
        lr = self.recipe.set_step(optimizer, self.global_step, self.total_steps)
        self.log("train/lr", lr, batch_size=len(batch))

    # Pictures

    def pictures(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Name -> images of a training step on a few crops, (rows, C, H, W) in [0, 1]; empty by default."""
        return {}

    # Optimisation

    @property
    def is_sharded(self) -> bool:
        """Whether the weights are divided among ranks; then what runs the encoder must run on all of them alike."""
        return self.device_mesh is not None

    def configure_model(self) -> None:
        if self.device_mesh is not None and not isinstance(self, FSDPModule):
            check_precision(self.trainer.precision, SHARDED_PRECISIONS)
            shard(self, self.device_mesh["data_parallel"], [m for m in self.modules() if isinstance(m, Encoder)])

    def on_fit_start(self) -> None:
        check_precision(self.trainer.precision)
        total = self.trainer.estimated_stepping_batches
        if total in (-1, float("inf")):
            raise ValueError(
                "schedules need the number of steps, which streamed data does not have: set trainer.max_steps"
            )
        self.total_steps = int(total)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.recipe.build(self)

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        self.after_optimizer_step()

    def after_optimizer_step(self) -> None:
        """Hook called once per optimizer step, accumulated or not; `global_step` is still that step's number.

        It runs before any checkpoint is saved. In `on_train_batch_end`, which Lightning calls after its checkpoint
        callbacks, an update of the step (e.g. of a teacher) would be missing from the checkpoint.
        """

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Unscale, check, clip: the one place that decides the order; the optimizer's step follows.

        Clips by the norm of all gradients (or of each parameter's, `clip_each_parameter`); the guard gets the global norm.
        """
        if gradient_clip_algorithm not in (None, "norm"):
            raise ValueError(f"gradient_clip_algorithm {gradient_clip_algorithm!r} is not supported: clip by norm")
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)  # fused ones do it in their step, after clipping; Lightning does it for others
        norm = global_norm([p.grad for p in parameters])
        self.log("train/gradient_norm", norm)
        if gradient_clip_val and self.clip_each_parameter:
            for parameter in parameters:
                torch.nn.utils.clip_grad_norm_(parameter, gradient_clip_val)
        elif gradient_clip_val:
            self.log("train/clipped", (norm > gradient_clip_val).float())
            torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        self.guard.watch(self.global_step, self.last_loss, norm, scaled=scaler is not None)

    def configure_callbacks(self) -> list[pl.Callback]:
        """Those of every trainer; `Curves` comes after all others, whose values it sends too."""
        return [ExactRestart(), *([] if self.freezing is None else [self.freezing]), Curves()]

    def log(self, name: str, value: Any, *args: Any, **options: Any) -> None:
        """Lightning's `log` for the progress bar and callbacks; `Curves` sends the values to loggers.

        Lightning would repeat a value in all rows until the epoch's end, but not in a run that went on in between.
        """
        shown = (
            value if isinstance(value, Tensor) else torch.tensor(float(value))
        )  # Lightning would copy it to the device
        super().log(name, shown, *args, **{**options, "logger": False})
        total, count = self.logged.get(name, (0.0, 0))
        self.logged[name] = (total + (value.detach() if isinstance(value, Tensor) else value), count + 1)

    def report(
        self,
        loss: Tensor,
        embeddings: Tensor,
        batch: Batch,
        assignments: Tensor | None = None,
        **scalars: Tensor | float,
    ) -> dict[str, Tensor]:
        """Log a step, all ranks together, and return the result of `training_step`.

        `embeddings` (B, D) and, for methods with prototypes, the targets' `assignments` (B, K) are monitored for collapse.
        """
        if self.is_validating:
            return {"loss": loss, "embeddings": embeddings}
        self.last_loss = loss.detach()
        logged = mean_over_ranks({"train/loss": loss, **scalars}, loss.device)
        self.log("train/loss", logged.pop("train/loss"), batch_size=len(batch), prog_bar=True)
        self.log_dict(logged, batch_size=len(batch))
        if self.global_step % self.monitor_every == 0:
            gathered = None if assignments is None else gather_rows(assignments.detach())
            monitors, self.collapse = collapse_monitors(gather_rows(embeddings.detach()), gathered)
            self.log_dict({f"collapse/{name}": value for name, value in monitors.items()}, batch_size=len(batch))
        return {"loss": with_zero_gradients(loss, self.resting)}

    def validation_metrics(self) -> Metrics:
        """What is measured beside the loss, new for each validation; a metric that gives a dict logs all of its values."""
        return {}

    def validate(self, batch: Batch, batch_idx: int, metrics: Metrics) -> Tensor:
        """The loss of a batch of held-out crops, which is added to the metrics too."""
        return cast(dict[str, Tensor], self.training_step(batch, batch_idx))["loss"]

    def on_train_end(self) -> None:
        self.guard.check()

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.guard.check()
        checkpoint["encoder_config"] = self.encoder.config
        checkpoint["encoder_prefix"] = self.encoder_prefix
        checkpoint["trained_on"] = {**self.trained_on, "method": type(self).__name__.removeprefix("FSDP")}
        checkpoint[FROZEN] = self.frozen_weights()

    def frozen_weights(self) -> list[str]:
        """Names of the weights that training does not change, if they are large: checkpoints share one file of them."""
        moving = {id(p) for module in self.modules() if isinstance(module, Teacher) for p in module.parameters()}
        frozen = {n: p for n, p in self.named_parameters() if not p.requires_grad and id(p) not in moving}
        return list(frozen) if not self.is_sharded and sum(p.nbytes for p in frozen.values()) >= LARGE else []

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.trained_on = self.trained_on or dict(checkpoint.get("trained_on", {}))
