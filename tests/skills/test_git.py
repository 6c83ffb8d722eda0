"""Looking at a repository, and committing in two steps."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omni import Failed, Retry

Git = Callable[..., str]
Use = Callable[..., Any]


@pytest.fixture(autouse=True)
def repository(git: Git, workspace: Path) -> None:
    (workspace / "a.txt").write_text("one\n")
    git("add", "a.txt")
    git("commit", "--quiet", "-m", "first")


def propose(use: Use, message: str = "change: a thing", **arguments: Any) -> str:
    found = re.match(r"proposal ([0-9a-f]{8}) ", use("git.propose", message=message, **arguments))
    assert found is not None
    return found[1]


def hook(workspace: Path, name: str, script: str) -> None:
    file = workspace / ".git" / "hooks" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_status_of_a_clean_and_a_changed_tree(use: Use, workspace: Path) -> None:
    assert use("git.status") == "## main\nnothing to commit, working tree clean"
    (workspace / "a.txt").write_text("two\n")
    (workspace / "ü.txt").write_text("new\n")
    assert use("git.status") == "## main\n M a.txt\n?? ü.txt"


def test_diff_of_one_path_of_the_index_and_since_a_revision(use: Use, workspace: Path, git: Git) -> None:
    (workspace / "a.txt").write_text("two\n")
    assert "+two" in use("git.diff", path="a.txt")
    assert use("git.diff", staged=True) == "no differences"
    git("commit", "--quiet", "-am", "second")
    assert use("git.diff") == "no differences"
    assert "-one" in use("git.diff", revision="HEAD~1")


def test_log_show_and_branches(use: Use, git: Git) -> None:
    git("branch", "topic")
    head = git("rev-parse", "--short", "HEAD")
    assert re.fullmatch(rf"{head} \d{{4}}-.* Ada: first", use("git.log"))
    assert "+one" in use("git.show", revision="HEAD")
    assert sorted(line.split()[0] for line in use("git.branch").replace("* ", "  ").splitlines()) == ["main", "topic"]


@pytest.mark.parametrize("revision", ["--output=/tmp/x", "-p", "a\nb"])
@pytest.mark.parametrize("tool", ["git.show", "git.log", "git.diff"])
def test_a_revision_that_is_an_option_is_refused(use: Use, tool: str, revision: str) -> None:
    with pytest.raises(Retry, match="is no revision"):
        use(tool, revision=revision)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a\0b"])
def test_a_path_outside_is_refused(use: Use, path: str) -> None:
    with pytest.raises(Failed):
        use("git.diff", path=path)
    with pytest.raises(Failed):
        use("git.propose", message="m", paths=[path])


def test_programs_named_by_the_repository_do_not_run(use: Use, workspace: Path, git: Git) -> None:
    program = workspace / "program.sh"
    program.write_text(f"#!/bin/sh\ntouch {workspace}/ran\n")
    program.chmod(0o755)
    (workspace / ".gitattributes").write_text("*.txt diff=evil\n")
    for name in ("core.fsmonitor", "diff.external", "diff.evil.textconv", "diff.evil.command", "core.pager"):
        git("config", name, str(program))
    (workspace / "a.txt").write_text("two\n")
    use("git.status")
    use("git.diff")
    use("git.show", revision="HEAD")
    use("git.log")
    propose(use)
    assert not (workspace / "ran").exists()


def test_outside_a_repository(use: Use, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace / ".git").rename(workspace.parent / "elsewhere")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(workspace.parent))
    with pytest.raises(Failed, match="not a git repository"):
        use("git.status")


def test_a_proposal_leaves_index_and_branch_alone(use: Use, workspace: Path, git: Git) -> None:
    (workspace / "staged.txt").write_text("staged\n")
    git("add", "staged.txt")
    (workspace / "a.txt").write_text("two\n")
    before = (workspace / ".git/index").read_bytes(), git("rev-parse", "HEAD")
    text = use("git.propose", message="change: all", paths=["a.txt"])
    assert ((workspace / ".git/index").read_bytes(), git("rev-parse", "HEAD")) == before
    assert "+two" in text
    assert "staged.txt" not in text


def test_what_was_proposed_is_committed_and_nothing_else(use: Use, workspace: Path, git: Git) -> None:
    (workspace / "staged.txt").write_text("staged\n")
    git("add", "staged.txt")
    (workspace / "a.txt").write_text("two\n")
    (workspace / "new").mkdir()
    (workspace / "new/b.txt").write_text("b\n")
    number = propose(use, "change: two things\n\nBecause.", paths=["a.txt", "new"])
    (workspace / "a.txt").write_text("three\n")
    said = use("git.commit", proposal=number)
    assert said.startswith(f"committed {git('rev-parse', 'HEAD')[:12]} on branch main: change: two things")
    assert git("show", "HEAD:a.txt") == "two"
    assert git("log", "-1", "--format=%B") == "change: two things\n\nBecause."
    assert git("ls-tree", "-r", "--name-only", "HEAD").split() == ["a.txt", "new/b.txt"]
    assert git("status", "--short").splitlines() == ["M a.txt", "A  staged.txt"]


def test_the_tree_is_clean_afterwards(use: Use, workspace: Path, git: Git) -> None:
    (workspace / "a.txt").unlink()
    (workspace / "b.txt").write_text("b\n")
    (workspace / "link").symlink_to("b.txt")
    use("git.commit", proposal=propose(use))
    assert git("status", "--short") == ""
    assert git("ls-tree", "-r", "--name-only", "HEAD").split() == ["b.txt", "link"]


def test_the_first_commit_of_all(use: Use, workspace: Path, git: Git) -> None:
    git("checkout", "--quiet", "--orphan", "fresh")
    git("rm", "--quiet", "--cached", "a.txt")
    use("git.commit", proposal=propose(use, "begin"))
    assert git("log", "--format=%s") == "begin"
    assert git("status", "--short") == ""


def test_without_a_branch(use: Use, workspace: Path, git: Git) -> None:
    git("checkout", "--quiet", "--detach")
    main = git("rev-parse", "main")
    (workspace / "a.txt").write_text("two\n")
    use("git.commit", proposal=propose(use))
    assert git("rev-parse", "HEAD~1") == main == git("rev-parse", "main")


def test_a_proposal_is_committed_once(use: Use, workspace: Path) -> None:
    (workspace / "a.txt").write_text("two\n")
    number = propose(use)
    use("git.commit", proposal=number)
    with pytest.raises(Retry, match="there is no proposal"):
        use("git.commit", proposal=number)


@pytest.mark.parametrize("number", ["00000000", "../../x", "", "zzzzzzzz"])
def test_an_unknown_proposal(use: Use, number: str) -> None:
    with pytest.raises(Retry, match="there is no proposal"):
        use("git.commit", proposal=number)


def test_when_the_branch_moved_on(use: Use, workspace: Path, git: Git) -> None:
    (workspace / "a.txt").write_text("two\n")
    number = propose(use)
    git("commit", "--quiet", "--allow-empty", "-m", "meanwhile")
    with pytest.raises(Failed, match="has moved since"):
        use("git.commit", proposal=number)


def test_when_another_branch_is_checked_out_at_the_same_commit(use: Use, workspace: Path, git: Git) -> None:
    (workspace / "a.txt").write_text("two\n")
    number = propose(use)
    git("checkout", "--quiet", "-b", "topic")
    with pytest.raises(Failed, match="branch main at"):
        use("git.commit", proposal=number)


def test_nothing_to_commit_no_message_and_an_unknown_path(use: Use, workspace: Path) -> None:
    with pytest.raises(Failed, match="nothing to commit"):
        use("git.propose", message="m")
    with pytest.raises(Retry, match="needs a message"):
        use("git.propose", message=" \n")
    with pytest.raises(Retry, match="did not match"):
        use("git.propose", message="m", paths=["missing.txt"])


def test_a_path_is_no_pattern(use: Use, workspace: Path) -> None:
    (workspace / "a.txt").write_text("two\n")
    with pytest.raises(Retry, match="did not match"):
        use("git.propose", message="m", paths=["*.txt"])
    with pytest.raises(Retry, match="did not match"):
        use("git.propose", message="m", paths=[":(top)a.txt"])


def test_during_a_merge(use: Use, workspace: Path, git: Git) -> None:
    git("checkout", "--quiet", "-b", "topic")
    (workspace / "a.txt").write_text("topic\n")
    git("commit", "--quiet", "-am", "topic")
    git("checkout", "--quiet", "main")
    (workspace / "a.txt").write_text("main\n")
    git("commit", "--quiet", "-am", "main")
    with pytest.raises(Exception, match="merge"):
        git("merge", "topic")
    with pytest.raises(Failed, match="a merge is under way"):
        use("git.propose", message="m")


def test_a_file_changed_within_the_tick_of_the_index(use: Use, workspace: Path, git: Git) -> None:
    git("config", "core.trustCTime", "false")
    file, moment = workspace / "a.txt", 1_700_000_000_000_000_000
    os.utime(file, ns=(moment, moment))
    git("add", "a.txt")
    # Same size and time as git remembers: only the age of the index says that it has to look.
    os.utime(workspace / ".git/index", ns=(moment, moment))
    file.write_text("six\n")
    os.utime(file, ns=(moment, moment))
    assert "+six" in use("git.propose", message="m")


SECRETS = {
    "AKIA" + "ABCDEFGHIJKLMNOP": "an AWS access key",
    "aws_secret_access_key = " + "abcd" * 10: "an AWS secret key",
    "ghp_" + "a1B2" * 9: "a GitHub token",
    "xoxb-" + "1234567890-abcdef": "a Slack token",
    "sk-ant-" + "api03-" + "x" * 30: "an Anthropic key",
    "sk-proj-" + "aB3_" * 10: "an OpenAI key",
    "-----BEGIN OPENSSH " + "PRIVATE KEY-----": "a private key",
    "AIza" + "b" * 35: "a Google key",
    "123456789:AA" + "f" * 33: "a Telegram bot token",
}


@pytest.mark.parametrize(("text", "kind"), SECRETS.items(), ids=SECRETS.values())
def test_a_secret_in_a_line(use: Use, workspace: Path, text: str, kind: str) -> None:
    (workspace / "a.txt").write_text(f"one\nharmless\nvalue: {text}\n")
    with pytest.raises(Failed, match=f"`a.txt` line 3: {kind}") as caught:
        use("git.propose", message="m")
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    "name", [".env", "deep/.env.local", "server.pem", "id_rsa", "id_ed25519.bak", "x.key", ".npmrc.secret", "Prod.P12"]
)
def test_a_file_that_holds_secrets_by_its_name(use: Use, workspace: Path, git: Git, name: str) -> None:
    file = workspace / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("anything\n")
    with pytest.raises(Failed, match=re.escape(f"`{name}`")):
        use("git.propose", message="m")
    # Asking again, or having staged it oneself, changes nothing.
    git("add", "--force", name)
    with pytest.raises(Failed, match=re.escape(f"`{name}`")):
        use("git.propose", message="m")


def test_a_secret_in_a_binary_file_and_in_the_message(use: Use, workspace: Path) -> None:
    key = "ghp_" + "a1B2" * 9
    (workspace / "data.bin").write_bytes(b"\0\1\2" + key.encode() + b"\0")
    with pytest.raises(Failed, match=r"`data\.bin` line 1"):
        use("git.propose", message="m")
    with pytest.raises(Failed, match="the message contains"):
        use("git.propose", message=f"m {key}")


def test_a_renamed_key_file_is_seen(use: Use, workspace: Path, git: Git) -> None:
    git("mv", "a.txt", "id_rsa")
    with pytest.raises(Failed, match="`id_rsa`"):
        use("git.propose", message="m")


@pytest.mark.parametrize("name", [".env.example", "id_rsa.pub", "keyboard.txt"])
def test_harmless_names(use: Use, workspace: Path, name: str) -> None:
    (workspace / name).write_text("sk-some-very-long-css-class-name-that-goes-on-and-on\n")
    propose(use)


def test_removing_a_secret_is_allowed(use: Use, workspace: Path, git: Git) -> None:
    (workspace / ".env").write_text("KEY=" + "ghp_" + "a1B2" * 9)
    git("add", "--force", ".env")
    git("commit", "--quiet", "-m", "oops")
    (workspace / ".env").unlink()
    use("git.commit", proposal=propose(use))
    assert git("ls-files") == "a.txt"


def test_a_repository_inside_is_not_taken_along(use: Use, workspace: Path, git: Git) -> None:
    git("init", "--quiet", "inner")
    git("-C", "inner", "commit", "--quiet", "--allow-empty", "-m", "inner")
    with pytest.raises(Failed, match="`inner` is a repository of its own"):
        use("git.propose", message="m")


def test_the_pre_commit_hook_refuses(use: Use, workspace: Path, git: Git) -> None:
    hook(workspace, "pre-commit", "echo too long >&2; exit 1")
    (workspace / "a.txt").write_text("two\n")
    with pytest.raises(Failed, match="pre-commit hook refuses: too long"):
        use("git.commit", proposal=propose(use))
    assert git("log", "--format=%s") == "first"


def test_the_pre_commit_hook_sees_what_is_proposed(use: Use, workspace: Path, git: Git) -> None:
    hook(workspace, "pre-commit", "git show :a.txt > seen; git diff --cached --name-only -- '*.txt' >> seen")
    (workspace / "a.txt").write_text("two\n")
    number = propose(use)
    (workspace / "a.txt").write_text("three\n")
    use("git.commit", proposal=number)
    assert (workspace / "seen").read_text() == "two\na.txt\n"


def test_the_pre_commit_hook_changes_the_tree(use: Use, workspace: Path, git: Git) -> None:
    hook(workspace, "pre-commit", "echo formatted > a.txt; git add a.txt")
    (workspace / "a.txt").write_text("two\n")
    with pytest.raises(Failed, match="changed what was approved"):
        use("git.commit", proposal=propose(use))
    assert git("log", "--format=%s") == "first"


def test_the_commit_msg_hook_completes_or_refuses(use: Use, workspace: Path, git: Git) -> None:
    hook(workspace, "commit-msg", 'printf "\\nChange-Id: I1\\n" >> "$1"')
    (workspace / "a.txt").write_text("two\n")
    use("git.commit", proposal=propose(use, "m"))
    assert git("log", "-1", "--format=%B") == "m\n\nChange-Id: I1"
    hook(workspace, "commit-msg", "echo no scope; exit 1")
    (workspace / "a.txt").write_text("three\n")
    with pytest.raises(Failed, match="commit-msg hook refuses: no scope"):
        use("git.commit", proposal=propose(use))


def test_a_long_diff_is_shortened(use: Use, workspace: Path) -> None:
    (workspace / "a.txt").write_text("line\n" * 100_000)
    assert "[shortened to 40000 bytes" in use("git.diff")
    assert len(use("git.propose", message="m")) < 90_000


def test_in_a_folder_below_the_root(use: Use, workspace: Path, git: Git, ctx: Any) -> None:
    below = workspace / "below"
    below.mkdir()
    (below / "b.txt").write_text("b\n")
    (workspace / "a.txt").write_text("two\n")
    git("config", "diff.relative", "true")
    git("config", "diff.noprefix", "true")
    ctx._native.workspace = str(below)
    ctx._workspace = None
    text = use("git.propose", message="only below")
    assert "b.txt" in text
    assert "a.txt" not in text
    use("git.commit", proposal=text.split()[1])
    assert git("status", "--short") == "M a.txt"


def test_proposals_are_not_readable_by_others(use: Use, workspace: Path, ctx: Any) -> None:
    (workspace / "a.txt").write_text("two\n")
    number = propose(use)
    stored = json.loads((ctx.data / "proposals" / f"{number}.json").read_text())
    assert stored["branch"] == "refs/heads/main"
    assert (ctx.data / "proposals").stat().st_mode & 0o077 == 0
