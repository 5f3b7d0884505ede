"""A file that a cached function has read before the training is an input of it, if the training gets it from there."""

from __future__ import annotations

import functools
import gc
import os
import time

import pytest

from stabilitykit.tracing.cached_reads import hits
from tests.tracing.reading import read_in


@functools.lru_cache
def of_a_module(path):
    return path.read_text()


@functools.cache
def unbounded(path):
    return helper(path)


def helper(path):
    return path.read_text()


def logged(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


@functools.lru_cache
@logged
def around_another(path):
    return path.read_text()


@logged
@functools.lru_cache
def inside_another(path):
    return path.read_text()


def _plain(path):
    return path.read_text()


under_another_name = functools.lru_cache(maxsize=None)(_plain)


def _plain_too(path):
    return path.read_text()


class Namespace:
    load = staticmethod(functools.cache(_plain_too))


class Loader:
    def __init__(self, path):
        self.path = path

    @functools.lru_cache  # noqa: B019  # as users do
    def method(self, path):
        return path.read_text()

    @staticmethod
    @functools.cache
    def static(path):
        return path.read_text()

    @classmethod
    @functools.cache
    def of_class(cls, path):
        return path.read_text()

    @property
    @functools.cache  # noqa: B019  # as users do
    def content(self):
        return self.path.read_text()


@pytest.fixture
def local():
    @functools.lru_cache
    def load(path):
        return path.read_text()

    return load


@pytest.fixture(autouse=True)
def empty():
    """Caches that know no file of another test."""
    for cache in hits():
        cache.cache_clear()


LOADER = functools.cache(Loader)

CACHED = {
    "of a module": of_a_module,
    "unbounded": unbounded,
    "around another": around_another,
    "inside another": inside_another,
    "under another name": under_another_name,
    "under another name in a class": Namespace.load,
    "method": lambda path: LOADER(path).method(path),
    "static": Loader.static,
    "of a class": Loader.of_class,
    "property": lambda path: LOADER(path).content,
}


@pytest.mark.parametrize("way", CACHED)
def test_what_was_read_before_is_an_input(root, way):
    load, path = CACHED[way], root / "config.json"
    load(path)
    inputs = read_in(root, lambda: load(path))
    assert (list(inputs.files), inputs.changed(root)) == (["config.json"], ())
    path.write_text("[1]")
    assert inputs.changed(root) == ("file config.json (edited)",)


def test_that_of_a_function_in_a_function(root, local):
    local(root / "config.json")
    assert list(read_in(root, lambda: local(root / "config.json")).files) == ["config.json"]


def test_a_cache_that_is_not_asked_is_none(root):
    of_a_module(root / "config.json")
    assert read_in(root, lambda: None).files == {}


def test_a_file_that_was_not_there(root):
    path = root / "none.json"

    @functools.cache
    def load():
        try:
            return path.read_text()
        except FileNotFoundError:
            return ""

    load()
    inputs = read_in(root, load)
    path.touch()
    assert inputs.changed(root) == ("file none.json (new)",)


@pytest.mark.parametrize("size", [2, 100_000])
def test_a_file_that_was_edited_since_counts_as_it_was(root, size):
    path = root / "config.json"
    path.write_text("a" * size)
    of_a_module(path)
    time.sleep(0.02)  # the clock of time stamps has steps of 4 to 10 ms
    path.write_text("b" * size)
    inputs = read_in(root, lambda: of_a_module(path))
    assert inputs.changed(root) == ("file config.json (edited)",)
    of_a_module.cache_clear()
    assert read_in(root, lambda: of_a_module(path)).changed(root) == ()
    assert read_in(root, lambda: of_a_module(path)).changed(root) == ()


def test_all_files_of_one_fill_count_and_those_of_another_argument(root):
    (root / "more.json").write_text("")

    @functools.cache
    def load(*names):
        return [(root / name).read_text() for name in names]

    load("config.json", "more.json")
    load("acme_traced/sizes.json")
    names = ["acme_traced/sizes.json", "config.json", "more.json"]
    assert sorted(read_in(root, lambda: load("config.json", "more.json")).files) == names


def test_a_cache_is_not_kept_in_memory(root):
    before = len(hits())

    def fill():
        @functools.cache
        def load(path):
            return path.read_text()

        load(root / "config.json")
        assert len(hits()) == before + 1

    fill()
    gc.collect()
    assert len(hits()) == before


def test_folders_and_variables_that_were_read_count_too(root, monkeypatch):
    @functools.cache
    def names():
        return [os.environ.get("ACME_CACHED"), *(root / "acme_traced").iterdir()]

    names()
    inputs = read_in(root, names)
    assert inputs.changed(root) == ()
    monkeypatch.setenv("ACME_CACHED", "1")
    (root / "acme_traced" / "new.csv").touch()
    assert inputs.changed(root) == ("variable ACME_CACHED", "folder acme_traced/ (other names in it)")


def test_a_file_that_two_fills_have_read_in_two_states_is_as_no_file_is(root):
    @functools.cache
    def load(number):
        return (root / "config.json").read_text()

    load(1)
    time.sleep(0.02)  # the clock of time stamps has steps of 4 to 10 ms
    (root / "config.json").write_text("[1]")
    load(2)
    assert read_in(root, lambda: load(1)).changed(root) == ("file config.json (edited)",)
