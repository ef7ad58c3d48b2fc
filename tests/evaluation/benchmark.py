"""A benchmark of 200 questions in lm-eval's form, and a tiny model to answer them, for comparisons of two paths."""

import json
import random
from pathlib import Path
from typing import Any

from tests.weights import checkpoint_maker as make
from tests.weights import tokenizer_files
from tests.weights.numpy_models import Shape

N_ITEMS = 200
CHOICE = """
task: toy_choice
dataset_path: json
dataset_kwargs: {data_files: {train: DIR/train.jsonl, test: DIR/test.jsonl}}
training_split: train
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
TEXTS = """
task: toy_texts
dataset_path: json
dataset_kwargs: {data_files: {test: DIR/texts.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}]
"""
ANSWERS = """
task: toy_answers
dataset_path: json
dataset_kwargs: {data_files: {test: DIR/texts.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{text[:40]}}"
doc_to_target: "the cat"
generation_kwargs: {max_gen_toks: 6, temperature: 0, until: ["."]}
metric_list: [{metric: exact_match}]
"""
TASKS = {"toy_choice": CHOICE, "toy_texts": TEXTS, "toy_answers": ANSWERS}
SHOTS = 2
WORDS = [
    "the", "cat", "hat", "that", "12", "tin", "in", "then", "rat", "net", "ate", "tea", "ten", "can", "chat", "thin",
    "世界", "Köln",
]  # fmt: skip


def write_tasks(directory: Path) -> Path:
    """The tasks with their data."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = random.Random(5)

    def words(least: int, most: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(least, most)))

    def item() -> dict[str, Any]:
        # Choices of different lengths, some with a common beginning, so that acc and acc_norm differ.
        begin = words(1, 3)
        choices = [words(1, 2), words(3, 6), f"{begin} hat", f"{begin} in the net"]
        return {"question": words(3, 9), "choices": choices, "answer": rng.randrange(4)}

    rows = {"train": [item() for _ in range(8)], "test": [item() for _ in range(N_ITEMS)]}
    rows["texts"] = [{"text": words(20, 40)} for _ in range(5)] + [{"text": words(250, 260)}]
    for name, items in rows.items():
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in items), encoding="utf-8")
    for name, text in TASKS.items():
        (directory / f"{name}.yaml").write_text(text.replace("DIR", str(directory)), encoding="utf-8")
    return directory


def write_checkpoint(directory: Path) -> Path:
    """A Llama with random weights in the form of transformers, with a tokenizer that begins texts with BOS."""
    shape = Shape()
    weights = make.random_weights(shape, seed=0)
    weights["norm"] = weights["norm"] / 8  # so that no token is certain: the logits have a deviation of 2
    config = make.decoder_config("LlamaForCausalLM", shape, tie_word_embeddings=True)
    make.write(directory, config, make.plain_tensors(weights))
    tokenizer_files.write_byte_level(directory, tokenizer_files.DIGITS, tokenizer_files.GPT2_WORDS)
    begin, end = tokenizer_files.SPECIAL
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    first, last = (each["id"] for each in tokenizer["added_tokens"])
    # What the tokenizers library wants besides.
    tokenizer |= {"version": "1.0", "truncation": None, "padding": None, "normalizer": None}
    tokenizer["added_tokens"] = [each | {"single_word": False} for each in tokenizer["added_tokens"]]
    text = {"Sequence": {"id": "A", "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": begin, "type_id": 0}}, text],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {begin: {"id": begin, "ids": [first], "tokens": [begin]}},
    }
    tokenizer["decoder"] = tokenizer_files.GPT2_WORDS
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    config |= {"model_type": "llama", "dtype": "float32", "bos_token_id": first, "eos_token_id": last}
    (directory / "config.json").write_text(json.dumps(config))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": begin, "eos_token": end}
    names["chat_template"] = tokenizer_files.TEMPLATE
    (directory / "tokenizer_config.json").write_text(json.dumps(names))
    return directory
