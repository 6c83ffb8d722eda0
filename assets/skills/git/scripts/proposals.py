"""A commit that waits for approval: its tree is made and pinned, and nothing else has happened."""

import contextlib
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from omni import Context, Failed, Retry

from . import leaks, repository
from .repository import GitError

_AGE = 7 * 24 * 3600.0
"""Seconds a proposal stays. Git itself removes objects that nothing refers to after two weeks."""
_UNDER_WAY = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
}


@dataclass(frozen=True, slots=True)
class Proposal:
    """What was approved: this tree, on this parent, on this branch, with this message."""

    id: str
    root: str
    tree: str
    parent: str | None
    branch: str | None
    """The full name of the branch; `None` when no branch is checked out."""
    message: str
    made: float

    @classmethod
    def make(cls, ctx: Context, message: str, paths: list[str]) -> "Proposal":
        """Put the paths as they are now upon the last commit, in an index of its own, and keep the tree."""
        message = _checked_message(message)
        root = repository.line(ctx, "rev-parse", "--show-toplevel")
        _refuse_unfinished(ctx)
        parent, branch = _head(ctx)
        with _index(ctx, parent, copy=True) as env:
            try:
                repository.run(ctx, "add", "--all", "--", *paths, env=env)
            except GitError as error:
                raise Retry(f"these paths cannot be proposed: {error.said}") from None
            tree = repository.line(ctx, "write-tree", env=env)
        base = _base(ctx, parent)
        if tree == repository.line(ctx, "rev-parse", f"{base}^{{tree}}"):
            raise Failed("there is nothing to commit: the files are as in the last commit")
        _refuse_secrets(ctx, base, tree)
        proposal = cls(secrets.token_hex(4), root, tree, parent, branch, message, time.time())
        folder = _folder(ctx)
        beside = folder / f"{proposal.id}.tmp"
        beside.write_text(json.dumps(asdict(proposal)), "utf-8")
        beside.replace(folder / f"{proposal.id}.json")
        return proposal

    @classmethod
    def load(cls, ctx: Context, number: str) -> "Proposal":
        """Find a proposal by its id."""
        file = _folder(ctx) / f"{number}.json"
        if not re.fullmatch(r"[0-9a-f]{8}", number) or not file.exists():
            raise Retry(f"there is no proposal `{number}`; make one with `git.propose`")
        proposal = cls(**json.loads(file.read_text("utf-8")))
        if proposal.root != repository.line(ctx, "rev-parse", "--show-toplevel"):
            raise Failed(f"proposal `{number}` is about another repository, `{proposal.root}`")
        return proposal

    def shown(self, ctx: Context) -> str:
        """Describe it for the one who has to approve it."""
        base = _base(ctx, self.parent)
        stat = repository.text(ctx, "diff-tree", "-r", "--stat", *repository.PLAIN_DIFF, base, self.tree)
        diff = repository.text(ctx, "diff-tree", "-r", "--patch", *repository.PLAIN_DIFF, base, self.tree)
        return (
            f"proposal {self.id} on {self._where()}, tree {self.tree[:12]}\n\n{self.message}\n\n{stat}\n\n{diff}\n\n"
            f"Nothing is committed yet. To commit exactly this: git.commit with proposal={self.id}"
        )

    def commit(self, ctx: Context) -> str:
        """Commit the pinned tree, if the branch is where it was."""
        _refuse_unfinished(ctx)
        if _head(ctx) != (self.parent, self.branch):
            raise Failed(f"proposal `{self.id}` was made on {self._where()}, which has moved since; propose again")
        message = self._run_hooks(ctx)
        signed = ["-S"] if _setting(ctx, "commit.gpgSign") == "true" else []
        parents = ["-p", self.parent] if self.parent else []
        made = repository.run(ctx, "commit-tree", *signed, *parents, "-F", "-", self.tree, given=message.encode())
        new = made.decode().strip()
        subject = message.partition("\n")[0]
        reference = ["HEAD", "--no-deref"] if self.branch is None else [self.branch]
        try:
            # With the old value: whoever was faster wins, and nothing is lost.
            name, *flags = reference
            kind = "commit" if self.parent else "commit (initial)"
            repository.run(ctx, "update-ref", *flags, "-m", f"{kind}: {subject}", name, new, self.parent or "")
        except GitError as error:
            raise Failed(
                f"`{self.branch or 'HEAD'}` moved while committing, nothing was changed: {error.said}"
            ) from None
        note = self._refresh_index(ctx, new)
        (_folder(ctx) / f"{self.id}.json").unlink(missing_ok=True)
        with contextlib.suppress(Failed):
            repository.hook(ctx, Path(self.root), "post-commit")
        return f"committed {new[:12]} on {self._where(short=True)}: {subject}{note}"

    def _where(self, *, short: bool = False) -> str:
        branch = f"branch {self.branch.removeprefix('refs/heads/')}" if self.branch else "no branch"
        return branch if short else f"{branch} at {self.parent[:12] if self.parent else 'its beginning'}"

    def _run_hooks(self, ctx: Context) -> str:
        """Let the repository's hooks look; returns the message, which `commit-msg` may have completed."""
        root = Path(self.root)
        with _index(ctx, self.tree) as env:
            try:
                repository.hook(ctx, root, "pre-commit", env=env)
            except GitError as error:
                raise Failed(f"the pre-commit hook refuses: {error.said}") from None
            if repository.line(ctx, "write-tree", env=env) != self.tree:
                raise Failed("the pre-commit hook changed what was approved; nothing is committed, propose again")
            file = Path(env["GIT_INDEX_FILE"]).with_name("COMMIT_EDITMSG")
            file.write_text(self.message + "\n", "utf-8")
            try:
                repository.hook(ctx, root, "commit-msg", str(file), env=env)
            except GitError as error:
                raise Failed(f"the commit-msg hook refuses: {error.said}") from None
            return _checked_message(file.read_text("utf-8")) + "\n"

    def _refresh_index(self, ctx: Context, new: str) -> str:
        """Tell the person's index about the paths that were committed, and about no other."""
        base = _base(ctx, self.parent)
        names = repository.run(ctx, "diff-tree", "-r", "--no-renames", "--name-only", "-z", base, new)
        reset = ["reset", "--quiet", "--pathspec-from-file=-", "--pathspec-file-nul"]
        try:
            repository.run(ctx, *reset, given=names, where=Path(self.root))
        except GitError as error:
            return f" (the index could not be refreshed: {error.said})"
        return ""


