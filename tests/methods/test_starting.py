"""Methods that start from given weights: what is loaded is the source's, into student and teacher; less is an error."""

from __future__ import annotations

import pytest
import torch

from morphoclip.methods.starting import start_from
from morphoclip.models import create_encoder
from morphoclip.profiling import export_encoder
from tests.methods import tiny

VIT = tiny.TWO_SIZES


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders with checkpoints after two steps: DINO, CLIP on crops, CLIP on features."""
    folder = tmp_path_factory.mktemp("runs")
    for name, method in (("dino", tiny.dino()), ("clip", tiny.clip(encoder=VIT)), ("features", tiny.feature_clip())):
        run = tiny.trainer(2)
        run.fit(method, tiny.loader(tiny.feature_bags() if name == "features" else tiny.batch_of(name)))
        run.save_checkpoint(folder / name / "checkpoints" / "last.ckpt")
        export_encoder(method, folder / name / "encoder")
    return folder


def states(folder, name):
    return torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def below(state, prefix):
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def same(module, expected) -> bool:
    own = module.state_dict()
    return own.keys() == expected.keys() and all(torch.equal(own[name], expected[name]) for name in own)


@pytest.mark.parametrize("source", ["dino", "dino/checkpoints/last.ckpt", "dino/encoder"])
def test_image_text_training_starts_from_the_teacher_of_dino(runs, source):
    method = tiny.clip(encoder=VIT)
    projection = {name: value.clone() for name, value in method.encoder.projection.state_dict().items()}
    lines, facts = start_from(method, str(runs / source))
    assert same(method.encoder.backbone, below(states(runs, "dino"), "teacher_encoder.module.backbone."))
    assert same(method.encoder.projection, projection)
    assert lines[0].startswith("init        loaded encoder (")
    assert str(runs / "dino") in lines[0]
    assert lines[1:] == ["init        changed: nothing", "init        not loaded: nothing"]
    assert facts["log"] == lines
    assert facts["trained_on"]["method"] == "DINO"


def test_the_student_on_request(runs):
    method = tiny.simclr(encoder=VIT)
    start_from(method, str(runs / "dino"), network="student")
    student = below(states(runs, "dino"), "encoder.backbone.")
    assert same(method.encoder.backbone, student)
    assert not same(method.encoder.backbone, below(states(runs, "dino"), "teacher_encoder.module.backbone."))
    with pytest.raises(ValueError, match=r"init\.network='pupil': give teacher or student"):
        start_from(method, str(runs / "dino"), network="pupil")


@pytest.mark.parametrize("name", ["dino", "cwa_msn"])
def test_student_and_teacher_start_from_the_same_weights(runs, name):
    method = tiny.METHODS[name]()
    lines, _ = start_from(method, str(runs / "clip"))
    expected = below(states(runs, "clip"), "encoder.backbone.")
    assert same(method.encoder.backbone, expected)
    assert same(method.teacher_encoder.module.backbone, expected)
    assert not any(p.requires_grad for p in method.teacher_encoder.parameters())
    assert "(student and teacher)" in lines[0]
    assert (
        lines[2]
        == "init        not loaded: projection (init.parts does not name it); pool (init.parts does not name it)"
    )


@pytest.mark.parametrize("source", ["clip", "clip/encoder"])
def test_projection_and_pool_are_taken_on_request(runs, source):
    method = tiny.clip(encoder=VIT)
    start_from(method, str(runs / source), ["encoder", "projection", "pool"])
    state = states(runs, "clip")
    assert same(method.encoder, below(state, "encoder."))
    assert same(method.image.pool, below(state, "image.pool."))
    only = tiny.clip(encoder=VIT, seed=1)
    backbone = {name: value.clone() for name, value in only.encoder.backbone.state_dict().items()}
    start_from(only, str(runs / source), ["pool"])
    assert same(only.encoder.backbone, backbone)
    assert same(only.image.pool, below(state, "image.pool."))


def test_a_projection_goes_to_where_the_method_has_it(runs):
    method = tiny.clip(encoder=VIT, image={"pool_hidden": 4, "export": "backbone"})
    start_from(method, str(runs / "clip"), ["encoder", "projection"])
    assert same(method.image.projection, below(states(runs, "clip"), "encoder.projection."))


@pytest.mark.parametrize("source", ["features", "features/encoder"])
def test_encoders_of_features_start_from_each_other_and_keep_the_statistics_of_their_data(runs, source):
    method = tiny.feature_clip(encoder=tiny.FORMER | {"mean": 3.0})
    start_from(method, str(runs / source), ["encoder", "pool"])
    state = states(runs, "features")
    assert same(method.encoder.body, below(state, "encoder.body."))
    assert same(method.encoder.pool, below(state, "encoder.pool."))
    assert torch.equal(method.encoder.mean, torch.full((2, 6), 3.0))


@pytest.mark.parametrize("source", ["features", "features/encoder"])
def test_towers_are_taken_and_their_texts_read_by_their_own_tokenizer(runs, source):
    method = tiny.feature_clip(prompts=["CCO", "c1ccccc1", "loss of TP53", "gain of MYC", None])
    given = str(runs / source)
    lines, facts = start_from(method, None, text=given, molecule=given)
    state = states(runs, "features")
    conditions = method.conditions
    assert same(conditions.towers[0], below(state, "conditions.towers.0."))
    text = below(state, "conditions.towers.1.")
    assert conditions.towers[1].tokenizer.to_str() == text.pop("_extra_state")
    assert all(torch.equal(conditions.towers[1].state_dict()[name], value) for name, value in text.items())
    tokens = conditions.towers[1].tokenize(conditions.texts(1))
    assert all(torch.equal(one, other) for one, other in zip(conditions.tokens[1], tokens, strict=True))
    assert [line.partition(" from ")[0] for line in lines] == [
        "init        loaded text tower (SmallTextEncoder, 16 tensors)",
        "init        loaded molecule tower (MorganEncoder, 6 tensors)",
    ]
    assert facts["text"] == given
    again = tiny.feature_clip(prompts=["CCO", "c1ccccc1", "loss of TP53", "gain of MYC", None])
    start_from(again, given, ["encoder", "pool"], text=given)  # all parts but the projection of the tower
    assert not same(again.conditions.projections[1], below(state, "conditions.projections.1."))


def test_a_file_of_timms_weights_and_one_of_hugging_face(tmp_path):
    rgb = create_encoder(**tiny.LINEAR_VIT, in_channels=3, channels=["R", "G", "B"])
    torch.save(rgb.backbone.state_dict(), tmp_path / "rgb.pth")
    for given in (str(tmp_path / "rgb.pth"), f"timm:{tmp_path / 'rgb.pth'}"):
        method = tiny.mae()
        lines, _ = start_from(method, given)
        kernel = method.encoder.backbone.patch_embed.proj.weight
        torch.testing.assert_close(kernel, rgb.backbone.patch_embed.proj.weight[:, [0, 1, 2, 0, 1]] * 3 / 5)
        assert lines[1] == "init        changed: RGB kernels repeated over 5 channels and scaled by 3/5"


def test_named_channels_of_a_file_are_matched(tmp_path):
    six = ["BF", "Mito", "AGP", "RNA", "ER", "DNA"]
    given = create_encoder(**VIT, in_channels=6, channels=six)
    torch.save(given.backbone.state_dict(), tmp_path / "six.pth")
    method = tiny.simclr(encoder=VIT)
    with pytest.raises(ValueError, match=r"name those of the weights by init\.channels"):
        start_from(method, str(tmp_path / "six.pth"))
    lines, _ = start_from(method, str(tmp_path / "six.pth"), channels=six)
    kernel, whole = (e.backbone.patch_embed.layers[0].weight for e in (method.encoder, given))
    assert torch.equal(kernel, whole[:, [5, 4, 3, 2, 1]])
    assert lines[1].endswith("BF dropped")


def test_less_than_asked_for_is_an_error(runs, tmp_path):
    torch.save({"state_dict": {"a.b": torch.ones(2)}}, tmp_path / "other.ckpt")
    (tmp_path / "empty").mkdir()
    deeper = VIT | {"depth": 2}
    for method, given, options, said in [
        (tiny.simclr(encoder=VIT), runs / "clip", {"parts": ["projection"]}, "projection, which this method with vit_demo does not have"),
        (tiny.clip(encoder=VIT), runs / "dino", {"parts": ["encoder", "projection"]}, "names projection, which teacher of .* does not hold: it has encoder"),
        (tiny.simclr(encoder=VIT), runs / "dino", {"parts": ["backbone"]}, r"init\.parts=\['backbone'\]: give some of encoder, projection, pool"),
        (tiny.simclr(encoder=deeper), runs / "dino", {}, r"12 of 37 weights are not there \(blocks.1.norm1.weight"),
        (tiny.simclr(encoder=VIT), tmp_path / "other.ckpt", {}, r"none of its 25 weights .* is there; there is state_dict\.a\.b"),
        (tiny.simclr(encoder=VIT), tmp_path / "empty", {}, "holds neither config.json"),
        (tiny.simclr(encoder=VIT), tmp_path / "nowhere", {}, "no encoder folder, checkpoint or run folder at"),
        (tiny.simclr(encoder=VIT), "timm:vit_smal", {}, "timm:vit_smal is neither a file nor a name"),
        (tiny.simclr(encoder=VIT), f"hf:{tmp_path / 'empty'}", {}, "it has no model.safetensors"),
        (tiny.simclr(encoder=VIT), None, {"text": str(runs / "clip")}, "SimCLR has no text tower"),
        (tiny.clip(encoder=VIT), None, {"molecule": str(runs / "features")}, "this method has no molecule tower"),
        (tiny.clip(encoder=VIT), None, {"text": str(runs / "dino")}, "has no towers of texts"),
        (tiny.clip(encoder=VIT, text=tiny.TEXT | {"width": 16}), None, {"text": str(runs / "clip")}, "has another size"),
    ]:  # fmt: skip
        with pytest.raises((ValueError, FileNotFoundError), match=said) as error:
            start_from(method, given if given is None else str(given), **options)
        assert "\n" not in str(error.value)


def test_a_method_that_starts_from_weights_trains(runs):
    method = tiny.clip(encoder=VIT)
    start_from(method, str(runs / "dino"))
    gradients = tiny.Gradients()
    tiny.trainer(2, callbacks=[gradients]).fit(method, tiny.loader(tiny.bags()))
    assert not gradients.silent
