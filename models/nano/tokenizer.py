"""The pair's tokenizer: byte-level BPE of 2,048 ids, and the one way a conversation becomes ids.

Ids 0-3 are the control tokens. All 256 bytes are in the alphabet, so any Unicode text round-trips. Text is split by
GPT-2's pattern, which llama.cpp knows as the pre-tokenizer `gpt-2`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gguf import GGUFReader, TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 2_048
CONTROL = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
END = CONTROL.index("<|end|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

Message = Mapping[str, str]


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Learn the merges from `texts`; the result depends on nothing else."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Control tokens are put in by id; text that merely spells one stays text.
    return _text_only(tokenizer)


def load_tokenizer(path: Path) -> Tokenizer:
    """Read what `save_tokenizer` wrote."""
    return _text_only(Tokenizer.from_file(str(path)))


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write the tokenizer as JSON."""
    tokenizer.save(str(path))


def gguf_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a GGUF file of the pair; text that spells a control token becomes that token.

    Raises:
        ValueError: the file has no byte-level BPE vocabulary.
    """
    fields = GGUFReader(path).fields
    try:
        tokens, merges, kinds = (
            fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "merges", "token_type")
        )
    except KeyError as error:
        raise ValueError(f"{path}: expected the key {error}") from None
    vocabulary = {text: index for index, text in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = [text for text, kind in zip(tokens, kinds, strict=True) if kind == TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in control])
    return tokenizer


def _text_only(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.encode_special_tokens = True
    return tokenizer


class ChatEncoder:
    """Conversations to ids and to the weight that each id has in the loss.

    Args:
        tokenizer: as trained here.
        question_weight: weight of the ids of a user's text; answers have 1, system prompts 0, and so have the
            control tokens that the template, not the model, puts in.
    """

    def __init__(self, tokenizer: Tokenizer, question_weight: float = 0.2) -> None:
        self.tokenizer = tokenizer
        self.weights = {"system": 0.0, "user": question_weight, "assistant": 1.0}
        self._roles = {role: CONTROL.index(f"<|{role}|>") for role in self.weights}

    def encode(self, conversations: Sequence[Sequence[Message]]) -> list[tuple[list[int], list[float]]]:
        """Ids and weights, of equal length, of each conversation, as `TEMPLATE` writes it."""
        contents = [message["content"] for messages in conversations for message in messages]
        encoded = iter(self.tokenizer.encode_batch_fast(contents, add_special_tokens=False))
        result = []
        for messages in conversations:
            ids: list[int] = []
            weights: list[float] = []
            for message in messages:
                text = next(encoded).ids
                weight = self.weights[message["role"]]
                ids += [self._roles[message["role"]], *text, END]
                weights += [0.0, *[weight] * (len(text) + 1)]
            result.append((ids, weights))
        return result

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation up to where the answer begins."""
        return [*self.encode([messages])[0][0], self._roles["assistant"]]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; control tokens are spelt out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))
