"""Every choice a user can make composes, and every object a config names can be built."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import get_class, get_method, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from morphoclip import configs_dir
from morphoclip.cli.hydra_app import as_typed
from morphoclip.models import create_encoder
from morphoclip.models.per_channel import PerChannel
from morphoclip.profiling import Normalizer

CONFIGS = configs_dir()
GROUPS = sorted(p for p in CONFIGS.iterdir() if p.is_dir() and p.name not in {"experiment"})
CHOICES = [(g.name, f.stem) for g in GROUPS for f in sorted(g.glob("*.yaml"))]
EXPERIMENTS = sorted(f.stem for f in (CONFIGS / "experiment").glob("*.yaml"))


def load(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(name, overrides=list(overrides))


# What code adds to a config's keywords when it builds the object.
GIVEN_BY_CODE = {
    "morphoclip.methods.clip.CLIP": {"prompts", "modalities", "doses"},
    "morphoclip.losses.CWCLLoss": set(),
}


def nodes(node, at: str = "") -> list[tuple[str, DictConfig]]:
    """(where, node) of every node with a `_target_`, below and including a node."""
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        own = [(at, node)] if "_target_" in node else []
        children = [(key, node._get_node(key)) for key in node]
        return own + [found for key, child in children for found in nodes(child, f"{at}.{key}".strip("."))]
    if isinstance(node, ListConfig) and not node._is_none() and not node._is_missing():
        return [found for i in range(len(node)) for found in nodes(node._get_node(i), f"{at}[{i}]")]
    return []


def signature_of(found) -> inspect.Signature:
    """The signature of a function or class; if a class of ours passes `**options` on, with the arguments of its bases."""
    if not inspect.isclass(found) or not found.__module__.startswith("morphoclip"):
        return inspect.signature(found)
    known: dict[str, inspect.Parameter] = {}
    for cls in inspect.getmro(found):
        if "__init__" in vars(cls):
            own = dict(inspect.signature(cls).parameters)
            rest = [name for name, p in own.items() if p.kind is p.VAR_KEYWORD]
            known |= {name: p for name, p in own.items() if name not in known and name not in rest}
            if not rest:
                break
    return inspect.Signature([p.replace(kind=p.KEYWORD_ONLY) for p in known.values() if p.kind is not p.VAR_POSITIONAL])


def check_keywords(where: str, node: DictConfig) -> None:
    """Assert that what a node names exists and takes the node's keywords, all of those it needs where none is missing."""
    target = node["_target_"]
    found = get_class(target) if target.rsplit(".", 1)[-1][0].isupper() else get_method(target)
    keywords = {key for key in node if not key.startswith("_")} | GIVEN_BY_CODE.get(target, set())
    try:
        signature_of(found).bind_partial(**dict.fromkeys(keywords))
    except TypeError as error:
        raise AssertionError(f"{where}: {target}: {error}") from error


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_recipes_compose_and_give_what_is_taken(experiment):
    config = load("train", f"experiment={experiment}", "folder=run")
    for where, node in nodes(config):
        check_keywords(where, node)
        if not node.get("_partial_") and where in ("method", "trainer", "protocol", "normalize"):
            signature = signature_of(get_class(node["_target_"]))
            given = {key for key in node if not key.startswith("_")} | GIVEN_BY_CODE.get(node["_target_"], set())
            signature.bind(**dict.fromkeys(given))  # nothing that is needed is left out
    assert config.name == experiment


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_file_gives_what_is_taken(group, choice):
    for where, node in nodes(OmegaConf.load(CONFIGS / group / f"{choice}.yaml")):
        check_keywords(f"{group}/{choice}.yaml {where}", node)


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONFIGS / "encoder").glob("*.yaml")))
def test_every_encoder_takes_its_keywords(name):
    """Encoders are built by name; large ones and those around a hub's weights are bound instead."""
    settings = OmegaConf.to_container(OmegaConf.load(CONFIGS / "encoder" / f"{name}.yaml"))
    if settings["name"] == "per_channel":
        options = {
            "channels",
            "pretrained",
            "weights",
            "image_size",
            "name",
            "in_channels",
            "mean",
            "std",
            "projection",
        }
        inspect.signature(PerChannel).bind_partial(**dict.fromkeys(set(settings) - options))
        return
    if settings["name"] == "???":
        settings["name"] = "resnet18"
    if settings.get("feature_dim", 0) is None:
        settings["feature_dim"] = 8
    assert create_encoder(**settings).embed_dim > 0


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONFIGS / "protocol").glob("*.yaml")))
def test_every_protocol_and_normalisation_can_be_built(name):
    assert instantiate(OmegaConf.load(CONFIGS / "protocol" / f"{name}.yaml")).name == name
    for path in (CONFIGS / "normalize").glob("*.yaml"):
        assert isinstance(instantiate(OmegaConf.load(path)), Normalizer)


def test_a_keyword_that_nothing_takes_is_found():
    node = OmegaConf.create({"_target_": "morphoclip.losses.NTXentLoss", "temprature": 0.1})
    with pytest.raises(AssertionError, match="temprature"):
        check_keywords("loss", node)


def documented_commands() -> list[str]:
    """Every `uv run train.py …` and `uv run evaluate.py …` of README and docs, comments and continuations folded."""
    root = Path(__file__).parents[1]
    commands = []
    for page in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        text = page.read_text().replace("\\\n", " ")
        commands += re.findall(
            r"^\s*(?:pip install uv && )?uv run ((?:train|evaluate)\.py[^\n#`]*)", text, re.MULTILINE
        )
    return commands


@pytest.mark.parametrize("command", documented_commands())
def test_documented_commands_compose(command):
    script, *overrides = [word for word in shlex.split(command) if word != "-m" and "…" not in word]
    name = script.removesuffix(".py")
    config = load(name, *as_typed(name, overrides, [CONFIGS]))
    if script == "train.py":
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def test_evaluate_composes():
    assert load("evaluate", "protocol=cpjump1", "normalize=kim2025").protocol.name == "cpjump1"


def test_an_unknown_key_is_refused_with_its_name():
    with pytest.raises(ConfigCompositionException, match="learning_rate"):
        load("train", "learning_rate=1")


def test_an_unknown_choice_lists_the_known_ones():
    with pytest.raises(ConfigCompositionException, match="simclr"):
        load("train", "method=simclear")


def test_configs_travel_in_the_wheel():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert 'configs = "morphoclip/configs"' in text
