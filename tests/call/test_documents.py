"""A folder of documents is read whole, or every problem in it is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.call.documents import document_of, read_documents
from evalkit.errors import ContentError


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_document_knows_its_source_and_what_its_front_matter_says(tmp_path: Path) -> None:
    write(tmp_path, "help/returns.md", "---\ntitle: Returns\nlang: [en, de]\n---\n# Refunds\nFast.")
    write(tmp_path, "faq.txt", "Where is my parcel?")
    row = {"id": "o 1", "text": "Opening hours", "metadata": {"city": "Bern"}}
    write(tmp_path, "shops/all.jsonl", json.dumps(row) + "\n")

    documents = {document.id: document for document in read_documents(tmp_path)}

    assert set(documents) == {"help/returns.md", "faq.txt", "o-1"}
    assert documents["help/returns.md"].title == "Returns"
    assert documents["help/returns.md"].text == "# Refunds\nFast."
    assert documents["help/returns.md"].metadata == {"source": "help", "lang": ["en", "de"]}
    assert documents["faq.txt"].metadata == {"source": "faq"}
    assert documents["o-1"].metadata == {"source": "shops", "city": "Bern"}


def test_all_problems_of_a_folder_are_found_in_one_pass(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "---\n[not, a, table]\n---\ntext")
    write(
        tmp_path, "b.jsonl", '{"id": "x"}\nnot json\n[]\n{"id": "y", "text": "t", "lang": "en"}\n'
    )
    write(tmp_path, "c.jsonl", '{"id": "z", "text": "1"}\n{"id": "z", "text": "2"}\n')
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe")

    with pytest.raises(ContentError) as caught:
        read_documents(tmp_path)

    places = [problem.split(": ")[0] for problem in caught.value.problems]
    assert places == ["a.md:1", "b.jsonl:1", "b.jsonl:2", "b.jsonl:3", "b.jsonl:4",
                      "c.jsonl:2", "d.txt:1"]  # fmt: skip
    assert "['lang']. Put it into metadata" in str(caught.value)


def test_hidden_files_are_left_alone_and_links_out_of_the_folder_refused(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    write(folder, ".git/notes.md", "secret")
    write(folder, "a.md", "text")
    write(tmp_path, "outside.md", "secret")

    assert [document.id for document in read_documents(folder)] == ["a.md"]

    (folder / "b.md").symlink_to(tmp_path / "outside.md")
    with pytest.raises(ContentError, match="link out of the folder"):
        read_documents(folder)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_documents_is_an_error_that_names_what_is_read(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(ContentError, match=r"Correct the path|that are read: .md"):
        read_documents(tmp_path / name)


@pytest.mark.parametrize("item", [None, "text", {}, {"id": "", "text": ""}, {"id": 1, "text": "t"},
                                  {"id": "a", "text": "t", "title": 1},
                                  {"id": "a", "text": "t", "metadata": []}])  # fmt: skip
def test_what_is_no_document_is_refused(item: object) -> None:
    with pytest.raises(ValueError, match="document"):
        document_of(item)
