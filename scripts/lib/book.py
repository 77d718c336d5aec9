"""What `make book` needs beside mdBook: pages for the files that the documentation links to, and a check of all links.

    book.py                  as mdBook's preprocessor: reads the book on standard input, writes it on standard output
    book.py supports NAME    whether it works for this renderer: yes
    book.py check FOLDER     checks every link and picture of the built book; ends with 1 if one leads nowhere

The documentation links to files outside of docs/: configurations, manifests, code. On GitHub such links work as they
are. In the book each such file becomes a page of its own, and README.md the first page. Python's own library is all
that it needs.
"""

import html.parser
import json
import os
import pathlib
import re
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FRONT = "README.md"
LANGUAGES = {
    ".rs": "rust,ignore", ".toml": "toml", ".yml": "yaml", ".yaml": "yaml", ".json": "json", ".sh": "bash", ".py": "python",
}
# Number of the last chapter: higher than all others.
LAST = 1000
# A link or a picture: its text may be code, its target has no space.
LINK = re.compile(r"\]\(([^)\s]+)\)")


def page_of(file):
    """Path in the book of the page for a file of the project, as mdBook counts: from docs/, and in .md."""
    name = str(file.relative_to(ROOT))
    return "introduction.md" if name == FRONT else f"files/{name if file.suffix == '.md' else name + '.md'}"


class Files:
    """Files outside of docs/ that have a page, in the order in which they were found."""

    def __init__(self):
        self.found = []

    def linked(self, markdown, folder, page):
        """The text with its links to files leading to their pages. It was written in `folder`, and becomes `page`."""

        def target(match):
            link = match.group(1)
            path, hash_, anchor = link.partition("#")
            if not path or "://" in link or link.startswith("mailto:"):
                return match.group(0)
            file = pathlib.Path(os.path.normpath(folder / path))
            if not file.is_file():
                # A folder has no page: its name is enough.
                return f"]({link})" if not file.is_dir() else "]"
            if file.is_relative_to(DOCS):
                # mdBook makes index.html of a README.md.
                to = re.sub(r"(^|/)README\.md$", r"\1index.md", str(file.relative_to(DOCS)))
            else:
                if file not in self.found:
                    self.found.append(file)
                to = page_of(file)
            return f"]({os.path.relpath(to, os.path.dirname(page) or '.')}{hash_}{anchor})"

        return outside_of_code(markdown, lambda text: LINK.sub(target, text))

    def content(self, file):
        text = file.read_text()
        if file.suffix == ".md":
            return self.linked(text, file.parent, page_of(file))
        fence = "`" * 8
        return f"# {file.relative_to(ROOT)}\n\n{fence}{LANGUAGES.get(file.suffix, 'text')}\n{text}\n{fence}\n"


def outside_of_code(markdown, change):
    """Applies `change` to the text that is not a block of code."""
    parts, is_code, run = [], False, []
    for line in markdown.splitlines(keepends=True):
        if line.lstrip().startswith("```"):
            if not is_code:
                parts.append(change("".join(run)))
                run = []
            is_code = not is_code
            parts.append(line)
        elif is_code:
            parts.append(line)
        else:
            run.append(line)
    return "".join(parts) + change("".join(run))


def chapter(name, content, path, number=None, below=()):
    return {
        "Chapter": {
            "name": name, "content": content, "number": number, "sub_items": list(below), "path": path,
            "source_path": None, "parent_names": [],
        }
    }


def preprocess():
    _, book = json.load(sys.stdin)
    files = Files()

    def walk(items):
        for item in items:
            one = item.get("Chapter") if isinstance(item, dict) else None
            if one and one["path"]:
                one["content"] = files.linked(one["content"], (DOCS / one["path"]).parent, one["path"])
            if one:
                walk(one["sub_items"])

    walk(book["items"])
    front = ROOT / FRONT
    book["items"].insert(0, chapter("Rillway", files.content(front), page_of(front)))
    pages, done = [], {front}
    # What a page links to has a page too.
    while rest := [file for file in files.found if file not in done]:
        for file in rest:
            done.add(file)
            pages.append((str(file.relative_to(ROOT)), files.content(file), page_of(file)))
    pages.sort()
    names = "".join(f"- [{name}]({path})\n" for name, _, path in pages)
    listed = chapter(
        "Files of the project", f"# Files of the project\n\nThe files that the other pages mention.\n\n{names}", "files.md",
        # What is folded away is told by the numbers, which are not shown.
        [LAST], [chapter(*page, [LAST, nth]) for nth, page in enumerate(pages, 1)],
    )
    book["items"] += ["Separator", listed]
    json.dump(book, sys.stdout)


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for key, value in attributes:
            if key in ("id", "name"):
                self.ids.add(value)
            elif key in ("href", "src") and value is not None:
                self.links.append(value)


def check(folder):
    folder = pathlib.Path(folder).resolve()
    # The last two are made of the others, by mdBook.
    pages = {p: Page(p.read_text()) for p in folder.rglob("*.html") if p.name not in ("toc.html", "404.html")}
    wrong, count = [], 0
    for path, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            count += 1
            to = pathlib.Path(os.path.normpath(path.parent / urllib.parse.unquote(parts.path))) if parts.path else path
            if not to.is_relative_to(folder) or not to.is_file():
                wrong.append(f"{path.relative_to(folder)}: {link} is not there")
            elif parts.fragment and to in pages and urllib.parse.unquote(parts.fragment) not in pages[to].ids:
                wrong.append(f"{path.relative_to(folder)}: {link} has no such heading")
    print("\n".join(wrong + [f"{len(pages)} pages, {count} links, {len(wrong)} of which lead nowhere"]))
    return 1 if wrong or not count else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["supports"]:
        sys.exit(0)
    if sys.argv[1:2] == ["check"]:
        sys.exit(check(sys.argv[2]))
    preprocess()
