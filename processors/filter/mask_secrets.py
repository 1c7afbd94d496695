"""What of a text may be written down: its beginning, with all that looks like a secret masked.

Under RE2, whose time is linear in the text: what is masked was written by somebody who means harm.
"""

import re2

MASK = "[secret]"
EXCERPT_CHARS = 200
LOOKED_AT_CHARS = 2_000  # more than an excerpt: a secret that is cut by its end would be none any more

_PATTERNS = (
    r"-----BEGIN [A-Z ]+-----[^-]*(-----END [A-Z ]+-----)?",
    r"\beyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*){0,4}",  # tokens (JWT)
    r"\b(sk|pk|rk)[-_][A-Za-z0-9_-]{8,}",
    r"\bwhsec_[A-Za-z0-9+/=_-]{8,}",
    r"\b(AKIA|ASIA)[A-Z0-9]{12,}",
    r"\bAIza[A-Za-z0-9_-]{20,}",
    r"\b(gh[pousr]|github_pat|glpat|xox[abeprs]|hf|hvs|npm|pypi)[-_][A-Za-z0-9_-]{8,}",
    r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}",
    # Of a name and a value the value, whatever it looks like.
    r"(?i)(pass(word|wd|phrase)?|pwd|secret|token|api[ _-]?key|access[ _-]?key|private[ _-]?key|"
    r"credentials?)\b[\"']?\s*(is|=|:|-)\s*[\"']?[^\s\"',;]{3,}",
    r"(?i)(парол[ьея]|ключ|токен)[\"']?\s*(это|=|:|-)\s*[\"']?[^\s\"',;]{3,}",  # (\b is of ASCII)
    r"://[^\s/@:]{1,200}:[^\s/@]{1,200}@",
    r"\b[0-9a-fA-F]{32,}\b",
    r"\b[A-Za-z0-9+/_-]{40,}={0,2}",
    r"\b(\d[ -]?){12,18}\d\b",  # cards and accounts
    r"\b[\w.+-]{1,64}@[\w-]{1,63}(\.[\w-]{1,63})+",  # whose address is nobody's business
)
_options = re2.Options()
_options.log_errors = False
_SECRETS = re2.compile("|".join(f"({pattern})" for pattern in _PATTERNS), _options)


def excerpt(text: str) -> str:
    """The text's beginning in one line of at most 200 characters."""
    masked: str = _SECRETS.sub(MASK, text[:LOOKED_AT_CHARS])
    line = " ".join(masked.split())
    return line if len(line) <= EXCERPT_CHARS else line[: EXCERPT_CHARS - 1] + "…"
