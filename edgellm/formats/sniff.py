"""Guesses from its first bytes what a file is, when it is not in the expected format.

looks_like(b"<!DOCTYPE html>...")  # "an HTML page (a failed or gated download?)"
"""

from __future__ import annotations

_SIGNATURES = (
    (b"GGUF", "a GGUF model"),
    (b"version https://git-lfs", "a Git LFS pointer: the real file was not downloaded (`git lfs pull`)"),
    (b"PK\x03\x04", "a zip archive (perhaps a PyTorch checkpoint)"),
    (b"\x80\x02", "a Python pickle (perhaps a PyTorch checkpoint)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"lmgg", "a GGML model from before GGUF: convert it from its original checkpoint"),
    (b"fmgg", "a GGMF model from before GGUF: convert it from its original checkpoint"),
    (b"tjgg", "a GGJT model from before GGUF: convert it from its original checkpoint"),
)
_TEXT_SIGNATURES = (
    (b"<!doctype", "an HTML page (a failed or gated download?)"),
    (b"<html", "an HTML page (a failed or gated download?)"),
    (b"<?xml", "an XML document (a failed download?)"),
    (b"{", "JSON text (an error message from a server?)"),
)
SNIFF_BYTES = 64


def looks_like(start: bytes) -> str:
    """Describe what a file with these first bytes seems to be; `SNIFF_BYTES` of them are enough."""
    if not start:
        return "empty"
    if not start.strip(b"\0"):
        return "zero bytes only (an unfinished download?)"
    for signature, meaning in _SIGNATURES:
        if start.startswith(signature):
            return meaning
    # A safetensors file starts with 8 bytes for the length of its JSON header, then the header.
    if start[8:10] == b'{"' or (start[8:9] == b"{" and start[7:8] == b"\0"):
        return "a safetensors checkpoint"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, meaning in _TEXT_SIGNATURES:
        if text.startswith(signature):
            return meaning
    return f"unknown data starting with {start[:8]!r}"
