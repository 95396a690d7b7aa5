"""What a protocol chooses where the user does not."""

from __future__ import annotations

import hydra
import pytest

from morphoclip import configs_dir
from morphoclip.evaluation import Protocol
from morphoclip.experiment.tables import read_arm


def steps(words: list[str]) -> list[str]:
    with hydra.initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = hydra.compose("evaluate", words)
    protocol: Protocol = hydra.utils.instantiate(config.protocol)
    return [step.name for step in read_arm(config, protocol).normalizer.steps]


def test_the_protocols_normalisation_is_used_unless_another_is_named(make_screen, tmp_path):
    make_screen(0).to_csv(tmp_path / "screen.csv", index=False)
    profiles = f"profiles={tmp_path}/screen.csv"
    assert steps([profiles, "protocol=bbbc021"]) == ["drop_low_variance", "percentile_scale"]
    assert steps([profiles, "protocol=bbbc021", "normalize=mad"]) == ["mad_robustize"]
    assert steps([profiles]) == []


@pytest.mark.parametrize("name", ["bbbc021", "jump_orf", "rxrx3_core"])
def test_protocols_name_files_that_exist(name):
    from morphoclip.evaluation.card import published

    with hydra.initialize_config_dir(str(configs_dir()), version_base="1.3"):
        protocol: Protocol = hydra.utils.instantiate(hydra.compose("evaluate", [f"protocol={name}"]).protocol)
    assert (configs_dir() / "normalize" / f"{protocol.normalize}.yaml").is_file()
    folder = published.__file__.rpartition("/")[0]
    with open(f"{folder}/{protocol.published}") as file:
        assert file.readline().startswith("method,task,metric")
    assert "replicate" in protocol.tasks
