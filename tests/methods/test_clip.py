"""CLIP's own rules: prompts once a step, held-out conditions never, bags as sets, one space for crops and bags."""

import math

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from morphoclip import configs_dir
from tests.methods.tiny import ENCODER, PROMPTS, Gradients, bags, clip, loader, save_bert, trainer


def test_each_distinct_prompt_is_encoded_once_a_step():
    method = clip()
    rows = []
    method.conditions.towers[0].register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    trainer(2).fit(method, loader(bags()))
    assert rows == [3, 3]  # six bags, four conditions, three texts


def test_a_condition_without_a_prompt_never_enters_training():
    batch = bags()
    batch.condition[2] = PROMPTS.index(None)
    with pytest.raises(ValueError, match="without a prompt"):
        trainer(1).fit(clip(), loader(batch))


def test_the_tokenizer_knows_training_prompts_only():
    vocabulary = clip(prompts=[*PROMPTS[:4], None]).conditions.towers[0].tokenizer.get_vocab()
    assert clip(prompts=PROMPTS).conditions.towers[0].tokenizer.get_vocab() == vocabulary
    assert clip(prompts=[*PROMPTS[:4], "zzzz zzzz zzzz"]).conditions.towers[0].tokenizer.get_vocab() != vocabulary


def embed(method, batch):
    method.trainer = trainer(1)
    return method.pool(method.instances(batch, 0), batch.mask)


def test_order_and_padding_of_a_bag_do_not_change_its_embedding():
    method, batch = clip().eval(), bags()
    method.augmentation = type(method.augmentation)()
    expected = embed(method, batch)
    order = torch.tensor([2, 3, 0, 1])
    per_crop = {"images", "mask", "low", "high", "plate"}
    shuffled = type(batch)(**{k: v[:, order] if k in per_crop else v for k, v in vars(batch).items() if v is not None})
    torch.testing.assert_close(embed(method, shuffled), expected)
    batch.images[1, 3] = 999
    torch.testing.assert_close(embed(method, batch), expected)


def test_joint_export_puts_crops_where_bags_are_and_backbone_export_before_it():
    x = torch.rand(3, 5, 16, 16)
    joint, backbone = clip(image={"export": "joint"}), clip(image={"export": "backbone"})
    assert joint.export_encoder()(x).shape == (3, 8)
    assert backbone.export_encoder()(x).shape == (3, 16)
    assert backbone.export_encoder().config["name"] == "vit_demo"
    # A linear projection commutes with pooling: both train the same function.
    assert sum(p.numel() for p in joint.parameters()) == sum(p.numel() for p in backbone.parameters())


def test_the_image_term_sees_one_sub_bag_a_plate():
    method = clip()
    seen = []
    method.image_loss.register_forward_pre_hook(lambda m, args, kw: seen.append(kw["context"]), with_kwargs=True)
    trainer(1).fit(method, loader(bags()))
    kept = seen[0].perturbation >= 0
    pairs = list(zip(seen[0].perturbation[kept].tolist(), seen[0].plate[kept].tolist(), strict=True))
    assert pairs == [(p, plate) for p in (0, 1, 2, 0, 0, 2) for plate in (0, 1)]


def test_the_logit_scale_starts_at_its_temperature_and_stays_within_bounds():
    method = clip(temperature=0.07)
    assert method.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        method.logit_scale.fill_(9.0)
    trainer(1).fit(method, loader(bags()))
    assert method.logit_scale.item() == pytest.approx(math.log(100))


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        ("InfoNCELoss", {}),
        ("SigLIPLoss", {"temperature": 0.1, "logit_bias": -10.0}),
        ("CLOOBLoss", {"temperature": None}),
    ],
)
def test_losses_are_a_choice_and_leave_no_parameter_unused(loss, options):
    method = clip(loss={"_target_": f"morphoclip.losses.{loss}"}, **options)
    trainer(1, callbacks=[Gradients()]).fit(method, loader(bags()))  # which asserts that every gradient is there


def test_padding_has_no_say_in_batch_statistics():
    """In training the projection normalises over the batch: what padding holds must not reach it."""
    method, batch = clip().train(), bags()
    expected = embed(method, batch)
    batch.images[1, 3] = 999
    torch.testing.assert_close(embed(method, batch), expected)
    crops = method.instances(batch, 0)[batch.mask]
    torch.testing.assert_close(crops.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(crops.var(0, unbiased=False), torch.ones(8), atol=0.05, rtol=0)


def test_training_prompts_start_spread_over_the_joint_space():
    method = clip()
    method.eval()
    embedded = method.embed_prompts(torch.arange(len(method.conditions))).detach()
    torch.testing.assert_close(embedded.mean(0), torch.zeros(embedded.shape[1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(embedded.std(0, correction=0), torch.ones(embedded.shape[1]), atol=1e-3, rtol=0)


def test_the_config_trains_against_any_hugging_face_encoder(tmp_path):
    overrides = ["encoder=vit_demo", "text=huggingface", f"text.name_or_path={save_bert(tmp_path)}", "folder=run"]
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("train", overrides=overrides)
    method = instantiate(config.method, encoder=ENCODER, prompts=PROMPTS)
    assert type(method.conditions.towers[0].model).__name__ == "BertModel"
    before = {name: p.detach().clone() for name, p in method.conditions.towers[0].named_parameters()}
    trainer(1).fit(method, loader(bags()))
    assert all(torch.equal(p, before[name]) for name, p in method.conditions.towers[0].named_parameters())  # frozen
    assert method.conditions.projections[0].weight.grad.abs().sum() > 0


def test_a_learned_temperature_for_a_loss_that_ignores_it_is_refused():
    with pytest.raises(ValueError, match=r"CLOOBLoss.*temperature=null"):
        clip(loss={"_target_": "morphoclip.losses.CLOOBLoss"})
