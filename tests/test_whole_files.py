"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from medorchestra.errors import StorageError
from medorchestra.whole_files import require_writable, write_whole


def test_a_file_that_cannot_be_written_stays_as_it_was_with_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "new" / "plan.yaml"
    write_whole(path, "before")
    require_writable(path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match=r"plan\.yaml: cannot be written: No space left"):
        write_whole(path, "after")
    assert path.read_text("utf-8") == "before"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("write", [require_writable, lambda path: write_whole(path, "text")])
@pytest.mark.parametrize("where", [".", "a file/plan.yaml"])
def test_a_place_where_no_file_can_be_is_named_with_the_next_step(tmp_path, monkeypatch, write, where):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    with pytest.raises(StorageError, match=r"cannot be written: .*; check folder"):
        write(Path(where))
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]
