"""Which of Python's regular expressions Rust's engine understands in the same way."""

import re

_CLASSES = {
    # What Python means, in Rust's words: there `\\w` has marks and lacks `²`, and `\\s` lacks four separators.
    "w": r"\p{L}\p{N}_",
    "d": r"\p{Nd}",
    "s": r"\s\x1c-\x1f",
}
_SAME = frozenset("tnrfva")
_QUANTIFIER = re.compile(r"(?:[*+?]|\{\d+(?:,\d*)?\})\??")
# Where a word ends is decided by Rust's `\\w`, and these are what the two do not agree on.
_DOUBTFUL_WORDS = r"[\p{M}\p{Nl}\p{No}\p{Pc}\p{Join_Control}\p{Alphabetic}&&[^\p{L}\p{Nd}_]]"
# What Python's or Rust's ignoring of case takes for an ASCII letter.
_DOUBTFUL_CASE = r"[\u{130}\u{131}\u{17f}\u{212a}]"


def translated(pattern: str) -> tuple[str, str | None] | None:
    """Put a valid expression of Python into Rust's words.

    Returns it with what text it must not meet, if any; or nothing where Rust has no such thing:
    look-around, backreferences, possessive quantifiers, flags within, named and atomic groups.
    """
    parts: list[str] = []
    doubtful: set[str] = set()
    at = 0
    if pattern.startswith("(?i)"):
        if not pattern.isascii():
            return None
        parts.append("(?i)")
        doubtful.add(_DOUBTFUL_CASE)
        at = 4
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            said = _escape(pattern[at + 1], in_class=False)
            if said is None:
                return None
            if pattern[at + 1] in "bB":
                doubtful.add(_DOUBTFUL_WORDS)
            parts.append(said)
            at += 2
        elif char == "[":
            end, said = _class(pattern, at)
            if said is None:
                return None
            parts.append(said)
            at = end
        elif char == "(":
            is_plain = not pattern.startswith("(?", at) or pattern.startswith("(?:", at)
            if not is_plain:
                return None
            parts.append("(?:")
            at += 3 if pattern.startswith("(?:", at) else 1
        elif char in "*+?{":
            found = _QUANTIFIER.match(pattern, at)
            if found is None or pattern[found.end() : found.end() + 1] == "+":
                return None
            parts.append(found[0])
            at = found.end()
        elif char in ".^$|)":
            parts.append(char)
            at += 1
        else:
            parts.append(_literal(char))
            at += 1
    return "".join(parts), "|".join(sorted(doubtful)) or None


def _escape(char: str, *, in_class: bool) -> str | None:
    if char in _CLASSES:
        return _CLASSES[char] if in_class else f"[{_CLASSES[char]}]"
    if char in "WDS" and not in_class:
        return f"[^{_CLASSES[char.lower()]}]"
    if char in "bB" and not in_class:
        return "\\" + char
    if char in _SAME:
        return "\\" + char
    return None if char.isalnum() else _literal(char)


def _class(pattern: str, at: int) -> tuple[int, str | None]:
    start = at + 1
    negated = pattern.startswith("^", start)
    start += negated
    parts: list[str] = []
    at = start
    while pattern[at] != "]" or at == start:
        char = pattern[at]
        if char == "\\":
            said = _escape(pattern[at + 1], in_class=True)
            at += 2
        else:
            # A hyphen makes a range, but at either end it is one.
            is_range = char == "-" and at != start and pattern[at + 1] != "]"
            said = "-" if is_range else _literal(char)
            at += 1
        if said is None:
            return at, None
        parts.append(said)
    return at + 1, "[" + "^" * negated + "".join(parts) + "]"


def _literal(char: str) -> str:
    return f"\\x{{{ord(char):x}}}" if char.isascii() and not char.isalnum() else char
