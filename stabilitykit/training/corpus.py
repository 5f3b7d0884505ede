"""Texts for a language model: words as integers, read from the format of the Penn Treebank's language-model files."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import TaskError
from ..public import public

#: The token that ends every line, and the token for every word outside the vocabulary.
END, UNKNOWN = "<eos>", "<unk>"

_SPLITS = ("train", "valid", "test")


@public
@dataclass(frozen=True, eq=False, repr=False)
class Corpus:
    """Three texts, each one long row of tokens, and the words that the tokens stand for.

    >>> corpus = Corpus.of_texts(train="the cat sat\\nthe dog", valid="the dog sat", test="the cat")
    >>> corpus.vocabulary
    ('the', 'cat', 'sat', '<eos>', 'dog')
    >>> corpus.test
    tensor([0, 1, 3])
    """

    train: Tensor  #: indices into the vocabulary, ``[tokens]`` int64
    valid: Tensor
    test: Tensor
    vocabulary: tuple[str, ...]

    @classmethod
    def of_texts(cls, *, train: str, valid: str, test: str, vocabulary: Iterable[str] | None = None) -> Corpus:
        """Read texts in the Penn Treebank's format: words with spaces between them, a sentence a line.

        Each line that has words gets an ``<eos>`` at its end. Without ``vocabulary``, it is the words of ``train`` in
        the order of first use. Raises `TaskError` for an empty text, and for a word that ``<unk>`` cannot stand for.
        """
        for name, text in zip(_SPLITS, (train, valid, test), strict=True):
            if not isinstance(text, str):
                raise TaskError(f"Expected {name} to be a text but got {type(text).__name__}. Of files: of_folder().")
        if isinstance(vocabulary, str):
            raise TaskError(
                f"Expected vocabulary= to be a list of words but got a text. Write {vocabulary[:9]!r}.split()."
            )
        tokens = {name: _tokens(text) for name, text in zip(_SPLITS, (train, valid, test), strict=True)}
        empty = [name for name in _SPLITS if len(tokens[name]) < 2]
        if empty:
            raise TaskError(
                f"Expected words in train, valid and test but {' and '.join(empty)} has none. Each is a text with "
                f"words separated by spaces, a sentence a line."
            )
        words = tuple(dict.fromkeys(tokens["train"] if vocabulary is None else vocabulary))
        place = {word: index for index, word in enumerate(words)}
        return cls(**{name: _indices(name, tokens[name], place) for name in _SPLITS}, vocabulary=words)

    @classmethod
    def of_folder(cls, folder: str | Path) -> Corpus:
        """Read ``train.txt``, ``valid.txt`` and ``test.txt``, with any prefix, as in ``ptb.train.txt``."""
        return cls.of_texts(**{name: _file(Path(folder), name).read_text(encoding="utf-8") for name in _SPLITS})

    def __repr__(self) -> str:
        """Count tokens and words: test failures show it."""
        sizes = ", ".join(f"{name}={len(getattr(self, name))}" for name in _SPLITS)
        return f"Corpus({sizes}, vocabulary={len(self.vocabulary)})"

    def __len__(self) -> int:
        """Count the words of the vocabulary."""
        return len(self.vocabulary)

    def text(self, tokens: Iterable[int]) -> str:
        """Write tokens as words.

        >>> Corpus.of_texts(train="a b", valid="a", test="b").text([1, 0, 2])
        'b a <eos>'
        """
        return " ".join(self.vocabulary[token] for token in tokens)


@public
@functools.cache
def python_topics(least: int = 2) -> Corpus:
    """Return the help texts that come with Python, in the manner of the Penn Treebank: a corpus without a download.

    Some fifty thousand words, 1,900 of them different: lower case, without punctuation, ``N`` for a number, ``<unk>``
    for a word with fewer than ``least`` uses in the training text. One of every 8 sentences is for validation and one
    for the test. Another version of Python has other texts.
    """
    from pydoc_data import topics

    paragraphs = (part for _, text in sorted(topics.topics.items()) for part in re.split(r"\n\s*\n", text))
    written = (sentence for part in paragraphs for sentence in re.split(r"(?<=[.:;?!])\s", part))
    words = (re.findall(r"[a-z_]+(?:'[a-z]+)?|\d+", one.lower()) for one in written)
    said = (" ".join("N" if word.isdigit() else word for word in of_one) for of_one in words)
    # Each sentence once: topics share whole sections, and no test sentence may be in the training text.
    sentences = [one for one in dict.fromkeys(said) if one.count(" ") >= 3]
    train = [one for i, one in enumerate(sentences) if i % 8 < 6]
    counts = Counter(word for one in train for word in one.split())
    known = [word for word, count in counts.items() if count >= least]

    def text(part: Iterable[str]) -> str:
        frequent = set(known)
        return "\n".join(" ".join(word if word in frequent else UNKNOWN for word in one.split()) for one in part)

    return Corpus.of_texts(
        train=text(train), valid=text(sentences[6::8]), test=text(sentences[7::8]), vocabulary=[*known, UNKNOWN, END]
    )


def _tokens(text: str) -> list[str]:
    return [word for line in text.splitlines() if line.strip() for word in (*line.split(), END)]


def _indices(name: str, tokens: Sequence[str], place: dict[str, int]) -> Tensor:
    unknown = place.get(UNKNOWN)
    strange = Counter(word for word in tokens if word not in place)
    if strange and (unknown is None or END in strange):
        examples = ", ".join(repr(word) for word, _ in strange.most_common(3))
        raise TaskError(
            f"Expected every word of {name} to be in the vocabulary but {len(strange)} of its words are not, such as "
            f"{examples}. Write {UNKNOWN} in the place of rare words of the training text, or give a vocabulary= that "
            f"has {UNKNOWN} and {END}."
        )
    return torch.tensor([place.get(word, unknown) for word in tokens])


def _file(folder: Path, name: str) -> Path:
    found = sorted(folder.glob(f"*{name}.txt"))
    if len(found) != 1:
        got = f"{len(found)} files" if found else "no file"
        raise TaskError(
            f"Expected one file *{name}.txt in {folder} but found {got} there. A corpus has train.txt, valid.txt and "
            f"test.txt; the Penn Treebank's are ptb.train.txt, ptb.valid.txt and ptb.test.txt."
        )
    return found[0]
