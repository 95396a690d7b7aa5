"""What the cross-modal recipes learn on a simulated screen: `python -m benchmarks.clip_quality [--json] [--set key=value …]`.

224 compounds (the simulator's 96 and substituted analogues), of which half are never trained on; scored on a batch of plates
nobody trained on: retrieval of the 112 unseen compounds' own prompts or structures by their images, sister and compound-gene
mAP (all perturbations). cellclip, molphenix and morphoclip read cached features (classical ones, dealt out to channels and
standardised by the negative controls of their plate: there are no pretrained weights offline), cloome trains on crops. The
numbers of steps give the four recipes about the same processor time, which the table prints; ablations of
morphoclip have its number of steps, whatever a step costs. Controls: chance; the compound with the nearest structure; a
control well beside the image's well; frozen features without training; a model that knows genes.

A finished (arm, seed) is kept in the output folder and not trained again; a call with more arms or seeds adds to it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from benchmarks import unseen_retrieval
from benchmarks.analogues import larger_catalogue
from benchmarks.clip_quality_table import TASKS, rows, show
from benchmarks.demo import machine
from morphoclip import configs_dir, schema
from morphoclip.data import ShardDataset
from morphoclip.evaluation import ScoreCard
from morphoclip.experiment import design
from morphoclip.experiment.arms import TRAINED, image_dataset, write_profiles_of
from morphoclip.experiment.design import holdout_design
from morphoclip.experiment.fit import fit, open_dataset
from morphoclip.experiment.prepare import holdout_of, prepare_data, training_split
from morphoclip.experiment.score import score_tables
from morphoclip.files import write_atomically
from morphoclip.models.classical import CHANNELS, ClassicalFeatures

PER_GENE = 14
SCREEN = {
    "_target_": "benchmarks.analogues.LargerScreen",
    "compounds_per_gene": PER_GENE,
    "n_genes": 16,
    "dmso_wells": 24,
    "nontargeting_wells": 16,
    "lacz_wells": 16,
    "field_size": 256,
}
COMMON = [
    *(f"data.screen.{key}={value}" for key, value in SCREEN.items()),
    *["score=heldout", "score.encoders=null", "normalize=center_sphere", f"score.tasks=[replicate,{','.join(TASKS)}]"],
    *["trainer.enable_progress_bar=false", "~callbacks.progress", "data.loader.sampler_options.steps_per_epoch=100"],
]
LOSS = "method.loss._target_=morphoclip.losses."
BAGS = ["data.loader.global_batch_size=64", "data.loader.sampler_options.bag_size=6", "optimizer.lr=1e-3"]
OURS = ["experiment=morphoclip_debug", "data.validation=null", *BAGS, "trainer.max_steps=300"]
WARMUP = ["optimizer.lr_schedule.warmup_steps=null", "+optimizer.lr_schedule.warmup_share=0.1"]
PLAIN = ["~method.loss.center", "~method.loss.temperature"]  # what only CWCL takes
RECIPES: dict[str, list[str]] = {
    "cellclip": [
        *["experiment=cellclip_debug", *BAGS, "encoder.depth=12", "trainer.max_steps=350"],
        *WARMUP,
    ],
    "cloome": [
        *["experiment=cloome_debug", "encoder=covariance_vit", "augment=across_plates", "trainer.max_steps=295"],
        *[
            "data.loader.global_batch_size=32",
            "data.loader.sampler_options.bag_size=4",
        ],  # a crop shows one cell, not a field
        *["optimizer.lr=1e-3", *WARMUP],
    ],
    "molphenix": [
        *["experiment=molphenix_debug", *BAGS, "encoder.width=512", "encoder.blocks=6", "trainer.max_steps=630"],
    ],
    "morphoclip": OURS,
}
ABLATIONS: dict[str, list[str]] = {
    "InfoNCE": [f"{LOSS}InfoNCELoss", *PLAIN],
    "mean pool": ["encoder.pool=mean"],
    "λ = 0": ["method.image_loss.weight=0"],
    "structures by fingerprint": ["text=by_modality", "perturbation=by_modality"],
    "6 blocks": ["encoder.depth=6"],
    "prompt: name and targets": ["perturbation=prompt"],
    "SigLIP": [f"{LOSS}SigLIPLoss", *PLAIN, "method.temperature=0.1", "method.logit_bias=-10"],
    "CLOOB": [f"{LOSS}CLOOBLoss", *PLAIN, "method.temperature=null"],
    "1 block": ["encoder.depth=1"],
    "λ = 2": ["method.image_loss.weight=2"],
    "prompt: SMILES alone": ["perturbation=by_modality"],
    "S2L": [f"{LOSS}S2LLoss", *PLAIN, "method.temperature=0.1", "method.logit_bias=-1"],
    "published CWCL weights": PLAIN,
}
ARMS = RECIPES | {f"morphoclip, {name}": [*OURS, *changes] for name, changes in ABLATIONS.items()}


class ChannelFeatures(ClassicalFeatures):
    """Classical features dealt out to channels, (C, D) a crop: each has those that depend on it, then zeros."""

    def __init__(self) -> None:
        super().__init__()
        x = torch.rand(4, len(CHANNELS), 64, 64, generator=torch.Generator().manual_seed(0))
        before = self.backbone(x)
        members = []
        for channel in range(len(CHANNELS)):
            changed = x.index_copy(1, torch.tensor([channel]), x[:, [channel]].flip(0).square())
            members.append((self.backbone(changed) != before).any(0).nonzero().flatten())
        width = -(-max(map(len, members)) // 8) * 8  # heads of attention
        self.backbone.feature_shape = (len(CHANNELS), width)
        last = before.shape[1]  # a place that holds 0
        filled = [torch.cat([m, m.new_full((width - len(m),), last)]) for m in members]
        self.register_buffer("members", torch.cat(filled), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.pad(super().forward(x), (0, 1))[:, self.members]


def arm_config(arm: str, seed: int, output: Path, overrides: list[str]) -> DictConfig:
    """The arm's configuration on the common screen; its folder is named by a hash of everything in it."""
    given = [*ARMS[arm], *COMMON, f"output_dir={output}", f"data.folder={output}/data", f"seed={seed}", *overrides]
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("train", overrides=given)
    config.name = "clip_quality"
    digest = hashlib.sha256(OmegaConf.to_yaml(config, resolve=True).encode()).hexdigest()[:8]
    config.run_id = f"{list(ARMS).index(arm)}-{seed}-{digest}"
    config.folder = str(output / config.name / config.run_id)
    return config


