"""The answer cache: which question is the same as an earlier one, how sure that is, and the file of answers."""
