"""Which fields of a configuration are without effect on the results, so that all others are read or refused by name.

A reader claims the fields that it reads (`JsonFile` remembers them). Those that are left must be bookkeeping, settings
of training, or set to a value that changes nothing.

    check_fields(source.config, model=source.name)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgellm.errors import UnsupportedModel
from edgellm.weights.convert.json_file import JsonFile

_WITHOUT_EFFECT = frozenset(
    {
        # names, files and versions
        "architectures", "model_type", "auto_map", "name_or_path", "transformers_version", "torch_dtype", "dtype",
        "unsloth_version", "unsloth_fixed", "tokenizer_class", "prefix", "task_specific_params", "problem_type",
        "finetuning_task", "id2label", "label2id", "num_labels",
        # special tokens, which the tokenizer's reader takes from here
        "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "mask_token_id",
        "unk_token_id", "decoder_start_token_id",
        # training
        "initializer_range", "initializer_factor", "initializer_std", "gradient_checkpointing", "label_smoothing",
        "router_aux_loss_coef", "output_router_logits",
        # how to compute, and what to return
        "use_cache", "use_flash_attn", "use_flash_attention_2", "attn_implementation", "torchscript", "return_dict",
        "output_attentions", "output_hidden_states", "output_scores", "return_dict_in_generate",
        "chunk_size_feed_forward", "pretraining_tp", "tie_encoder_decoder", "use_cache_quantization",
        "use_cache_kernel", "bf16", "fp16", "fp32", "onnx_safe", "softmax_in_fp32",
        # generation, in the files of old versions
        "max_length", "min_length", "max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "typical_p",
        "repetition_penalty", "length_penalty", "num_beams", "num_beam_groups", "num_return_sequences",
        "diversity_penalty", "early_stopping", "remove_invalid_values", "encoder_no_repeat_ngram_size",
        "no_repeat_ngram_size", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
        "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id",
    }
)  # fmt: skip
# An underscore begins what transformers keeps for itself.
_DROPOUT_OR_PRIVATE = re.compile(r"dropout|_pdrop$|_drop_prob|^_")
# Fields that change results, except with these values.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "is_causal": (True,),
    "scale_attn_weights": (True,),
    "scale_attention": (True,),
    "position_embedding_type": ("rope", "rotary", "absolute"),
    "activation": ("swiglu", "silu"),
    "normalization": ("rmsnorm",),
    "norm_type": ("rmsnorm", "rms_norm"),
    "logit_scale": (1,),
    "logits_scaling": (1,),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "scale_emb": (1,),
    "rotary_pct": (1,),
    "rotary_percent": (1,),
    "rope_ratio": (1,),
    "rope_interleaved": (False,),
    "full_attn_mod": (1,),
    "interpolate_factor": (1,),
    "num_experts": (0, 1),
    "num_local_experts": (0, 1),
    "extrapolation_factor": (1,),
    "attn_factor": (1,),
}
# Other names of fields that a reader claims: harmless as long as they agree.
_OTHER_NAMES = {
    "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "num_layers": "num_hidden_layers",
    "n_head": "num_attention_heads", "n_positions": "max_position_embeddings", "n_ctx": "max_position_embeddings",
    "max_sequence_length": "max_position_embeddings", "seq_length": "max_position_embeddings",
    "n_inner": "intermediate_size", "ffn_hidden_size": "intermediate_size", "hidden_activation": "hidden_act",
    "activation_function": "hidden_act", "layer_norm_eps": "rms_norm_eps", "layer_norm_epsilon": "rms_norm_eps",
    "norm_eps": "rms_norm_eps", "norm_epsilon": "rms_norm_eps", "rotary_emb_base": "rope_theta",
    "rope_base": "rope_theta", "rotary_base": "rope_theta", "num_kv_heads": "num_key_value_heads",
    "kv_channels": "head_dim",
}  # fmt: skip
_OFF: tuple[Any, ...] = (None, False, "", [], {})
_MOST_NAMED = 6


def check_fields(config: JsonFile, *, model: str) -> None:
    """Raise UnsupportedModel, with their names, if fields are set that nobody read and that may change results."""
    unknown = [
        f"{name}: {_shown(value)}" for name, value in config.unread().items() if not _is_harmless(name, value, config)
    ]
    if not unknown:
        return
    shown = ", ".join(unknown[:_MOST_NAMED]) + (
        f" and {len(unknown) - _MOST_NAMED} more" * (len(unknown) > _MOST_NAMED)
    )
    raise UnsupportedModel(
        f"{model} cannot be converted",
        why=f"{config.name} sets what a converted model would ignore: {shown}",
        hint=f"if it does not change the model's results, remove it from {config.name.partition(':')[0]}",
        fields=", ".join(text.partition(":")[0] for text in unknown),
    )


def _is_harmless(name: str, value: Any, config: JsonFile) -> bool:
    if name in _WITHOUT_EFFECT or _DROPOUT_OR_PRIVATE.search(name):
        return True
    if name in _NEUTRAL:
        return value in _NEUTRAL[name]
    same = _OTHER_NAMES.get(name)
    return value in _OFF or (same is not None and value == config.values.get(same))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
