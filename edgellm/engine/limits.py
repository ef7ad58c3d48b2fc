"""Limits that are compiled into llama.cpp; beyond them it ends the process, so we refuse earlier.

if n_layers > MAX_LAYERS: raise CorruptFile(...)
"""

from __future__ import annotations

# LLAMA_MAX_LAYERS in src/llama-hparams.h.
MAX_LAYERS = 512
# LLAMA_MAX_EXPERTS, ibid.
MAX_EXPERTS = 1024
