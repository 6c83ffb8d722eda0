"""What makes a release, and what people install it with: the tools, as they are run."""

import gzip
import hashlib
import http.server
import json
import os
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "tests" / "fixtures" / "release"
KEY = (RELEASE / "key.pub").read_text().splitlines()[1]
TARGETS = ["aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"]


def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | environment)


def tool(name: str) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "tools" / name), run_name=name))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Make a folder as a release has it, but for its signature."""
    folder = tmp_path / "release"
    folder.mkdir()
    for target in TARGETS:
        (folder / f"omni-1.2.3-{target}.zst").write_bytes(target.encode())
        (folder / f"omni-1.2.3-{target}.gz").write_bytes(gzip.compress(target.encode(), mtime=0))
    (folder / "omni-1.2.3-cp311-abi3-manylinux_2_28_x86_64.whl").write_bytes(b"a wheel")
    done = run(sys.executable, ROOT / "tools" / "release", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_manifest_describes_the_programs(release: Path) -> None:
    manifest = json.loads((release / "manifest.json").read_text())
    assert manifest["version"] == "1.2.3"
    assert sorted(manifest["files"]) == sorted([*TARGETS, *(f"{target}.gz" for target in TARGETS)])
    for file in manifest["files"].values():
        content = (release / file["name"]).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file["sha256"], file["size"])
    done = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"], cwd=release, capture_output=True, text=True, check=True
    )
    assert done.stdout.count(": OK") == 5


def test_programs_of_two_versions_are_no_release(release: Path) -> None:
    (release / "omni-1.2.4-x86_64-unknown-linux-gnu.zst").write_bytes(b"")
    done = run(sys.executable, ROOT / "tools" / "release", release)
    assert "of one version; there are ['1.2.3', '1.2.4']" in done.stderr


def recipes(release: Path, url: str = "https://example.org/omni/releases") -> subprocess.CompletedProcess[str]:
    made = release.parent / "recipes"
    return run(
        sys.executable, ROOT / "tools" / "recipes", release / "manifest.json", made, f"--url={url}", f"--key={KEY}"
    )


def test_recipes_are_filled_in(release: Path) -> None:
    done = recipes(release)
    assert done.returncode == 0, done.stderr
    made = {path.name: path.read_text() for path in (release.parent / "recipes").iterdir()}
    assert sorted(made) == ["PKGBUILD", "install.sh", "omni.rb"]
    files = json.loads((release / "manifest.json").read_text())["files"]
    for name, form in [("omni.rb", ".gz"), ("PKGBUILD", "")]:
        for target in TARGETS:
            file = files[f"{target}{form}"]
            assert f"https://example.org/omni/releases/download/v1.2.3/{file['name']}" in made[name]
            assert file["sha256"] in made[name]
        assert "@" not in made[name].replace("$@", "")
    assert f"key=${{OMNI_RELEASE_KEY:-'{KEY}'}}" in made["install.sh"]
    script = "source PKGBUILD; echo $pkgver; declare -f package >/dev/null; echo ${#sha256sums_x86_64}"
    done = subprocess.run(["bash", "-euc", script], cwd=release.parent / "recipes", capture_output=True, text=True)
    assert done.stdout.split() == ["1.2.3", "64"], done.stderr


def test_a_recipe_for_what_was_not_released_is_none(release: Path) -> None:
    manifest = json.loads((release / "manifest.json").read_text())
    del manifest["files"]["aarch64-unknown-linux-gnu"]
    (release / "manifest.json").write_text(json.dumps(manifest))
    assert "of which the manifest says nothing" in recipes(release).stderr


def test_what_would_be_more_than_a_word_is_not_written(release: Path) -> None:
    assert "cannot hold" in recipes(release, "https://example.org/'$(id)'").stderr


# The installer.


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Serve a copy of a release, which may be changed."""
    folder = tmp_path / "served" / "latest" / "download"
    shutil.copytree(RELEASE / "newer", folder)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def install(url: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    return run(
        "sh",
        ROOT / "packaging" / "install.sh",
        **{"OMNI_RELEASES": url, "OMNI_RELEASE_KEY": KEY, "HOME": str(home), "no_proxy": "127.0.0.1"} | environment,
    )


def test_the_installer_puts_the_newest_in_its_place(served: tuple[Path, str], tmp_path: Path) -> None:
    done = install(served[1], tmp_path / "home")
    assert done.returncode == 0, done.stderr
    program = tmp_path / "home" / ".local" / "bin" / "omni"
    assert f"omni 9.9.9 is in {program}; its signature and its hash are right." in done.stdout
    assert "is not on your PATH yet" in done.stdout
    assert run(program, "--version").stdout == "omni 9.9.9\n"
    assert [path.name for path in program.parent.iterdir()] == ["omni"]


def test_the_installer_refuses_a_manifest_that_was_changed(served: tuple[Path, str], tmp_path: Path) -> None:
    manifest = served[0] / "manifest.json"
    manifest.write_text(manifest.read_text().replace("9.9.9", "9.9.8"))
    done = install(served[1], tmp_path / "home")
    assert done.returncode == 1
    assert "the release is not signed with the key" in done.stderr
    assert not (tmp_path / "home" / ".local").exists()


def test_the_installer_refuses_a_program_that_was_changed(served: tuple[Path, str], tmp_path: Path) -> None:
    evil = b"#!/bin/sh\n# Evil.\necho omni 9.9.9\n"
    (served[0] / "omni-9.9.9.gz").write_bytes(gzip.compress(evil))
    done = install(served[1], tmp_path / "home")
    assert done.returncode == 1
    assert "is not the file that was released" in done.stderr
    assert not (tmp_path / "home" / ".local").exists()


def test_the_installer_says_what_it_has_not_looked_at(served: tuple[Path, str], tmp_path: Path) -> None:
    done = install(served[1], tmp_path / "home", OMNI_RELEASE_KEY="none")
    assert done.returncode == 0, done.stderr
    assert "its signature was not looked at" in done.stdout


def test_the_installer_does_not_guess_where_releases_are(tmp_path: Path) -> None:
    done = install("", tmp_path / "home")
    assert done.returncode == 1
    assert "set OMNI_RELEASES" in done.stderr


def test_the_installer_is_plain_shell() -> None:
    done = run("shellcheck", ROOT / "packaging" / "install.sh")
    assert done.returncode == 0, done.stdout


# Licences.


def test_licences_are_looked_up() -> None:
    is_allowed = tool("licenses").is_allowed
    allowed = {"MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"}
    for expression in [
        "MIT",
        "MIT OR GPL-3.0-only",
        "GPL-3.0-only OR MIT",
        "(MIT OR GPL-3.0-only) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception",
        "GPL-3.0-only OR (MIT AND Apache-2.0)",
    ]:
        assert is_allowed(expression, allowed), expression
    for expression in [
        "",
        "GPL-3.0-only",
        "MIT AND GPL-3.0-only",
        "GPL-3.0-only AND MIT",
        "(MIT OR GPL-3.0-only) AND GPL-3.0-only",
        "GPL-3.0-only WITH LLVM-exception",
        "MIT WITH Odd-exception",
        "(MIT",
        "MIT)",
        "MIT MIT",
    ]:
        assert not is_allowed(expression, allowed), expression


def test_a_crate_of_another_licence_or_without_a_text_is_refused(tmp_path: Path) -> None:
    licenses = tool("licenses")
    crate = {
        "name": "odd",
        "version": "1.0.0",
        "manifest_path": str(tmp_path / "Cargo.toml"),
        "authors": ["Ann <a@b.c>"],
    }
    with pytest.raises(licenses.Wrong, match=r"the crate `odd` 1\.0\.0 is under `GPL-3\.0-only`"):
        licenses.of_crate(crate | {"license": "GPL-3.0-only"}, {"MIT"})
    with pytest.raises(licenses.Wrong, match="has no text of it"):
        licenses.of_crate(crate | {"license": "ISC"}, {"ISC"})
    # These always have the same one.
    assert licenses.of_crate(crate | {"license": "MIT"}, {"MIT"}).texts[0].startswith("Copyright (c) Ann\n")
    (tmp_path / "vendored").mkdir()
    (tmp_path / "vendored" / "LICENSE").write_text("Be kind.")
    assert licenses.of_crate(crate | {"license": "ISC"}, {"ISC"}).texts == ["Be kind."]


def test_everything_has_a_licence() -> None:
    done = run(sys.executable, ROOT / "tools" / "licenses")
    assert done.returncode == 0, done.stderr
    for name in ["lancedb", "pyo3", "sqlx"]:
        assert f"\n  {name} " in done.stdout
    assert done.stdout.count("Version 2.0, January 2004") < 100
