"""Pages that name a file name one that there is."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
IN_CODE = re.compile(r"`([\w.*-]+(?:/[\w.*-]+)*(?:\.py|\.yaml|\.toml|\.md|/))`")
LINKED = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
MADE_LATER = (".assistant/",)
FOLDERS = (
    "processors",
    "ingress",
    "ingress/*",
    "streams",
    "sinks",
    "tests/*",
    "tests/*/*",
    "providers",
    "docs",
    "docs/adr",
)


def is_there(name: str) -> bool:
    """By its path, or by its end where a page has said in which folder it is."""
    path = name.rstrip("/")
    return any(ROOT.glob(path)) or any(next(ROOT.glob(f"{folder}/{path}"), None) for folder in FOLDERS)


def test_links_lead_somewhere_and_code_names_what_there_is() -> None:
    assert len(PAGES) > 20
    wrong = []
    for page in PAGES:
        text = page.read_text()
        wrong += [f"{page.name}: {name}" for name in LINKED.findall(text) if not (page.parent / name).exists()]
        named = {name for name in IN_CODE.findall(text) if not name.startswith(MADE_LATER)}
        wrong += [f"{page.name}: {name}" for name in sorted(named) if not is_there(name)]
    assert not wrong


@pytest.mark.parametrize("package", ["processors", "ingress"])
def test_the_layout_page_has_every_package(package: str) -> None:
    page = (ROOT / "docs" / "layout.md").read_text()
    for below in (ROOT / package).iterdir():
        if (below / "__init__.py").exists():
            assert f"`{package}/{below.name}/`" in page, below
