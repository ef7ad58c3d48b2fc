"""Answers from documents: the prompt, what bears each sentence, what is quoted in its place, and what is refused."""
