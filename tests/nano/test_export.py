"""The exporter: what llama.cpp reads back is the model and the tokenizer that were trained."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("tokenizers", exc_type=ImportError)

import gguf  # noqa: E402
import llama_cpp  # noqa: E402

from drift_edge.models.nano import convert, export, model  # noqa: E402
from drift_edge.models.nano.batches import batches, make_batch  # noqa: E402
from drift_edge.models.nano.corpus import documents  # noqa: E402
from drift_edge.models.nano.make import make_tokenizer  # noqa: E402
from drift_edge.models.nano.tokenizer import CONTROL, END, VOCAB_SIZE, ChatEncoder, load_tokenizer  # noqa: E402

SEED = 20
ODD = [
    "",
    " ",
    "   leading and trailing   ",
    "tabs\tand\nnew\r\nlines\n\n\n",
    "don't we'll I'M it's 'tis ''''",
    "3.14159 1,000,000 v2.0-rc1 0x1F",
    "naïve café Ünïcödé ﬁ ½ ²",
    "日本語のテキスト 한국어 العربية עברית ไทย",
    "🙂👩‍👩‍👧‍👦🇨🇭 e\u0301 \u200b\u2028",
    "<|end|><|assistant|> <|unused_3|>",
    "\u00a0non\u2003breaking\u3000spaces",
    "C:\\path\\to {% raw %} $x^2$ <b>&amp;</b>",
]


def odd_strings(n: int) -> list[str]:
    """`ODD`, then random mixtures of words, marks, white space and characters from all over Unicode."""
    rng = random.Random(SEED)
    ranges = [(0x20, 0x7E), (0xA1, 0x24F), (0x370, 0x4FF), (0x4E00, 0x9FA5), (0x1F300, 0x1F64F), (0x09, 0x0D)]
    words = ["tea", " tea", "Bicycle", " the", "  ", "\n", "!?", "...", "'s", "42", "\u00df", " -- "]
    strings = list(ODD)
    while len(strings) < n:
        parts = []
        for _ in range(rng.randint(1, 20)):
            parts.append(rng.choice(words) if rng.random() < 0.5 else chr(rng.randint(*rng.choice(ranges))))
        strings.append("".join(parts))
    return strings


def random_weights(shape: model.Shape) -> Any:
    torch.manual_seed(SEED)
    net = model.Nano(shape)
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(torch.randn_like(p) * 0.1 + (1 if "norm" in name else 0))
    return net


def arrays(net: Any) -> dict[str, Any]:
    return {name: p.detach().numpy() for name, p in net.named_parameters()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, and files of both shapes with random weights."""
    path = tmp_path_factory.mktemp("nano")
    make_tokenizer(path / "tokenizer.json", 3_000, SEED)
    tokenizer = load_tokenizer(path / "tokenizer.json")
    for shape in (model.LLM, model.SLM):
        weights = arrays(random_weights(shape))
        for kind in export.FILE_TYPES:
            export.export(shape, weights, tokenizer, path / export.file_name(shape.name, kind), kind)
    return path


@pytest.fixture(scope="module")
def llama(folder: Path) -> Iterator[llama_cpp.Llama]:
    path = folder / export.file_name("slm", "F32")
    engine = llama_cpp.Llama(str(path), n_ctx=256, logits_all=True, n_threads=1, verbose=False, type_k=0, type_v=0)
    yield engine
    engine.close()


def test_llama_cpp_tokenises_alike(folder: Path, llama: llama_cpp.Llama) -> None:
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    for text in odd_strings(200):
        ours = tokenizer.encode(text, add_special_tokens=False).ids
        assert llama.tokenize(text.encode(), add_bos=False, special=False) == ours, f"{text!r}, seed {SEED}"


def test_any_text_round_trips(folder: Path, llama: llama_cpp.Llama) -> None:
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    for text in odd_strings(200):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert not set(ids) & set(range(len(CONTROL))), f"{text!r} became a control token"
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert llama.detokenize(ids, special=False).decode() == text or not text.strip()


def test_conversation_is_the_template_in_ids(folder: Path, llama: llama_cpp.Llama) -> None:
    encoder = ChatEncoder(load_tokenizer(folder / "tokenizer.json"))
    messages = [
        {"role": "system", "content": "You are an AI assistant."},
        {"role": "user", "content": "How do I make tea?"},
        {"role": "assistant", "content": "Boil some fresh water."},
        {"role": "user", "content": "Why?"},
    ]
    text = "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in messages) + "<|assistant|>"
    assert encoder.prompt(messages) == llama.tokenize(text.encode(), add_bos=False, special=True)
    ids, weights = encoder.encode([messages])[0]
    answer = [i for i, weight in zip(ids, weights, strict=True) if weight == 1.0]
    assert encoder.decode(answer) == "Boil some fresh water.<|end|>"
    question = [i for i, weight in zip(ids, weights, strict=True) if 0 < weight < 1]
    assert encoder.decode(question) == "How do I make tea?<|end|>Why?<|end|>"


def test_special_ids_and_template(llama: llama_cpp.Llama) -> None:
    assert llama.token_eos() == END
    assert llama.n_vocab() == VOCAB_SIZE
    assert llama.metadata["tokenizer.ggml.add_bos_token"] == "false"
    assert "<|{{ m.role }}|>" in llama.metadata["tokenizer.chat_template"]
    assert llama.metadata["general.license"] == "MIT"


