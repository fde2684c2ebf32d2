"""What other trainers call our keys, for "did you mean": a hint, never an alias, since many mean something else there.

Sources: https://github.com/karpathy/nanoGPT, train.py and model.py; transformers' GPT2Config and TrainingArguments,
https://huggingface.co/docs/transformers; https://github.com/NVIDIA/Megatron-LM, arguments.py;
https://github.com/karpathy/nanochat, scripts/base_train.py; https://github.com/KellerJordan/modded-nanogpt.
"""
from typing import NamedTuple


class Hint(NamedTuple):
    """What to say about a key of another trainer.

    `keys` are our names for it: several where ours do its work together, none where we have no such key.  `note` says
    what else a user should know.
    """
    keys: tuple
    note: str = ""


def _table(*rows):
    """{a name elsewhere: its Hint} from rows of (names, our keys, note)."""
    return {name: Hint(tuple(keys.split()), note) for names, keys, note in rows for name in names.split()}


DROPOUTS = "embed_dropout attn_dropout res_dropout"
CHOSEN = "the program takes the GPUs that it sees, else the CPU; --tpu NAME takes a TPU"

# A note stands where the value there does not mean the same here.
HINTS = _table(
    # the network
    ("block_size context_length context_size ctx_len max_length max_position_embeddings max_seq_len max_seq_length"
     " max_sequence_length n_positions seq_len seq_length sequence_length", "n_ctx", ""),
    ("vocab_size vocabulary_size padded_vocab_size", "n_vocab",
     "left out, it is the size of the vocabulary"),
    ("d_model dim embed_dim embedding_dim emb_dim hidden_dim hidden_size model_dim width", "n_embd", ""),
    ("depth layers n_blocks n_layers num_blocks num_hidden_layers num_layers", "n_layer", ""),
    ("heads n_heads num_attention_heads num_heads", "n_head", ""),
    ("drop_rate dropout dropout_rate", DROPOUTS, "one number each"),
    ("emb_dropout embd_pdrop", "embed_dropout", ""),
    ("attention_dropout attn_pdrop", "attn_dropout", ""),
    ("hidden_dropout resid_dropout resid_pdrop residual_dropout", "res_dropout", ""),
    ("init_method_std init_std", "initializer_range", ""),
    ("bias", "", "the network has biases, as GPT-2's"),
    ("activation_function ffn_dim intermediate_size n_inner tie_word_embeddings", "", "it is as in GPT-2"),
    # precision, memory
    ("amp dtype torch_dtype", "precision", '"float32" or "bfloat16"'),
    ("bf16 fp16 half_precision mixed_precision", "precision", 'set it to "bfloat16"'),
    ("accumulate_grad_batches grad_accum grad_accum_steps gradient_accumulation_steps", "micro_batch_size",
     'sequences at once: "train_batch_size" divided by the steps of accumulation'),
    ("activation_checkpointing checkpoint_activations gradient_checkpointing recompute_granularity", "recompute",
     "true or false"),
    # the optimizer
    ("base_lr learning_rate max_learning_rate max_lr peak_lr", "lr", ""),
    ("min_learning_rate min_lr", "lr_min", 'a fraction of "lr"'),
    ("decay_lr lr_decay_style lr_scheduler lr_scheduler_type scheduler", "lr_schedule",
     '"cosine", "linear", "constant" or "wsd"; "warmup_stable_decay" is "wsd"'),
    ("cooldown_iters cooldown_steps lr_wsd_decay_iters lr_wsd_decay_steps num_decay_steps warmdown_iters"
     " warmdown_steps", "decay_steps", 'with "lr_schedule" "wsd"'),
    ("cooldown_frac cooldown_fraction decay_frac decay_ratio lr_decay_ratio warmdown_ratio", "decay_steps",
     'in steps, with "lr_schedule" "wsd"'),
    ("lr_wsd_decay_style", "decay_shape", '"linear" or "1-sqrt", which is "minus_sqrt" there'),
    ("num_stable_steps stable_steps", "decay_steps",
     'with "lr_schedule" "wsd", what "max_steps" leaves behind "warmup_steps" and the stable ones'),
    ("lr_decay_iters lr_decay_steps", "max_steps", '"lr" reaches its end there'),
    ("lr_warmup_iters lr_warmup_steps num_warmup_steps warmup warmup_iters", "warmup_steps", ""),
    ("warmup_ratio", "warmup_steps", "in steps"),
    ("optim optimizer", "opt_name", ""),
    ("adam_beta1", "beta1", ""),
    ("adam_beta2", "beta2", ""),
    ("betas", "beta1 beta2", "one number each"),
    ("adam_eps adam_epsilon eps", "epsilon", ""),
    ("wd weight_decay_rate", "weight_decay", ""),
    ("clip_grad clip_grad_norm grad_clip_norm grad_norm_clip gradient_clip_val max_grad_norm", "grad_clip", ""),
    # the run
    ("batch batch_size bs", "train_batch_size", "sequences a step, over all devices and micro-batches together"),
    ("global_batch_size", "train_batch_size", ""),
    ("per_device_train_batch_size", "train_batch_size", "over all devices and micro-batches together"),
    ("per_device_eval_batch_size", "eval_batch_size", ""),
    ("max_iters n_steps num_iterations num_steps num_train_steps steps total_steps train_iters", "max_steps", ""),
    ("epochs max_epochs num_epochs num_train_epochs", "max_steps", "in steps; --plan says how many epochs they are"),
    ("eval_every eval_freq eval_frequency eval_interval val_interval", "train_steps", "steps between evaluations"),
    ("eval_batches eval_iters limit_val_batches val_steps", "eval_steps", "batches an evaluation, -1 for all"),
    ("checkpoint_interval ckpt_interval save_every save_interval save_steps", "save_checkpoints_steps", ""),
    ("save_total_limit", "keep_checkpoint_max", ""),
    ("log_every log_interval logging_steps", "",
     "a line is printed every few seconds, and each 10th step goes to metrics.jsonl in \"model_dir\""),
    ("random_seed", "seed", ""),
    ("init_from load_checkpoint model_name_or_path pretrained pretrained_model_name_or_path", "init_checkpoint",
     "a folder or checkpoint; models.checkpoints imports others' weights"),
    ("resume resume_from resume_from_checkpoint", "", 'a run goes on by itself from what lies in "model_dir"'),
    ("eval_only", "", "give --eval"),
    ("accelerator backend device devices gpus n_gpu", "", CHOSEN),
    ("num_nodes world_size", "", "--strategy and TF_CONFIG tell of several hosts (docs/gpus-and-hosts.md)"),
    ("compile torch_compile xla", "", "the program compiles by itself what is worth it"),
    ("dataloader_num_workers num_workers", "", "the program reads data ahead by itself"),
    # data and output
    ("data data_dir data_folder dataset dataset_dir dataset_name dataset_path train_data_path", "data_path",
     "a folder of shards; datasets/create_tfrecords.py makes them from text"),
    ("train_data train_file train_path", "train_files", "shards"),
    ("eval_data eval_file val_data val_file val_files validation_file validation_files", "eval_files", "shards"),
    ("tokenizer tokenizer_name tokenizer_path vocab_file vocab_path", "encoder_path",
     "a folder with encoder.json and vocab.bpe"),
    ("checkpoint_dir ckpt_dir log_dir logdir out_dir output_dir run_dir save_dir", "model_dir", ""),
    ("report_to tensorboard wandb wandb_log wandb_project wandb_run_name", "",
     '"model_dir" holds metrics.jsonl, and what `tensorboard --logdir` reads'),
)


def hint(name):
    """What to say to someone who wrote the key `name`, one of HINTS."""
    found = HINTS[name]
    if not found.keys:
        return f"there is no such key here: {found.note}"
    named = ", ".join(f'"{key}"' for key in found.keys)
    return f"did you mean {named}" + (f" ({found.note})?" if found.note else "?")
