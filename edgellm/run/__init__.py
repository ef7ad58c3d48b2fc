"""Running models: prompts, generation, conversations and the numbers that go with them."""
