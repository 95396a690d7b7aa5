"""Text towers: padding, order, the tokenizer's home, and any Hugging Face model by path."""

import pytest
import torch

from morphoclip.models import HuggingFaceTextEncoder, SmallTextEncoder
from morphoclip.models.text import train_tokenizer, trim
from tests.methods.tiny import save_bert

PROMPTS = [
    "U2OS cells treated with compound: paracetamol, SMILES: CC(=O)Nc1ccc(O)cc1",
    "U2OS cells treated with compound: aspirin, SMILES: CC(=O)Oc1ccccc1C(=O)O",
    "A549 cells, orf, targeting genes: AURKB",
    "DMSO",
]


def small(**kw):
    torch.manual_seed(0)
    return SmallTextEncoder(PROMPTS, width=16, depth=1, heads=2, vocabulary_size=400, **kw).eval()


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(params=["small", "mean", "first", "pooler"])
def tower(request, hub_folder):
    if request.param == "small":
        return small()
    return HuggingFaceTextEncoder(hub_folder, pooling=request.param).eval()


def test_padding_and_other_rows_do_not_change_an_embedding(tower):
    tokens, mask = tower.tokenize(PROMPTS)
    together = tower(tokens, mask)
    assert together.shape == (4, tower.embed_dim)
    alone = torch.cat([tower(*tower.tokenize([prompt])) for prompt in PROMPTS])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(tower(*trim(tokens[2:], mask[2:])), together[2:], atol=1e-6, rtol=1e-5)


def test_every_trainable_parameter_gets_a_gradient(hub_folder):
    full = [HuggingFaceTextEncoder(hub_folder, training="full", pooling=p) for p in ("mean", "first", "pooler")]
    for tower in (small(), *full):
        tower(*tower.tokenize(PROMPTS)).square().sum().backward()
        assert all(p.grad is not None for p in tower.parameters())


def test_a_frozen_tower_neither_trains_nor_drops_out(hub_folder):
    tower = HuggingFaceTextEncoder(hub_folder, training="frozen").train()
    tokens = tower.tokenize(PROMPTS)
    first, second = tower(*tokens), tower(*tokens)
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not any(p.requires_grad for p in tower.parameters())