def _checked_message(message: str) -> str:
    message = "\n".join(line.rstrip() for line in message.strip().splitlines())
    if not message:
        raise Retry("a commit needs a message")
    if "\0" in message:
        raise Retry("a commit message cannot contain a NUL character")
    kind = leaks.in_text(message.encode("utf-8", "replace"))
    if kind:
        raise Failed(f"the message contains what looks like {kind}")
    return message


def _refuse_unfinished(ctx: Context) -> None:
    folder = Path(repository.line(ctx, "rev-parse", "--absolute-git-dir"))
    for name, what in _UNDER_WAY.items():
        if (folder / name).exists():
            raise Failed(f"{what} is under way; finish it or abort it first")


def _head(ctx: Context) -> tuple[str | None, str | None]:
    """Return the commit that is checked out and its branch, each `None` where there is none."""
    parent: str | None = None
    branch: str | None = None
    with contextlib.suppress(GitError):
        parent = repository.line(ctx, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    with contextlib.suppress(GitError):
        branch = repository.line(ctx, "symbolic-ref", "--quiet", "HEAD")
    return parent, branch


def _base(ctx: Context, parent: str | None) -> str:
    return parent or repository.line(ctx, "hash-object", "-t", "tree", "--stdin")


def _setting(ctx: Context, name: str) -> str:
    try:
        return repository.line(ctx, "config", "--type=bool", "--get", name)
    except GitError:
        return ""


@contextlib.contextmanager
def _index(ctx: Context, tree: str | None, *, copy: bool = False) -> Iterator[dict[str, str]]:
    """Make an index with the contents of a tree; gives the variable that makes git use it.

    With `copy` it begins as the person's own, whose file times spare git from reading every file again.
    """
    with tempfile.TemporaryDirectory(prefix="omni-git-") as folder:
        env = {"GIT_INDEX_FILE": os.path.join(folder, "index")}
        own = Path(ctx.workspace, repository.line(ctx, "rev-parse", "--git-path", "index"))
        if copy and tree and own.is_file():
            # With its time, by which git knows which files to look at again.
            shutil.copy2(own, env["GIT_INDEX_FILE"])
        repository.run(ctx, "read-tree", *(["--reset", tree] if tree else ["--empty"]), env=env)
        yield env


def _refuse_secrets(ctx: Context, base: str, tree: str) -> None:
    """Raise `Failed`, saying where, when the difference holds secrets or another repository."""
    raw = repository.run(ctx, "diff-tree", "-r", "--raw", "-z", "--no-renames", base, tree)
    fields = raw.decode("utf-8", "surrogateescape").split("\0")
    found: list[str] = []
    for info, path in zip(fields[::2], fields[1::2], strict=False):
        old_mode, new_mode, _, _, kind = info.split(" ")
        if new_mode == "160000" and old_mode == ":000000":
            raise Failed(f"`{path}` is a repository of its own; name the paths to propose, without it")
        if kind != "D" and leaks.by_name(path):
            found.append(f"`{path}`: files of this name hold secrets")
    # As text, because a key in a binary file is a key too.
    options = ["-r", "--patch", "-U0", "--text", "--no-renames", *repository.PLAIN_DIFF]
    diff = repository.run(ctx, "diff-tree", *options, base, tree, cut=False)
    found += [f"`{path}` line {line}: {kind}" for path, line, kind in leaks.in_diff(diff)]
    if found:
        more = f"; and {len(found) - 20} more" if len(found) > 20 else ""
        raise Failed(
            f"this looks like secrets, so nothing is proposed: {'; '.join(found[:20])}{more}. Leave these out with "
            "`paths`, or add them to .gitignore; if they are none, a person can commit them with git"
        )


def _folder(ctx: Context) -> Path:
    """Return where proposals are kept, after dropping the old ones."""
    folder = ctx.data / "proposals"
    folder.mkdir(mode=0o700, exist_ok=True)
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > _AGE:
                file.unlink()
    return folder
