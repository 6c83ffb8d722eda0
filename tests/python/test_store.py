"""What a skill remembers."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from omni import Failed, store, testing

COUNT = """
import sys
from pathlib import Path
from omni.store import Store
for number in range(50):
    Store(Path(sys.argv[1])).set(f"{sys.argv[2]}-{number}", number)
"""


def test_values_of_every_shape_come_back(tmp_path: Path) -> None:
    keep = testing.context(tmp_path).store
    for key, value in {"a": 1, "b": None, "c": {"x": [1.5, "é", True]}, "é": "text"}.items():
        keep.set(key, value)
    again = testing.context(tmp_path).store
    names = again.keys()
    assert {key: again.get(key) for key in names} == {
        "a": 1,
        "b": None,
        "c": {"x": [1.5, "é", True]},
        "é": "text",
    }
    assert again.get("nothing") is None
    assert again.get("nothing", 7) == 7
    assert (again.delete("a"), again.delete("a"), again.keys("b")) == (True, False, ["b"])


def test_what_is_too_much_is_refused_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = store.Store(tmp_path)
    keep.set("a", "before")
    with pytest.raises(Failed, match="1048579 bytes"):
        keep.set("a", "x" * ((1 << 20) + 1))
    with pytest.raises(Failed, match="1 to 512 characters"):
        keep.set("", 1)
    with pytest.raises(TypeError, match="`a` has no form in JSON"):
        keep.set("a", object())
    monkeypatch.setattr(store, "MOST", 1)
    keep.set("a", "after")
    with pytest.raises(Failed, match="no room for `b`"):
        keep.set("b", 1)
    assert keep.get("a") == "after"


def test_threads_and_processes_write_at_once(tmp_path: Path) -> None:
    def process(name: str) -> None:
        subprocess.run(
            [sys.executable, "-c", COUNT, str(tmp_path), name], check=True, cwd=Path(store.__file__).parents[1]
        )

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(process, "ab"))
        list(threads.map(lambda number: store.Store(tmp_path).set(f"t-{number}", number), range(50)))
    assert len(store.Store(tmp_path).keys()) == 150


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("not a database, and long enough to be looked at" * 100)
    with pytest.raises(Failed, match="cannot be used"):
        store.Store(tmp_path).get("a")
