"""Looking at a repository, and committing what a person approved."""

from omni import Context, Failed, Retry, tool

from . import repository
from .proposals import Proposal

_MOST_COMMITS = 200


@tool(
    read_only=True,
    open_world=False,
    examples=["what is the git status of this repository?", "which files changed?", "is the working tree clean?"],
)
def status(ctx: Context) -> str:
    """Branch and changed files."""
    text = repository.text(ctx, "status", "--short", "--branch", "--ignore-submodules=dirty")
    return text if "\n" in text.strip() else f"{text.strip()}\nnothing to commit, working tree clean"


@tool(
    read_only=True,
    open_world=False,
    examples=["show me the diff", "what did I change in main.rs?", "what is staged?"],
)
def diff(ctx: Context, path: str = "", revision: str = "", staged: bool = False) -> str:
    """Changes not committed, or since a revision."""
    arguments = ["diff", *repository.PLAIN_DIFF, *(["--cached"] if staged else [])]
    text = repository.text(ctx, *arguments, *_revision(revision), "--", *_path(ctx, path))
    return text or "no differences"


@tool(
    read_only=True,
    open_world=False,
    examples=["show the last 5 commits", "who changed this file last?", "what is in the git log?"],
)
def log(ctx: Context, count: int = 20, revision: str = "", path: str = "") -> str:
    """Recent commits."""
    if not 1 <= count <= _MOST_COMMITS:
        raise Retry(f"`count` is between 1 and {_MOST_COMMITS}")
    form = "--format=%h %ad %an: %s"
    arguments = ["log", "--no-show-signature", "--no-color", "--date=iso", form, f"--max-count={count}"]
    return repository.text(ctx, *arguments, *_revision(revision), "--", *_path(ctx, path))


@tool(
    read_only=True,
    open_world=False,
    examples=["show the commit 1a2b3c4", "what did the last commit change?"],
)
def show(revision: str, ctx: Context) -> str:
    """One commit with its diff."""
    arguments = ["show", "--no-show-signature", "--stat", "--patch", *repository.PLAIN_DIFF]
    return repository.text(ctx, *arguments, *(_revision(revision) or ["HEAD"]), "--")


@tool(
    read_only=True,
    open_world=False,
    examples=["which branches are there?", "what branch am I on?"],
)
def branch(ctx: Context) -> str:
    """List branches."""
    form = "%(HEAD) %(refname:short) %(objectname:short) %(upstream:short) %(upstream:track) %(contents:subject)"
    listed = repository.text(ctx, "branch", "--list", "--no-color", "--sort=-committerdate", f"--format={form}")
    return listed or "there is no branch yet, because there is no commit"


@tool(
    destructive=False,
    open_world=False,
    timeout=300,
    examples=["commit my changes", "prepare a commit with a good message"],
)
def propose(message: str, ctx: Context, paths: tuple[str, ...] = ()) -> str:
    """Prepare a commit for approval; returns its id and diff."""
    return Proposal.make(ctx, message, [*(_path(ctx, path or ".")[0] for path in paths or ["."])]).shown(ctx)


@tool(
    open_world=False,
    timeout=600,
    examples=["approve the proposed commit", "commit the proposal 1a2b3c4d"],
)
def commit(proposal: str, ctx: Context) -> str:
    """Commit exactly what was proposed."""
    return Proposal.load(ctx, proposal).commit(ctx)


def _revision(revision: str) -> list[str]:
    """Check a revision: one beginning with a dash would be read as an option."""
    if not revision:
        return []
    if revision.startswith("-") or any(char < " " for char in revision):
        raise Retry(f"{revision!r} is no revision; give a commit, a branch, or a range such as `main..HEAD`")
    return [revision]


def _path(ctx: Context, path: str) -> list[str]:
    """Check that a path, which may be deleted or a link, lies in the workspace; the link stays a link."""
    if not path:
        return []
    if "\0" in path:
        raise Failed(f"{path!r} is no path: it contains a NUL character")
    root = ctx.resolve(".")
    folder, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        place = ctx.resolve(path)
    else:
        place = ctx.resolve(folder or ("/" if path.startswith("/") else ".")) / name
    return [str(place.relative_to(root))]
