"""OpenOneRec's names: the keys of its data configuration and the flags of its training script."""

from __future__ import annotations

from typing import Any

LOADER = "chat_completion_parquet"
LAYERS = 3  # of OpenOneRec's semantic IDs; the codes of each follow from itemic_id_range
CODES = 8192
FRAME = 2  # <|sid_begin|> and <|sid_end|>
SCHEDULES = {
    "cosine": "cosine",
    "cosine_with_min_lr": "cosine",
    "linear": "linear",
    "constant": "constant",
    "constant_with_warmup": "constant",
}
# The training script's flags: a default, whose type is the value's, or a type where there is none.
FLAGS: dict[str, Any] = {
    "model_dir": str,
    "resume_from": str,
    "resume_from_tag": str,
    "resume_training_state": bool,
    "use_fp32_weight": bool,
    "use_fp32_reduce": bool,
    "reshard_after_forward": bool,
    "save_checkpoint_per_step": 1000,
    "output_dir": str,
    "model_class": "Qwen3ForCausalLM",
    "dataset_config": str,
    "max_length": int,
    "minibatch_size": 4096,
    "start_optimize_embedding_index": 0,
    "lr_scheduler_type": "cosine_with_min_lr",
    "num_warmup_steps": 0,
    "num_training_steps": 1000,
    "min_lr": 1e-6,
    "learning_rate": 2e-4,
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.95,
    "use_tie_weights": bool,
    "clip_range": float,
    "freeze_llm": bool,
    "enable_gradient_checkpointing": bool,
    "allow_random_init_params": str,
    "logging_per_step": 100,
    "seed": 123,
    "monitor_datasource_loss": bool,
    "monitor_datasource_cnt": bool,
    "use_chunked_loss_computer": bool,
    "enable_profiler": bool,
}
SWITCHES = frozenset(name for name, kind in FLAGS.items() if kind is bool)
# Flags that ask for what a run does anyway, or for what it has no use for.
SILENT = {
    "model_class": "the base model's config.json says what it is",
    "use_chunked_loss_computer": "the loss is computed in chunks in any case",
    "monitor_datasource_loss": "losses by source are logged in any case",
    "monitor_datasource_cnt": "counts by source are in training.json in any case",
    "use_fp32_weight": "weights are float32 while they learn in any case",
    "use_fp32_reduce": "gradients are float32 in any case",
    "enable_profiler": "no counterpart",
    "allow_random_init_params": "no counterpart: a base that lacks weights is refused",
    "resume_from": "a run goes on from its own last checkpoint when the same command is given again",
    "resume_from_tag": "as resume_from",
    "resume_training_state": "as resume_from; with the weights alone of a checkpoint begins `weights: …/step-…`",
}
DATA_KEYS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "sources": (str, list),
    "base_model_dir": str,
    "max_length": int,
    "num_epochs": int,
    "num_workers": int,
    "model_class": str,
    "itemic_id_range": list,
    "only_assistant_loss": bool,
    "local_shuffle_buffer_size": int,
    "add_think_pattern": bool,
}
