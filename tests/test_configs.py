"""Every choice a user can make composes, and every object a config names can be built."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import get_class, get_method
from omegaconf import DictConfig, ListConfig, OmegaConf

from morphoclip import configs_dir
from morphoclip.cli.hydra_app import PATHS, _as_meant

CONFIGS = configs_dir()
GROUPS = sorted(p for p in CONFIGS.iterdir() if p.is_dir() and p.name not in {"experiment"})
CHOICES = [(g.name, f.stem) for g in GROUPS for f in sorted(g.glob("*.yaml"))]
EXPERIMENTS = sorted(f.stem for f in (CONFIGS / "experiment").glob("*.yaml"))


def load(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(name, overrides=list(overrides))


def targets(node) -> list[str]:
    """Every `_target_` below a node."""
    if isinstance(node, DictConfig):
        children = [node._get_node(key) for key in node]
        own = [node["_target_"]] if "_target_" in node else []
        return own + [t for child in children for t in targets(child)]
    if isinstance(node, ListConfig):
        return [t for i in range(len(node)) for t in targets(node._get_node(i))]
    return []


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_recipes_compose_and_name_what_exists(experiment):
    config = load("train", f"experiment={experiment}", "folder=run")
    for target in targets(config):
        found = get_class(target) if target.rsplit(".", 1)[-1][0].isupper() else get_method(target)
        assert callable(found)
    assert config.name == experiment


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_file_names_what_exists(group, choice):
    config = OmegaConf.load(CONFIGS / group / f"{choice}.yaml")
    for target in targets(config):
        assert callable(get_class(target) if target.rsplit(".", 1)[-1][0].isupper() else get_method(target))


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
    config = load(
        script.removesuffix(".py"), *(_as_meant(o, PATHS.get(script.removesuffix(".py"), {})) for o in overrides)
    )
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
