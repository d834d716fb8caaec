"""Families of causal language models as tiny random ones: what itemic promises for each is proved in
tests/model/test_families.py.

Every number of a model is random, biases, norms, sinks and scales too, so that no 0 or 1 hides what is left out.
Windows are shorter than the texts of the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

WINDOW = 8
SPREAD = 0.2  # of matrices, so that probabilities differ clearly
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS = {"head_dim": 8}
MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
ROUTED = {"num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {  # keys and values from a few shared numbers
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 1,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
}
THETA = {"rope_theta": 10_000.0}


@dataclass(frozen=True)
class Family:
    """One kind of model.

    Attributes:
        name: as the table has it.
        kind: ``model_type``.
        keys: what its configuration has beside :data:`SHAPE`.
        models: examples on the hub.
        layers: what its layers do, in words.
        without: keys of :data:`SHAPE` that this kind has no room for.
        refused: a pattern of the reason for which itemic refuses it; empty where it doesn't.
    """

    name: str
    kind: str
    models: str
    layers: str = "full"
    keys: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    refused: str = ""

    def __str__(self) -> str:
        return self.name

    def model(self, vocabulary: int) -> PreTrainedModel:
        """The same one every time, float32, in eval mode."""
        shape = SHAPE | {"vocab_size": vocabulary} | dict(self.keys)
        config = AutoConfig.for_model(self.kind, **{k: v for k, v in shape.items() if k not in self.without})
        lm: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        lm.eval()
        random = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for weight in lm.parameters():
                noise = torch.randn(weight.shape, generator=random)
                if weight.ndim > 1:
                    weight.copy_(SPREAD * noise)
                else:
                    weight.add_(0.3 * noise)
            for name, buffer in lm.named_buffers():
                if name.endswith("correction_bias"):
                    buffer.add_(0.3 * torch.randn(buffer.shape, generator=random))
        return lm


def _rope(form: str, **numbers: float) -> dict[str, Any]:
    return {**HEADS, "rope_parameters": {"rope_type": form, **THETA, **numbers}}


FAMILIES = (
    Family("Qwen2", "qwen2", "Qwen/Qwen2.5-0.5B", keys={"tie_word_embeddings": True}),
    Family(
        "Qwen2, windowed",
        "qwen2",
        "Qwen/Qwen2-7B with `use_sliding_window`",
        "window, full",
        {"use_sliding_window": True, **MIXED},
    ),
    Family("Qwen3", "qwen3", "Qwen/Qwen3-0.6B", keys={**HEADS, "tie_word_embeddings": True}),
    Family("Qwen3-MoE", "qwen3_moe", "Qwen/Qwen3-30B-A3B", "full, experts", HEADS | EXPERTS),
    Family(
        "Qwen2-MoE",
        "qwen2_moe",
        "Qwen/Qwen1.5-MoE-A2.7B",
        "full, experts",
        EXPERTS | {"shared_expert_intermediate_size": 24},
    ),
    Family("Llama", "llama", "meta-llama/Llama-2-7b-hf", keys=HEADS),
    Family("Llama, rope linear", "llama", "lmsys/longchat-7b-v1.5-32k", keys=_rope("linear", factor=4.0)),
    Family(
        "Llama, rope dynamic", "llama", "a Llama with `rope_type: dynamic`", keys=_rope("dynamic", factor=4.0)
    ),
    Family(
        "Llama, rope yarn",
        "llama",
        "NousResearch/Yarn-Llama-2-7b-64k",
        keys=_rope("yarn", factor=4.0, original_max_position_embeddings=64),
    ),
    Family(
        "Llama 3.1",
        "llama",
        "meta-llama/Llama-3.2-1B",
        keys=_rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
    ),
    Family("Mistral", "mistral", "mistralai/Mistral-7B-v0.1", "window", {**HEADS, "sliding_window": WINDOW}),
    Family("Mistral, full", "mistral", "mistralai/Mistral-7B-v0.3", keys={**HEADS, "sliding_window": None}),
    Family("Ministral", "ministral", "mistralai/Ministral-8B-Instruct-2410", "window, full", HEADS | MIXED),
    Family(
        "Ministral 3",
        "ministral3",
        "mistralai/Ministral-3-3B-Instruct-2512 (text part)",
        "full, scaled queries",
        HEADS
        | {
            "rope_parameters": {
                "rope_type": "yarn",
                **THETA,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "llama_4_scaling_beta": 0.3,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
            },
            "max_position_embeddings": 64,
        },
    ),
    Family(
        "Mixtral", "mixtral", "mistralai/Mixtral-8x7B-v0.1", "full, experts", HEADS | {"num_local_experts": 4}
    ),
    Family("Gemma", "gemma", "google/gemma-2b", keys=HEADS),
    Family(
        "Gemma 2",
        "gemma2",
        "google/gemma-2-2b",
        "window, full; caps in attention and on logits",
        HEADS
        | MIXED
        | {"query_pre_attn_scalar": 12, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    Family(
        "Gemma 3",
        "gemma3_text",
        "google/gemma-3-1b-pt",
        "window, full",
        HEADS | MIXED | {"query_pre_attn_scalar": 12},
    ),
    Family(
        "Gemma 4",
        "gemma4_text",
        "google/gemma-4-31B (text part)",
        "window, full with other heads; capped logits",
        HEADS
        | MIXED
        | {
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 8,
            "global_head_dim": 16,
            "final_logit_softcapping": 3.0,
        },
    ),
    Family("Phi-3", "phi3", "microsoft/Phi-3-mini-4k-instruct", "window", {"sliding_window": WINDOW}),
    Family("Phi-4", "phi3", "microsoft/phi-4"),
    Family(
        "Phi-4-mini",
        "phi3",
        "microsoft/Phi-4-mini-instruct",
        "full, two sets of frequencies",
        {
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 128,
            "max_position_embeddings": 512,
            "rope_parameters": {
                "rope_type": "longrope",
                **THETA,
                "short_factor": [1.0, 1.2, 1.5],
                "long_factor": [1.0, 4.0, 8.0],
            },
        },
    ),
    Family("Phi", "phi", "microsoft/phi-2", keys={"partial_rotary_factor": 0.5}),
    Family(
        "SmolLM3",
        "smollm3",
        "HuggingFaceTB/SmolLM3-3B",
        "full, some without positions",
        {"no_rope_layers": [1, 0]},
    ),
    Family("OLMo", "olmo", "allenai/OLMo-1B-hf", keys={"clip_qkv": 0.5}),
    Family("OLMo 2", "olmo2", "allenai/OLMo-2-0425-1B"),
    Family("OLMo 3", "olmo3", "allenai/Olmo-3-1025-7B", "window, full", MIXED),
    Family(
        "OLMoE",
        "olmoe",
        "allenai/OLMoE-1B-7B-0924",
        "full, experts",
        {"num_experts": 4, "num_experts_per_tok": 2},
    ),
    Family(
        "Granite",
        "granite",
        "ibm-granite/granite-3.3-2b-base",
        "full, scaled throughout",
        {
            "embedding_multiplier": 3.0,
            "logits_scaling": 2.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.2,
        },
    ),
    Family(
        "Granite-MoE",
        "granitemoe",
        "ibm-granite/granite-3.0-1b-a400m-base",
        "full, experts, scaled throughout",
        {
            "num_local_experts": 4,
            "embedding_multiplier": 3.0,
            "logits_scaling": 2.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.2,
        },
    ),
    Family(
        "Cohere",
        "cohere",
        "CohereLabs/c4ai-command-r-v01",
        "full, scaled logits",
        {"logit_scale": 0.4, "use_qk_norm": True},
    ),
    Family(
        "Cohere 2",
        "cohere2",
        "CohereLabs/c4ai-command-r7b-12-2024",
        "window, full without positions; scaled logits",
        MIXED | {"logit_scale": 0.4},
    ),
    Family("StarCoder2", "starcoder2", "bigcode/starcoder2-3b", "window", {"sliding_window": WINDOW}),
    Family(
        "StableLM",
        "stablelm",
        "stabilityai/stablelm-2-1_6b",
        keys={"partial_rotary_factor": 0.5, "use_qkv_bias": True},
    ),
    Family("GLM", "glm", "zai-org/glm-edge-1.5b-chat", keys=HEADS),
    Family("GLM-4", "glm4", "zai-org/GLM-4-9B-0414", keys=HEADS),
    Family(
        "GLM-4.5",
        "glm4_moe",
        "zai-org/GLM-4.5-Air",
        "full, experts",
        HEADS
        | {
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "n_shared_experts": 1,
            "moe_intermediate_size": 24,
            "first_k_dense_replace": 1,
        },
    ),
    Family(
        "gpt-oss",
        "gpt_oss",
        "openai/gpt-oss-20b",
        "window, full; sinks; experts",
        HEADS
        | MIXED
        | {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "rope_parameters": {
                "rope_type": "yarn",
                **THETA,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
            },
        },
    ),
    Family(
        "BioGPT",
        "biogpt",
        "microsoft/biogpt",
        "full, learned positions; scaled embeddings",
        {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    ),
    Family(
        "AFMoE",
        "afmoe",
        "arcee-ai/Trinity-Mini",
        "window, full; experts",
        {**EXPERTS, **MIXED, "num_dense_layers": 1},
    ),
    Family(
        "OPT",
        "opt",
        "facebook/opt-125m",
        "full, learned positions",
        {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0},
    ),
    Family(
        "OPT, projected",
        "opt",
        "facebook/opt-350m",
        "full, learned positions; narrow embeddings",
        {"ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False, "dropout": 0.0},
    ),
    Family(
        "GPT-2",
        "gpt2",
        "openai-community/gpt2",
        "full, learned positions",
        {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    ),
    Family("GPT-NeoX", "gpt_neox", "EleutherAI/pythia-160m", keys={"rotary_pct": 0.5}),
    Family(
        "GPT-J",
        "gptj",
        "EleutherAI/gpt-j-6b",
        keys={"rotary_dim": 4, "n_positions": 256},
        refused="attention in code of its own",
    ),
    Family(
        "GPT-Neo",
        "gpt_neo",
        "EleutherAI/gpt-neo-125m",
        "window, full; learned positions",
        {
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": WINDOW,
            "embed_dropout": 0.0,
        },
        refused="attention in code of its own",
    ),
    Family(
        "GPT-BigCode",
        "gpt_bigcode",
        "bigcode/gpt_bigcode-santacoder",
        "full, learned positions",
        {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    ),
    Family(
        "Falcon",
        "falcon",
        "tiiuae/falcon-7b",
        without=("num_key_value_heads",),
        refused="attention in code of its own",
    ),
    Family(
        "Falcon, alibi",
        "falcon",
        "tiiuae/falcon-rw-1b",
        "full, slopes for positions",
        {"alibi": True, "bias": True},
        ("num_key_value_heads",),
        refused="attention in code of its own",
    ),
    Family(
        "BLOOM",
        "bloom",
        "bigscience/bloom-560m",
        "full, slopes for positions",
        refused="attention in code of its own",
    ),
    Family(
        "MPT",
        "mpt",
        "mosaicml/mpt-7b",
        "full, slopes for positions",
        {"d_model": 32, "n_heads": 4},
        refused="attention in code of its own",
    ),
    Family(
        "EXAONE 4",
        "exaone4",
        "LGAI-EXAONE/EXAONE-4.0-1.2B",
        "window, full without positions",
        HEADS | MIXED,
    ),
    Family("Nemotron", "nemotron", "nvidia/Minitron-4B-Base", keys=HEADS),
    Family("Seed-OSS", "seed_oss", "ByteDance-Seed/Seed-OSS-36B-Base", keys=HEADS),
    Family("ERNIE 4.5", "ernie4_5", "baidu/ERNIE-4.5-0.3B-PT", keys=HEADS),
    Family(
        "ERNIE 4.5 MoE",
        "ernie4_5_moe",
        "baidu/ERNIE-4.5-21B-A3B-PT",
        "full, experts",
        {"moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1, "moe_intermediate_size": 24},
    ),
    Family(
        "MiniMax-M2",
        "minimax_m2",
        "MiniMaxAI/MiniMax-M2",
        "full, experts",
        HEADS | ROUTED | {"rotary_dim": 4},
    ),
    Family("MiniCPM3", "minicpm3", "openbmb/MiniCPM3-4B", "full, latent", LATENT),
    Family("NanoChat", "nanochat", "karpathy/nanochat-d32", "full, capped logits", HEADS),
    Family("CWM", "cwm", "facebook/cwm", "window, full", HEADS | MIXED),
    Family(
        "VaultGemma",
        "vaultgemma",
        "google/vaultgemma-1b",
        "window, full; caps",
        HEADS | MIXED | {"query_pre_attn_scalar": 12, "attn_logit_softcapping": 2.0},
    ),
    Family(
        "Hunyuan-MoE",
        "hunyuan_v1_moe",
        "tencent/Hunyuan-A13B-Instruct",
        "full, experts",
        HEADS | {"num_experts": 4, "moe_topk": 2, "moe_intermediate_size": 24},
    ),
    Family("Hunyuan", "hunyuan_v1_dense", "tencent/Hunyuan-0.5B-Pretrain", keys=HEADS),
    Family(
        "Apertus",
        "apertus",
        "swiss-ai/Apertus-8B-2509",
        keys={"rope_parameters": {"rope_type": "default", **THETA}},
    ),
    Family("Arcee", "arcee", "arcee-ai/AFM-4.5B-Base", keys=HEADS),
    Family("Helium", "helium", "kyutai/helium-1-2b", keys=HEADS),
    Family("BitNet", "bitnet", "microsoft/bitnet-b1.58-2B-4T-bf16"),
    Family("Persimmon", "persimmon", "adept/persimmon-8b-base", keys={"partial_rotary_factor": 0.5}),
    Family(
        "DeepSeek-V2",
        "deepseek_v2",
        "deepseek-ai/DeepSeek-V2-Lite",
        "full, latent; experts",
        LATENT,
    ),
    Family("DeepSeek-V3", "deepseek_v3", "deepseek-ai/DeepSeek-V3", "full, latent; experts", LATENT),
    Family(
        "Llama 4",
        "llama4_text",
        "meta-llama/Llama-4-Scout-17B-16E (text part)",
        "chunks, full; experts",
        HEADS
        | {
            "num_local_experts": 2,
            "intermediate_size_mlp": 48,
            "attention_chunk_size": WINDOW,
            "layer_types": ["chunked_attention", "full_attention"],
            "no_rope_layers": [1, 0],
        },
        refused="chunk",
    ),
    Family(
        "Gemma 3n",
        "gemma3n_text",
        "google/gemma-3n-E2B (text part)",
        "window, full; a table for each layer",
        HEADS
        | {
            "num_hidden_layers": 4,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 4,
            "vocab_size_per_layer_input": 64,
            "intermediate_size": [48] * 4,
            "activation_sparsity_pattern": [0.0] * 4,
            "laurel_rank": 4,
        },
        refused="second table",
    ),
    Family("Phi-3.5-MoE", "phimoe", "microsoft/Phi-3.5-MoE-instruct", keys=ROUTED, refused="at random"),
    Family("DiffLlama", "diffllama", "kajuma/DiffLlama-0.3B-handcut", refused="twice in each layer"),
    Family("Mamba", "mamba", "state-spaces/mamba-130m-hf", "recurrent", {"state_size": 4}, refused="state"),
    Family(
        "LFM2",
        "lfm2",
        "LiquidAI/LFM2-350M",
        "convolutional, full",
        {"layer_types": ["conv", "full_attention"], "full_attn_idxs": None},
        refused="conv",
    ),
    Family(
        "Qwen3-Next",
        "qwen3_next",
        "Qwen/Qwen3-Next-80B-A3B-Instruct",
        "recurrent, full; experts",
        HEADS
        | EXPERTS
        | {
            "layer_types": ["linear_attention", "full_attention"],
            "shared_expert_intermediate_size": 24,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
        },
        refused="state",
    ),
    Family(
        "RecurrentGemma", "recurrent_gemma", "google/recurrentgemma-2b", "recurrent, window", refused="state"
    ),
    Family("RWKV", "rwkv", "RWKV/rwkv-4-169m-pile", "recurrent", refused="state"),
)
BY_NAME = {family.name: family for family in FAMILIES}
