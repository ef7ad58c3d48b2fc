"""Readers, writers and reference codecs of the model file formats: pure numpy, no engine."""
