"""OpenAI's requests and answers as data, without HTTP: what serve and batch have in common."""
