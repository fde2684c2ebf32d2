"""What other trainers call our keys: each name leads to the right key, and to one that exists."""
import pytest

from configs import other_trainers, schema
from configs.errors import UserError

# What people bring along, and the keys here that do the same.
MEANT = {
    "learning_rate": "lr", "batch_size": "train_batch_size", "per_device_train_batch_size": "train_batch_size",
    "block_size": "n_ctx", "n_positions": "n_ctx", "max_seq_len": "n_ctx", "context_length": "n_ctx",
    "vocab_size": "n_vocab", "hidden_size": "n_embd", "d_model": "n_embd", "num_hidden_layers": "n_layer",
    "num_layers": "n_layer", "n_layers": "n_layer", "num_attention_heads": "n_head", "num_heads": "n_head",
    "max_iters": "max_steps", "num_train_epochs": "max_steps", "eval_interval": "train_steps",
    "eval_iters": "eval_steps", "gradient_accumulation_steps": "micro_batch_size",
    "gradient_checkpointing": "recompute", "dtype": "precision", "bf16": "precision", "fp16": "precision",
    "min_lr": "lr_min", "warmup_iters": "warmup_steps", "lr_decay_iters": "max_steps", "decay_lr": "lr_schedule",
    "lr_scheduler_type": "lr_schedule", "num_decay_steps": "decay_steps", "warmdown_ratio": "decay_steps",
    "lr_wsd_decay_iters": "decay_steps", "lr_wsd_decay_style": "decay_shape",
    "optimizer": "opt_name", "adam_beta1": "beta1", "adam_epsilon": "epsilon", "max_grad_norm": "grad_clip",
    "out_dir": "model_dir", "output_dir": "model_dir", "dataset": "data_path", "tokenizer": "encoder_path",
    "init_from": "init_checkpoint",
    "save_steps": "save_checkpoints_steps", "save_total_limit": "keep_checkpoint_max", "random_seed": "seed",
    "embd_pdrop": "embed_dropout", "attn_pdrop": "attn_dropout", "resid_pdrop": "res_dropout"}


def said(key, value=1):
    with pytest.raises(UserError) as caught:
        schema.from_dict({"model_dir": "runs/a", key: value}, "mine.json")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("key, ours", MEANT.items())
def test_did_you_mean_names_the_right_key(key, ours):
    assert said(key).startswith(f'mine.json: unknown key "{key}"; did you mean "{ours}"')
    assert f'did you mean "{ours}"' in said(key.upper().replace("_", "-"))


def test_every_hint_leads_to_keys_that_exist_or_says_why_there_is_none():
    for name, hint in other_trainers.HINTS.items():
        assert set(hint.keys) <= set(schema.FIELDS) and (hint.keys or hint.note), name
        assert name not in schema.FIELDS and other_trainers.hint(name) in said(name)


def test_values_that_mean_something_else_there_are_explained():
    assert said("dropout").endswith('did you mean "embed_dropout", "attn_dropout", "res_dropout" (one number each)?')
    assert said("gradient_accumulation_steps").endswith(
        '(sequences at once: "train_batch_size" divided by the steps of accumulation)?')
    assert said("min_lr").endswith('did you mean "lr_min" (a fraction of "lr")?')
    assert said("warmdown_ratio").endswith('did you mean "decay_steps" (in steps, with "lr_schedule" "wsd")?')
    assert said("device").endswith("there is no such key here: the program takes the GPUs that it sees, else the CPU;"
                                   " --tpu NAME takes a TPU")


def test_a_slip_of_the_pen_in_such_a_key_is_understood_too():
    assert 'did you mean "lr"?' in said("learning_rat") and 'did you mean "max_steps"' in said("maxiters")
    assert 'did you mean "n_layer"?' in said("n_layr")  # and one in ours is no other trainer's


def test_the_same_is_said_after_set(tmp_path):
    (tmp_path / "mine.json").write_text('{"model_dir": "runs/a"}')
    with pytest.raises(UserError, match='--set block_size=256: unknown key "block_size"; did you mean "n_ctx"?'):
        schema.load(str(tmp_path / "mine.json"), ["block_size=256"])
