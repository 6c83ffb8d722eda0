"""Extensions of skills: which module a script is given, and what happens where it cannot be."""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omni import Context, Failed, Retry, extension, extensions, kernel, skill, testing
from omni.context import current
from omni.errors import ToolCancelled

LIBRARY = """
#include <Python.h>

static PyObject *said;

static PyObject *setup(PyObject *module, PyObject *ctx) {
    PyObject *name = PyObject_GetAttrString(ctx, "name");
    if (name == NULL || PyList_Append(said, name) < 0) return NULL;
    Py_DECREF(name);
    Py_RETURN_NONE;
}

static PyObject *teardown(PyObject *module, PyObject *nothing) {
    PyObject *word = PyUnicode_FromString("down");
    if (word == NULL || PyList_Append(said, word) < 0) return NULL;
    Py_DECREF(word);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"setup", setup, METH_O, ""}, {"teardown", teardown, METH_NOARGS, ""}, {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "quick", NULL, -1, methods};

PyMODINIT_FUNC PyInit_quick(void) {
    PyObject *module = PyModule_Create(&definition);
    said = PyList_New(0);
    PyModule_AddObjectRef(module, "said", said);
    return module;
}
"""


@pytest.fixture
def probe(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "probe"
    write(folder / "SKILL.md", "---\nname: probe\ndescription: Probes.\n---\n")
    write(folder / "scripts/probe.py", "from omni import extension\n\n\ndef ask(name):\n    return extension(name)\n")
    yield folder
    kernel.forget("probe")


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def toml(folder: Path, name: str, runtime: str, entry: str, more: str = "") -> Path:
    own = folder / "extensions" / name
    write(own / "extension.toml", f'name = "{name}"\nruntime = "{runtime}"\nentry = "{entry}"\n{more}')
    return own


def ask(folder: Path, name: str, version: int = 1, **engines: tuple[str | None, str | None]) -> Any:
    return skill.load("probe", str(folder), "scripts/probe.py", version, None, engines).ask(name)


def built(folder: Path, name: str) -> Path:
    """Make a library that Python can load."""
    include = Path(sysconfig.get_path("include"))
    if shutil.which("cc") is None or not (include / "Python.h").is_file():
        pytest.skip("LIBRARIES ARE NOT TESTED: there is no C compiler, or no Python.h")
    out = folder.parent / name
    write(out / "quick.c", LIBRARY)
    command = ["cc", "-shared", "-fPIC", f"-I{include}", "-o", str(out / "extension.so"), str(out / "quick.c")]
    subprocess.run(command, check=True)
    return out


def test_python_with_a_file_beside_it_set_up_and_torn_down(probe: Path) -> None:
    one = toml(probe, "one", "python", "main.py")
    write(
        one / "main.py",
        "from . import other\nsaid = []\nsetup = said.append\n\n\ndef teardown():\n    said.append(7)\n",
    )
    write(one / "other.py", "value = 1\n")
    module = ask(probe, "one")
    assert (module.__name__, module.other.value) == ("omni_ext.probe.one", 1)
    assert module.said[0].folder == one
    assert sys.modules["omni_ext.probe.one"] is module
    write(one / "other.py", "value = 2\n")
    kernel.forget("probe")
    assert module.said[1:] == [7]
    assert not [name for name in sys.modules if name.startswith("omni_ext.probe")]
    assert ask(probe, "one").other.value == 2


def test_versions_have_their_own(probe: Path) -> None:
    one = toml(probe, "one", "python", "main.py")
    write(one / "main.py", "ended = []\n\n\ndef teardown():\n    ended.append(1)\n")
    old = ask(probe, "one")
    contents = {
        "scripts/probe.py": (probe / "scripts/probe.py").read_bytes(),
        "extensions/one/extension.toml": (one / "extension.toml").read_bytes(),
        "extensions/one/main.py": b"value = 'held'\n",
    }
    write(one / "main.py", "value = 'later'\n")
    new = skill.load("probe", str(probe), "scripts/probe.py", 2, contents, {}).ask("one")
    assert (new.__name__, new.value) == ("omni_ext.probe@2.one", "held")
    kernel.forget("probe", 1)
    assert old.ended == [1]
    assert ask(probe, "one", 2) is new


def test_the_import_statement_finds_it(probe: Path) -> None:
    write(toml(probe, "one-more", "python", "main.py") / "main.py", "value = 3\n")
    write(probe / "scripts/other.py", "from omni_ext.probe import one_more\n\nvalue = one_more.value\n")
    assert testing.load(probe, "scripts/other.py").value == 3


def test_a_library_is_loaded_once_for_all_versions(probe: Path) -> None:
    toml(probe, "quick", "rust", "quick", 'provides = ["setup", "said"]\n')
    place = str(built(probe, "built"))
    module = ask(probe, "quick", quick=(place, None))
    assert module.said == ["quick"]
    assert ask(probe, "quick", 2, quick=(place, None)) is module
    kernel.forget("probe", 1)
    assert module.said == ["quick"], "version 2 still uses it"
    kernel.forget("probe", 2)
    assert module.said == ["quick", "down"]
    assert ask(probe, "quick", 3, quick=(place, None)).said == ["quick", "down", "quick"]


def test_the_fallback_serves_where_there_is_no_library(probe: Path) -> None:
    own = toml(probe, "quick", "rust", "quick", 'fallback = "slow.py"\nprovides = ["missing"]\n')
    write(own / "slow.py", "speed = 1\n")
    package = skill.enter("probe", str(probe))
    assert extensions.load(package, "quick").speed == 1
    assert extensions.load(package, "quick", fallback=True) is extensions.load(package, "quick")
    place = built(probe, "incomplete")
    asked = ask(probe, "quick", 2, quick=(str(place), None))
    assert asked.speed == 1, "a library without what `provides` names"
    told = kernel.describe("probe", str(probe), "extensions/quick/extension.toml", {"quick": (str(place), None)})
    assert told["problem"] is None, "version 1 was loaded without a library"
    kernel.forget("probe")
    told = kernel.describe("probe", str(probe), "extensions/quick/extension.toml", {"quick": (str(place), None)})
    assert "lacks `missing`, which `provides` names" in told["problem"]["message"]
    assert ask(probe, "quick", 3, quick=(str(place), "it is for macos")).speed == 1


def test_both_where_the_library_serves(probe: Path) -> None:
    own = toml(probe, "quick", "rust", "quick", 'fallback = "slow.py"\n')
    write(own / "slow.py", "speed = 1\n")
    package = skill.enter("probe", str(probe), engines={"quick": (str(built(probe, "built")), None)})
    engine, slow = extensions.load(package, "quick"), extensions.load(package, "quick", fallback=True)
    assert (engine.__file__.endswith("extension.so"), slow.speed) == (True, 1)


def test_what_cannot_be_had_says_why(probe: Path) -> None:
    toml(probe, "quick", "rust", "quick")
    write(toml(probe, "far", "python", "far.py") / "far.py", "")
    with pytest.raises(ImportError, match="has no extension `none`; there are: far, quick"):
        ask(probe, "none", far=(None, "it is for macos"), quick=(None, None))
    with pytest.raises(ImportError, match="has no fallback and is not built; `omni skill build probe` does that"):
        ask(probe, "quick")
    with pytest.raises(ImportError, match="cannot be used: it is for macos"):
        ask(probe, "far")
    with pytest.raises(ImportError, match="belongs to no skill"):
        extension("quick")


def test_a_test_puts_something_in_its_place(probe: Path) -> None:
    with testing.fixture(probe, "one", "in its place"):
        assert testing.load(probe).ask("one") == "in its place"
    with pytest.raises(ImportError):
        testing.load(probe).ask("one")


PROGRAM = """#!/bin/sh
said=0
while IFS= read -r line; do
    said=$((said + 1))
    id=${line#'{"id":'}; id=${id%%,*}
    case $line in
        *'"call":"count"'*) echo '{"progress":[1,2,"half"]}'; echo "{\\"id\\":$id,\\"result\\":$said}" ;;
        *'"call":"refuse"'*) echo "{\\"id\\":$id,\\"error\\":\\"never\\"}" ;;
        *'"call":"retry"'*) echo "{\\"id\\":$id,\\"retry\\":\\"otherwise\\"}" ;;
        *'"call":"babble"'*) echo 'no answer' ;;
        *'"call":"mix_up"'*) echo '{"id":0,"result":1}' ;;
        *'"call":"die"'*) exit 3 ;;
        *'"call":"hang"'*) exec sleep 1000 ;;
    esac
done
echo over > "$(dirname "$0")/over"
"""


@pytest.fixture
def program(probe: Path) -> Any:
    functions = ["count", "refuse", "retry", "babble", "mix_up", "die", "hang"]
    own = toml(probe, "words", "executable", "words.sh", f"provides = {functions}\n".replace("'", '"'))
    write(own / "words.sh", PROGRAM)
    (own / "words.sh").chmod(0o755)
    return ask(probe, "words")


def test_a_program_is_kept_between_calls_and_ended_in_peace(program: Any, probe: Path, tmp_path: Path) -> None:
    call = testing.Call(str(tmp_path), str(tmp_path))
    token = current.set(Context(call))
    try:
        assert [program.count(), program.count(text="é\n")] == [1, 2]
    finally:
        current.reset(token)
    assert call.reports == [(1.0, 2, "half")] * 2
    kernel.forget("probe")
    assert (probe / "extensions/words/over").read_text() == "over\n"


def test_a_program_says_who_acts(program: Any) -> None:
    with pytest.raises(Failed, match="never"):
        program.refuse()
    with pytest.raises(Retry, match="otherwise"):
        program.retry()
    assert program.count() == 3, "it goes on"
    with pytest.raises(AttributeError):
        program.other()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("babble", "said what is no line of JSON: b'no answer"),
        ("mix_up", "gave no answer to call 1"),
        ("die", r"ended \(exit status: 3\)"),
    ],
)
def test_a_program_that_errs_is_started_anew(program: Any, function: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        getattr(program, function)()
    assert program.count() == 1


def test_a_call_of_a_program_is_called_off(program: Any, tmp_path: Path) -> None:
    token = current.set(Context(testing.Call(str(tmp_path), str(tmp_path), is_cancelled=True)))
    try:
        with pytest.raises(ToolCancelled):
            program.hang()
    finally:
        current.reset(token)
    assert program.count() == 1


def test_a_program_that_cannot_be_run(probe: Path) -> None:
    write(toml(probe, "words", "executable", "words.sh", 'provides = ["count"]\n') / "words.sh", PROGRAM)
    with pytest.raises(ImportError, match=r"words.sh` cannot be run; `chmod \+x` lets it"):
        ask(probe, "words")


def test_the_program_of_the_documentation(probe: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/extensions.md").read_text()
    _, _, rest = page.partition("```sh\n")
    own = toml(probe, "words", "executable", "words.sh", 'provides = ["count"]\n')
    write(own / "words.sh", rest.partition("```")[0])
    (own / "words.sh").chmod(0o755)
    words = ask(probe, "words")
    assert [words.count(text="a b"), words.count(text="é * c d"), words.count(text="")] == [2, 4, 0]
