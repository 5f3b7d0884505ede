"""Text in, tokens out; what cannot be read is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stabilitykit.errors import TaskError
from stabilitykit.training.corpus import END, UNKNOWN, Corpus, python_topics


def test_every_line_ends_with_eos_and_lines_without_words_are_none() -> None:
    corpus = Corpus.of_texts(train=" a b \n\n  \na c\n", valid="b", test="c a")
    assert corpus.text(corpus.train.tolist()) == f"a b {END} a c {END}"
    assert corpus.text(corpus.valid.tolist()) == f"b {END}"
    assert corpus.vocabulary == ("a", "b", END, "c")


def test_a_word_outside_the_vocabulary_is_unk_where_there_is_one() -> None:
    corpus = Corpus.of_texts(train=f"a {UNKNOWN}", valid="zebra a", test="a")
    assert corpus.text(corpus.valid.tolist()) == f"{UNKNOWN} a {END}"


def test_a_word_outside_a_vocabulary_without_unk_is_an_error_that_names_it() -> None:
    with pytest.raises(TaskError, match=r"Expected every word of test .* but 1 of its words are not, such as 'zebra'"):
        Corpus.of_texts(train="a b", valid="a", test="zebra zebra a")


def test_a_vocabulary_without_eos_is_an_error_even_with_unk() -> None:
    with pytest.raises(TaskError, match=r"such as '<eos>'.*give a vocabulary= that has <unk> and <eos>"):
        Corpus.of_texts(train="a", valid="a", test="a", vocabulary=["a", UNKNOWN])


def test_an_empty_text_is_an_error_that_names_it() -> None:
    with pytest.raises(TaskError, match=r"Expected words in train, valid and test but valid and test has none"):
        Corpus.of_texts(train="a", valid="", test=" \n")


@pytest.mark.parametrize("text", [None, b"a", ["a"]])
def test_what_is_no_text_is_an_error_that_names_it(text: Any) -> None:
    with pytest.raises(TaskError, match=f"Expected valid to be a text but got {type(text).__name__}"):
        Corpus.of_texts(train="a", valid=text, test="a")
    with pytest.raises(TaskError, match=r"a list of words but got a text\. Write 'a <eos>'\.split\(\)"):
        Corpus.of_texts(train="a", valid="a", test="a", vocabulary="a <eos>")


def test_a_folder_with_the_names_of_the_penn_treebank(tmp_path: Path) -> None:
    for name, text in {"train": "a b", "valid": "b", "test": "a"}.items():
        (tmp_path / f"ptb.{name}.txt").write_text(text)
    corpus = Corpus.of_folder(tmp_path)
    assert repr(corpus) == "Corpus(train=3, valid=2, test=2, vocabulary=3)"
    (tmp_path / "test.txt").write_text("a")
    with pytest.raises(TaskError, match=r"Expected one file \*test.txt .* but found 2 files there"):
        Corpus.of_folder(tmp_path)
    with pytest.raises(TaskError, match=r"Expected one file \*train.txt .* but found no file there"):
        Corpus.of_folder(tmp_path / "none")


def test_the_help_texts_of_python_are_a_corpus() -> None:
    corpus = python_topics()
    assert len(corpus.train) > 4 * len(corpus.test) > 4 * 3000
    assert 1000 < len(corpus) < 5000
    sentences = {
        name: set(corpus.text(getattr(corpus, name).tolist()).split(f" {END}")) for name in ("train", "valid", "test")
    }
    both = sentences["train"] & sentences["test"]
    assert len(both) < 0.02 * len(sentences["test"])  # equal once their rare words are <unk>
    assert python_topics() is corpus
    assert (corpus.test == corpus.vocabulary.index(UNKNOWN)).double().mean() < 0.1
