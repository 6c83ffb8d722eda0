"""Finding secrets in what would be committed."""

import re
from collections.abc import Iterator
from fnmatch import fnmatch

_NAMES = (
    *(
        ".env",
        ".env.*",
        "*.env",
        ".envrc",
        "*.pem",
        "*.key",
        "*.p12",
        "*.pfx",
        "*.jks",
        "*.keystore",
        "*.kdbx",
        "*.ppk",
    ),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", ".netrc", "_netrc", ".pgpass", ".htpasswd", ".git-credentials"),
    *("*.secret", "*.secrets", "*.credentials", "credentials.json", "service-account*.json", "service_account*.json"),
)
_HARMLESS = ("*.example", "*.sample", "*.template", "*.dist", "*.pub", "*.example.*")

_TOKEN = rb"(?<![A-Za-z0-9_-])"
_SHAPES = {
    "a private key": rb"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----",
    "an AWS access key": _TOKEN + rb"(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Z])",
    "an AWS secret key": rb"(?i:aws_?secret_?access_?key)[\"']?\s{0,5}[=:]\s{0,5}[\"']?[A-Za-z0-9/+]{40}",
    "a GitHub token": _TOKEN + rb"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{50,255})",
    "a GitLab token": _TOKEN + rb"glpat-[A-Za-z0-9_-]{20,}",
    "a Slack token": _TOKEN + rb"(?:xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{10,})",
    "a Slack webhook": rb"hooks\.slack\.com/services/T[A-Z0-9]+/B[A-Z0-9]+/[A-Za-z0-9]{20,}",
    "an Anthropic key": _TOKEN + rb"sk-ant-[A-Za-z0-9_-]{20,}",
    # A digit and a capital, because `sk-` also begins names in kebab case.
    "an OpenAI key": _TOKEN + rb"sk-(?=[A-Za-z0-9_-]{0,200}[0-9])(?=[A-Za-z0-9_-]{0,200}[A-Z])[A-Za-z0-9_-]{32,}",
    "a Google key": _TOKEN + rb"AIza[0-9A-Za-z_-]{35}",
    "a Stripe key": _TOKEN + rb"[rs]k_live_[0-9A-Za-z]{20,}",
    "a Hugging Face token": _TOKEN + rb"hf_[A-Za-z0-9]{34,}",
    "an npm token": _TOKEN + rb"npm_[A-Za-z0-9]{36}",
    "a PyPI token": _TOKEN + rb"pypi-AgE[A-Za-z0-9_-]{50,}",
    "a Telegram bot token": rb"(?<![0-9])[0-9]{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])",
}
_ANY = re.compile(b"|".join(b"(%b)" % shape for shape in _SHAPES.values()))
_KINDS = list(_SHAPES)


def by_name(path: str) -> bool:
    """Tell whether a file of this name holds a secret by custom."""
    name = path.rpartition("/")[2].lower()
    return any(fnmatch(name, shape) for shape in _NAMES) and not any(fnmatch(name, shape) for shape in _HARMLESS)


def in_text(text: bytes) -> str | None:
    """Name the kind of secret in a text, if one is there. The secret itself is never repeated."""
    found = _ANY.search(text)
    return _KINDS[(found.lastindex or 1) - 1] if found else None


def in_diff(diff: bytes) -> Iterator[tuple[str, int, str]]:
    """Give path, line and kind for each added line of a diff (made with `-U0`) that looks like a secret."""
    path, number, left = "", 0, 0
    for line in diff.split(b"\n"):
        if left == 0:
            if line.startswith(b"+++ "):
                path = line[4:].strip(b'"\t\r').removeprefix(b"b/").decode("utf-8", "replace")
            elif hunk := re.match(rb"@@ -\d+(?:,\d+)? \+(\d+)(?:,(\d+))? @@", line):
                number, left = int(hunk[1]), int(hunk[2]) if hunk[2] else 1
        elif line.startswith(b"+"):
            kind = in_text(line[1:])
            if kind:
                yield path, number, kind
            number, left = number + 1, left - 1