def prepare(data: DictConfig) -> None:
    """The screen, its crops, their features and the split, as far as they are not there."""
    from morphoclip.profiling.features import standardise_by_plate, write_features
    from morphoclip.simulation import simulate_screen

    folder = Path(data.folder)
    if not (folder / "features").is_dir():
        with larger_catalogue(PER_GENE):  # in this process: others would not know the analogues
            simulate_screen(folder / "screen", instantiate(data.screen), workers=0)
        images = {k: v for k, v in OmegaConf.to_container(data, resolve=True).items() if k != "features"}
        prepare_data(OmegaConf.create(images | {"holdout": None}))
        crops = ShardDataset(folder / "dataset")
        if not (folder / "raw_features").is_dir():
            write_features(ChannelFeatures(), crops, folder / "raw_features")
        standardise_by_plate(folder / "raw_features", folder / "features")
    prepare_data(data)


def kept(path: Path, make) -> dict:
    """What `make()` gives, from `path` where it was made before."""
    if not path.is_file():
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as partial:
            partial.write_bytes(pickle.dumps(found))
    return pickle.loads(path.read_bytes())


def run(arm: str, seed: int, output: Path, overrides: list[str]) -> dict:
    """{'card', 'hits': name -> rows, 'parameters', 'cpu_s', 'steps'} of one arm, kept."""
    config = arm_config(arm, seed, output, overrides)
    return kept(Path(config.folder) / "scores.pickle", lambda: train_and_score(config))


