"""Tests of the front over several servers."""