def test_tokenizer_depends_on_the_set_of_prompts_only_and_loses_nothing():
    tokenizer = train_tokenizer(PROMPTS, 400)
    assert tokenizer.to_str() == train_tokenizer(PROMPTS[::-1] + PROMPTS[:2], 400).to_str()
    for text in (*PROMPTS, "never seen: 5 µM Ωmega"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.get_vocab_size() <= 400


def test_state_dict_carries_the_tokenizer():
    tower = small()
    twin = SmallTextEncoder(["other words"], width=16, depth=1, heads=2, vocabulary_size=400).eval()
    twin.load_state_dict(tower.state_dict())
    torch.testing.assert_close(twin(*twin.tokenize(PROMPTS)), tower(*tower.tokenize(PROMPTS)), rtol=0, atol=0)


def test_long_prompts_are_cut():
    whole, _ = small().tokenize(PROMPTS)
    tokens, mask = small(max_length=5).tokenize(PROMPTS)
    assert torch.equal(tokens, whole[:, :5])
    assert torch.equal(mask, tokens != 0)


def test_wrong_choices_are_named():
    with pytest.raises(ValueError, match="no prompts"):
        train_tokenizer([], 400)
    with pytest.raises(ValueError, match="vocabulary_size=200"):
        train_tokenizer(PROMPTS, 200)


def test_lora_trains_low_rank_updates_and_starts_at_the_model_itself(hub_folder):
    pytest.importorskip("peft", reason="the peft extra is not installed")
    plain = HuggingFaceTextEncoder(hub_folder).eval()
    tower = HuggingFaceTextEncoder(hub_folder, training="lora", lora_rank=2).eval()
    torch.testing.assert_close(tower(*tower.tokenize(PROMPTS)), plain(*plain.tokenize(PROMPTS)))
    trained = {name: p for name, p in tower.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    # One block of width 8 and hidden 16: six linear layers, each with 2 × (inputs + outputs) numbers.
    assert sum(p.numel() for p in trained.values()) == 2 * (4 * (8 + 8) + 2 * (8 + 16))
    tower.train()(*tower.tokenize(PROMPTS)).square().sum().backward()
    assert all(p.grad is not None for p in trained.values())
    assert not tower.is_frozen


def test_an_unknown_way_of_training_is_named(hub_folder):
    with pytest.raises(ValueError, match="'half': use frozen, lora or full"):
        HuggingFaceTextEncoder(hub_folder, training="half")


def word_tokenizer(folder, **special):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*special.values(), "cells", "treated", "with", "DMSO", "compound"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_stored_in_low_precision_is_float32_and_trains_a_projection(hub_folder, dtype, tmp_path):
    import shutil

    from transformers import BertModel

    folder = shutil.copytree(hub_folder, tmp_path / "low")
    BertModel.from_pretrained(hub_folder).to(dtype).save_pretrained(folder)
    for tower in (HuggingFaceTextEncoder(folder, training="full"), HuggingFaceTextEncoder(folder, pretrained=False)):
        assert {p.dtype for p in tower.parameters()} == {torch.float32}
        projection = torch.nn.Linear(tower.embed_dim, 2)
        projection(tower(*tower.tokenize(PROMPTS))).sum().backward()


def test_gpt2_gets_a_padding_token_that_changes_nothing(tmp_path):
    from transformers import GPT2Config, GPT2Model

    special = {"unk_token": "[UNK]", "eos_token": "<|endoftext|>"}
    word_tokenizer(tmp_path, **special)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=7, n_embd=8, n_layer=1, n_head=2, n_positions=32)
    GPT2Model(config).save_pretrained(tmp_path)
    tower = HuggingFaceTextEncoder(tmp_path, max_length=32).eval()
    together = tower(*tower.tokenize(["cells treated with DMSO", "DMSO"]))
    alone = torch.cat([tower(*tower.tokenize([text])) for text in ("cells treated with DMSO", "DMSO")])
    torch.testing.assert_close(together, alone)
    with pytest.raises(ValueError, match=r"max_length=33, but .* has 32 positions: set text\.max_length=32"):
        HuggingFaceTextEncoder(tmp_path, max_length=33)


def test_of_an_encoder_decoder_the_encoder_is_used_and_rebuilt(tmp_path):
    from transformers import T5Config, T5Model

    word_tokenizer(tmp_path, unk_token="<unk>", pad_token="<pad>", eos_token="</s>")
    torch.manual_seed(0)
    config = T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    whole = T5Model(config).eval()
    whole.save_pretrained(tmp_path)
    tower = HuggingFaceTextEncoder(tmp_path, training="full").eval()
    tokens, mask = tower.tokenize(["cells treated with DMSO"])
    states = whole.get_encoder()(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(tower(tokens, mask), states.mean(1))
    tower.train()(tokens, mask).sum().backward()
    assert all(p.grad is not None for p in tower.parameters())  # none of a decoder
    tower.save_architecture(tmp_path / "saved")
    twin = HuggingFaceTextEncoder(tmp_path / "saved", pretrained=False).eval()
    twin.load_state_dict(tower.state_dict())
    torch.testing.assert_close(twin(tokens, mask), tower.eval()(tokens, mask))


def test_positions_behind_padding_are_not_counted(tmp_path):
    from transformers import RobertaConfig, RobertaModel

    word_tokenizer(tmp_path, unk_token="<unk>", pad_token="<pad>")
    config = RobertaConfig(
        vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=34, pad_token_id=1,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path)
    HuggingFaceTextEncoder(tmp_path, max_length=32)
    with pytest.raises(ValueError, match="has 32 positions"):
        HuggingFaceTextEncoder(tmp_path, max_length=33)


def test_a_folder_without_tokenizer_files_is_refused(hub_folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((hub_folder / name).read_bytes())
    with pytest.raises(
        ValueError, match="has no vocabulary, so that all texts would be alike: copy the tokenizer's files"
    ):
        HuggingFaceTextEncoder(tmp_path)
