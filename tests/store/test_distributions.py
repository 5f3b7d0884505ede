"""Which distribution has installed a file, by the metadata beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stabilitykit.store.distributions import installed_in, owner_of, project_names


def install(site: Path, name: str, files: list[str], *, record: bool = True, **more: str) -> Path:
    for file in files:
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text("")
    info = site / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    lines = [
        f"{file},sha256=x,0" for file in [*files, f"{info.name}/INSTALLER", "../../../bin/tool", "__pycache__/a.pyc"]
    ]
    for file, text in (({"RECORD": "\n".join(lines)} if record else {}) | more).items():
        (info / file).write_text(text)
    return info


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "lib/site-packages"


def test_a_file_belongs_to_what_has_recorded_its_package(site):
    install(site, "Scikit_Thing", ["skthing/__init__.py", "skthing/deep/a.py", "single.py"])
    for file in ("skthing/__init__.py", "skthing/deep/a.py", "single.py"):
        owner = owner_of(site / file, frozenset())
        assert (owner.name, owner.version) == ("scikit-thing", "1.2")
    assert owner_of(site / "other/__init__.py", frozenset()) is None


def test_two_distributions_share_a_namespace_file_by_file(site):
    install(site, "one", ["space/one/a.py"])
    install(site, "two", ["space/two/b.py"])
    assert owner_of(site / "space/two/b.py", frozenset()).name == "two"
    assert owner_of(site / "space/one/a.py", frozenset()).name == "one"
    assert owner_of(site / "space/three.py", frozenset()) is None


def test_a_folder_on_the_path_may_hold_installed_packages(tmp_path):
    install(tmp_path / "target", "lib", ["lib.py"])
    assert owner_of(tmp_path / "target/lib.py", frozenset({tmp_path / "target"})).name == "lib"
    assert owner_of(tmp_path / "target/lib.py", frozenset()) is None


def test_without_a_record_a_distribution_counts_only_where_systems_install(tmp_path, site):
    install(tmp_path / "src", "lib", ["lib/__init__.py"], record=False)
    assert owner_of(tmp_path / "src/lib/__init__.py", frozenset({tmp_path / "src"})) is None
    install(site, "lib", ["lib/__init__.py"], record=False)
    owner = owner_of(site / "lib/__init__.py", frozenset())
    assert owner.name == "lib"
    assert len(owner.content) == 16


def test_content_is_that_of_the_files_and_not_of_the_installation(tmp_path):
    contents = []
    for place, change in (
        ("one", ()),
        ("two", ("/usr/bin/python", "/opt/python")),
        ("three", ("sha256=x", "sha256=y")),
    ):
        info = install(tmp_path / place / "site-packages", "lib", ["lib.py"])
        record = info / "RECORD"
        text = record.read_text().replace("bin/tool,sha256=x", f"bin/tool,sha256={place}")
        record.write_text(text.replace(*change) if change else text)
        contents.append(owner_of(tmp_path / place / "site-packages/lib.py", frozenset()).content)
    assert contents[0] == contents[1] != contents[2]


def test_a_new_installation_under_the_same_version_is_seen(site):
    info = install(site, "lib", ["lib.py"])
    before = owner_of(site / "lib.py", frozenset()).content
    (info / "RECORD").write_text("lib.py,sha256=other,10\n")
    assert owner_of(site / "lib.py", frozenset()).content != before


def test_what_it_needs_is_found_by_name(site):
    install(
        site,
        "lib",
        ["lib.py"],
        METADATA="Requires-Dist: Num_Py (>=1)\nRequires-Dist: x ; extra == 'y'\n\nRequires-Dist: z",
    )
    owner = owner_of(site / "lib.py", frozenset())
    assert owner.needs == ("num-py",)
    assert installed_in([site])["lib"] == owner
    assert "num-py" not in installed_in([site])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pyproject.toml", "[project]\nname = 'My_Lib'\n"),
        ("pyproject.toml", '[tool.poetry]\nname="my.lib"\n'),
        ("setup.cfg", "[metadata]\nname = my-lib\n"),
        ("setup.py", "setup(\n    name='my-lib',\n)"),
    ],
)
def test_a_project_is_named_by_what_declares_it_here_or_above(tmp_path, file, text):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a" / file).write_text(text)
    assert "my-lib" in project_names(tmp_path / "a/b")
    assert "my-lib" not in project_names(tmp_path)


@pytest.mark.parametrize(
    ("text", "is_own"),
    [
        ('{"url": "file:///src", "dir_info": {}}', True),
        ('{"url": "file:///src", "dir_info": {"editable": true}}', True),
        ('{"url": "https://example.org/lib.whl", "archive_info": {}}', False),
        ("{", False),
        ("[]", False),
    ],
)
def test_what_was_installed_from_a_folder_of_source_is_the_users_own(site, text, is_own):
    install(site, "lib", ["lib.py"], **{"direct_url.json": text})
    assert owner_of(site / "lib.py", frozenset()).is_users_own is is_own