def train_and_score(config: DictConfig) -> dict:
    prepare(config.data)
    Path(config.folder).mkdir(parents=True, exist_ok=True)
    config.data.loader.split = training_split(config.data, Path(config.folder))
    start = time.process_time()
    method, loader = fit(config)
    cpu_s = time.process_time() - start
    dataset = open_dataset(config, loader)
    encoders = {TRAINED: method.eval().export_encoder()}
    wells = write_profiles_of(encoders, image_dataset(dataset), dataset, Path(config.folder))[TRAINED]
    unseen, seen = unseen_and_seen(config, wells)
    controls = unseen_retrieval.controls_of(wells)
    found = unseen_retrieval.own_tower(method, OmegaConf.to_container(config.perturbation), unseen, wells)
    centred = [unseen_retrieval.centred(part, controls) for part in (unseen, seen)]
    found["nearest structure"] = unseen_retrieval.nearest_structure(*centred)
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    card = scored(config, wells)
    return {"card": card, "hits": found, "parameters": trained, "cpu_s": cpu_s, "steps": config.trainer.max_steps}


def references(output: Path, overrides: list[str]) -> dict:
    """Frozen features without training, and what knowing the gene would give; {'card', 'hits'}, kept."""
    config = arm_config("morphoclip", 0, output, overrides)
    return kept(output / config.name / "references.pickle", lambda: score_references(config))


def score_references(config: DictConfig) -> dict:
    from morphoclip.profiling import embed

    prepare(config.data)
    wells = embed(ClassicalFeatures(), open_dataset(config, instantiate(config.data.loader)))
    unseen, seen = unseen_and_seen(config, wells)
    controls = unseen_retrieval.controls_of(wells)
    spread = controls[schema.split_columns(wells)[1]].std()
    centred = [unseen_retrieval.centred(part, controls) for part in (unseen, seen)]
    for part in centred:
        part[spread.index] = part[spread.index] / spread
    truth = pd.read_csv(Path(config.data.folder) / "screen/truth/compounds.csv")
    acts_on = dict(zip(truth["broad_sample"], truth["true_targets"].str.split("|").str[0], strict=True))
    found = {
        "nearest structure": unseen_retrieval.nearest_structure(*centred),
        "gene": unseen_retrieval.known_gene(unseen, acts_on),
    }
    return {"card": scored(config, wells), "hits": found}


def scored(config: DictConfig, wells: pd.DataFrame) -> ScoreCard:
    """The score card of held-out wells."""
    roles = holdout_design(wells, holdout_of(config.data), ())
    return score_tables(config, {TRAINED: wells}, roles)[TRAINED].card


def unseen_and_seen(config: DictConfig, wells: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Wells of compounds never trained on, on the unseen batch; wells of compounds trained on, in training."""
    roles = holdout_design(wells, holdout_of(config.data), ()).wells
    unseen, seen = roles[design.SCORED].to_numpy(), roles[design.TRAINED].to_numpy()
    return unseen_retrieval.compounds_of(wells[unseen]), unseen_retrieval.compounds_of(wells[seen])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/clip_quality"))
    parser.add_argument("--arms", nargs="+", type=int, default=list(range(len(ARMS))), help=f"of {list(ARMS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the four recipes")
    parser.add_argument("--ablation-seeds", type=int, nargs="+", default=[0, 1, 2], help="of the ablations")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], help="key=value for all arms, e.g. data.screen.seed=1")
    given = parser.parse_args()
    output, found = given.output.resolve(), {}
    for arm in [list(ARMS)[i] for i in given.arms]:
        seeds = given.seeds if arm in RECIPES else given.ablation_seeds
        found[arm] = [run(arm, seed, output, given.set) for seed in seeds]
    table = rows(found, references(output, given.set))
    print(
        json.dumps({"machine": machine(), "rows": table}, indent=2) if given.json else f"{machine()}\n\n{show(table)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
