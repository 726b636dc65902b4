"""What the site needs beyond the pages of docs/: those of the top level, and Markdown inside `<details>`."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_COPIED = ("GLOSSARY.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
TOP_LEVEL = {"README.md": "index.md"} | {name: name for name in _COPIED}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the top level."""
    root = Path(config.config_file_path).parent
    for name, page in TOP_LEVEL.items():
        text = (root / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point links at the places that pages have on the site."""
    for name, page in TOP_LEVEL.items():
        markdown = markdown.replace(f"](../{name}", f"]({page}").replace(f"]({name}", f"]({page}")
    return markdown.replace("<details>", '<details markdown="1">')
