"""CLIP on cached features: every loss, order and padding, S2L's and CWCL's contexts, and what is exported."""

import math

import pytest
import torch
import torch.nn.functional as F

from morphoclip.models import create_encoder
from tests.methods.tiny import FORMER, PROFILE_MLP, Gradients, clip, feature_bags, feature_clip, loader, trainer


@pytest.fixture(params=[FORMER, PROFILE_MLP], ids=lambda encoder: encoder["name"])
def encoder(request):
    return request.param


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        ("InfoNCELoss", {}),
        ("CWCLLoss", {}),
        ("SigLIPLoss", {"temperature": 0.1, "logit_bias": -10}),  # as a command line gives it
        ("S2LLoss", {"temperature": 0.1, "logit_bias": -1.0}),
        ("CLOOBLoss", {"temperature": None}),
    ],
)
def test_every_loss_trains_every_parameter(loss, options, encoder):
    gradients = Gradients()
    method = feature_clip(encoder=encoder, loss={"_target_": f"morphoclip.losses.{loss}"}, **options)
    trainer(3, callbacks=[gradients]).fit(method, loader(feature_bags()))
    assert not gradients.silent


def test_order_and_padding_of_a_bag_do_not_change_its_embedding(encoder):
    side, batch = feature_clip(encoder=encoder).eval().encoder, feature_bags()
    expected = side(side.preprocess(batch.features), batch.mask)
    order = torch.tensor([2, 3, 0, 1])
    shuffled = side(side.preprocess(batch.features[:, order]), batch.mask[:, order])
    torch.testing.assert_close(shuffled, expected)
    batch.features[1, 3] = torch.nan
    torch.testing.assert_close(side(side.preprocess(batch.features), batch.mask), expected)


def test_the_loss_gets_pooled_channels_and_frozen_distances():
    method, batch = feature_clip(), feature_bags()
    seen = []
    method.loss.register_forward_pre_hook(lambda m, args, kw: seen.append(kw["context"]), with_kwargs=True)
    trainer(1).fit(method, loader(batch))
    assert seen[0].image_profile.shape == (6, 2, 6)
    mean = torch.stack([bag[kept].mean(0) for bag, kept in zip(batch.features, batch.mask, strict=True)])
    torch.testing.assert_close(seen[0].image_frozen, F.normalize(mean.flatten(1), dim=1))


def test_a_duplicate_prompt_is_never_its_twins_negative():
    """Bags 0 and 4 say the same, and 2 and 5: where each bag lies on its prompt only the spread over twins costs."""
    method, batch = feature_clip(image_loss=None), feature_bags()
    seen = []
    method.loss.register_forward_pre_hook(lambda m, args, kw: seen.append((args[1], kw["context"])), with_kwargs=True)
    trainer(1).fit(method, loader(batch))
    ((other, context),) = seen
    ids, candidates = context.image_id.tolist(), context.other_id.tolist()
    assert ids[0] == ids[4]
    assert ids[2] == ids[5]
    assert len(set(ids)) == len(candidates) == len(other) == 4
    apart = torch.eye(4)
    loss = method.loss(apart[[candidates.index(i) for i in ids]], apart, 100.0, context=context)
    # Other→image: a prompt's target spreads evenly over its bags, two of them for two of the four prompts.
    assert loss.item() == pytest.approx((2 * math.log(2) / 4) / 2, abs=1e-5)


def test_the_encoder_is_rebuilt_from_its_config_and_weights(encoder):
    mean = torch.randn(2, 6).tolist()
    method = feature_clip(encoder=encoder | {"mean": mean, "std": 2.0, "clip": 3.0, "batch_norm": True})
    made = method.export_encoder()
    again = create_encoder(**made.config)
    again.load_state_dict(made.state_dict())
    batch = feature_bags()
    x = [side.eval()(side.preprocess(batch.features), batch.mask) for side in (made, again)]
    assert torch.equal(*x)
    assert made.embed_dim == method.hparams["embed_dim"] == x[0].shape[1]
    torch.testing.assert_close(made.mean, torch.tensor(mean))


def test_features_of_another_shape_are_named():
    with pytest.raises(ValueError, match=r"takes \(2, 6\) features, not \(2, 5\)"):
        feature_clip().encoder.preprocess(torch.zeros(1, 2, 5))
    with pytest.raises(ValueError, match=r"mean is \(3,\)"):
        create_encoder(**PROFILE_MLP, mean=[0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="'median': use one of"):
        create_encoder(**PROFILE_MLP, pool="median")


def test_losses_and_their_numbers_must_fit():
    cwcl, s2l = ({"_target_": f"morphoclip.losses.{name}"} for name in ("CWCLLoss", "S2LLoss"))
    with pytest.raises(ValueError, match=r"CWCLLoss takes no bias.*logit_bias=null"):
        feature_clip(loss=cwcl, logit_bias=-10.0)
    with pytest.raises(ValueError, match=r"CWCLLoss needs a logit scale"):
        feature_clip(loss=cwcl, temperature=None)
    with pytest.raises(ValueError, match=r"S2LLoss measures distances between frozen.*data=features"):
        clip(loss=s2l)


def test_plates_of_a_bag_are_embedded_apart(encoder):
    method, batch = feature_clip(encoder=encoder).eval(), feature_bags()
    x = method.encoder.preprocess(batch.features)
    plate = batch.plate
    sub_bags, is_first = method.pool.pool_groups(x, plate, batch.mask)
    for bag in range(6):
        for place in is_first[bag].nonzero().flatten().tolist():
            own = (plate[bag] == plate[bag, place]) & batch.mask[bag]
            torch.testing.assert_close(sub_bags[bag, place], method.pool(x[bag][own][None])[0])