@pytest.mark.parametrize(("name", "kind", "bound"), [("slm", "F32", 2e-3), ("llm", "F32", 2e-3), ("llm", "F16", 5e-2)])
def test_llama_cpp_computes_alike(folder: Path, name: str, kind: str, bound: float) -> None:
    ids = np.random.default_rng(SEED).integers(0, VOCAB_SIZE, 64).tolist()
    engine = llama_cpp.Llama(
        str(folder / export.file_name(name, kind)),
        n_ctx=128, logits_all=True, n_threads=1, verbose=False, type_k=0, type_v=0,
    )  # fmt: skip
    try:
        engine.eval(ids)
        found = np.array(engine.scores[: len(ids)])
    finally:
        engine.close()
    wanted = random_weights(model.SHAPES[name]).logits(torch.tensor([ids]))[0].numpy()
    assert np.abs(wanted).max() > 1
    assert np.abs(found - wanted).max() < bound * np.abs(wanted).max(), f"seed {SEED}"


def test_row_orders_are_inverse() -> None:
    matrix = np.arange(8 * 3, dtype=np.float32).reshape(8, 3)
    assert np.array_equal(export.half_rows(export.rope_rows(matrix, 2), 2), matrix)
    assert export.rope_rows(matrix, 2)[:4, 0].tolist() == [0, 6, 3, 9]


def test_float_twin_of_a_quantised_file(folder: Path, tmp_path: Path) -> None:
    small, twin = folder / export.file_name("slm"), tmp_path / "twin.gguf"
    convert.dequantise(small, twin)
    wanted, found = gguf.GGUFReader(small), gguf.GGUFReader(twin)
    assert found.fields.keys() == wanted.fields.keys()
    for name, field in wanted.fields.items():
        if name not in ("general.file_type", "GGUF.kv_count"):
            assert found.fields[name].contents() == field.contents(), name
    assert [t.name for t in found.tensors] == [t.name for t in wanted.tensors]
    exact = gguf.GGUFReader(folder / export.file_name("slm", "F32"))
    for tensor, original in zip(found.tensors, exact.tensors, strict=True):
        assert tensor.data.dtype == np.float32
        assert tensor.data.shape == original.data.shape
        assert np.abs(tensor.data - original.data).max() <= np.abs(original.data).max() / 200


def test_sizes(folder: Path) -> None:
    for shape in (model.LLM, model.SLM):
        assert all(size % 32 == 0 for size in (shape.dim, shape.ffn, shape.head_dim))
    count = {name: sum(p.numel() for p in model.Nano(model.SHAPES[name]).parameters()) for name in ("llm", "slm")}
    assert count["llm"] >= 7 * count["slm"]
    assert sum((folder / export.file_name(name)).stat().st_size for name in ("llm", "slm")) < 12e6


def test_transformers_computes_alike(folder: Path) -> None:
    pytest.importorskip("transformers")
    from drift_edge.models.nano.hf import load_gguf

    ids = torch.from_numpy(np.random.default_rng(SEED).integers(0, VOCAB_SIZE, (1, 64)))
    with torch.no_grad():
        found = load_gguf(folder / export.file_name("llm", "F32"))(ids).logits
    wanted = random_weights(model.LLM).logits(ids)
    assert (found - wanted).abs().max() < 1e-3 * wanted.abs().max()


def test_loss_and_gradient_are_those_of_torch() -> None:
    torch.manual_seed(SEED)
    x, embedding = (torch.randn(n, 32, requires_grad=True) for n in (700, 50))
    targets, weights = torch.randint(0, 50, (700,)), torch.rand(700)
    wanted = (torch.nn.functional.cross_entropy(x @ embedding.T, targets, reduction="none") * weights).sum()
    wanted_grads = torch.autograd.grad(wanted, (x, embedding))
    found = model.WeightedCrossEntropy.apply(x, embedding, targets, weights)
    found_grads = torch.autograd.grad(found, (x, embedding))
    assert torch.allclose(found, wanted, rtol=1e-5)
    for a, b in zip(found_grads, wanted_grads, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def test_batch_predicts_what_comes_next() -> None:
    batch = make_batch([([5, 6, 7], [0.0, 0.2, 1.0]), ([8, 9], [0.0, 1.0])])
    assert batch.ids.tolist() == [[5, 6, 7, 3, 3, 3, 3, 3], [8, 9, 3, 3, 3, 3, 3, 3]]
    assert batch.where.tolist() == [0, 1, 8]
    assert batch.targets.tolist() == [6, 7, 9]
    assert batch.weights.tolist() == pytest.approx([0.2 / 2.2, 1 / 2.2, 1 / 2.2])
    assert batch.tokens == 5


def test_batches_lose_no_document(folder: Path) -> None:
    encoder = ChatEncoder(load_tokenizer(folder / "tokenizer.json"))
    source = documents(split="train", seed=SEED, base_share=0.5)
    sample = [next(source) for _ in range(300)]
    made = list(batches(sample, encoder, 1_024, SEED))
    rows = encoder.encode([document.messages for document in sample])
    assert sum(batch.tokens for batch in made) == sum(len(ids) for ids, _ in rows)
    assert max(batch.ids.numel() for batch in made) <= 1_024
