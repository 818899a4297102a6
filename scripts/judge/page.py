#!/usr/bin/env python3
"""Whether a page is whole and loads nothing: every element that must be closed is closed in order, no id stands twice,
links lead to ids of the page, and no attribute or style names another place.

usage: page.py PAGE.html

Prints one line of JSON: {"bytes": N, "tags": {name: count}, "text": "..."}, the text without scripts and styles.
Exit status 1 and a line on stderr when something is wrong. Needs nothing but Python.
"""

import collections
import html.parser
import json
import pathlib
import re
import sys

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
IMAGE = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/]+=*")
LOADING = {"src", "srcset", "data", "poster", "action", "background", "xlink:href"}


def fail(message):
    print(f"page.py: {message}", file=sys.stderr)
    sys.exit(1)


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.links, self.text = [], set(), set(), []
        self.tags = collections.Counter()

    def handle_starttag(self, tag, attributes):
        self.attributes(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        # <rect/> inside of a drawing.
        self.attributes(tag, attributes)
        if "svg" not in self.open:
            fail(f"<{tag}/> at {self.getpos()} outside of a drawing")

    def attributes(self, tag, attributes):
        self.tags[tag] += 1
        names = [name for name, _ in attributes]
        if len(names) != len(set(names)):
            fail(f"an attribute stands twice in <{tag}> at {self.getpos()}")
        for name, value in attributes:
            value = value or ""
            if name == "id":
                if value in self.ids:
                    fail(f"id `{value}` stands twice")
                self.ids.add(value)
            elif name == "href" and value.startswith("#"):
                self.links.add(value[1:])
            elif tag == "image" and name == "href" and IMAGE.fullmatch(value):
                pass
            elif name in LOADING or (name == "href" and value != "data:,") or name.startswith("on"):
                fail(f'<{tag} {name}="{value}"> at {self.getpos()}')
            elif "url(" in value or (value.startswith("http") and name != "content"):
                fail(f'<{tag} {name}="{value}"> at {self.getpos()}')

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            fail(f"</{tag}> at {self.getpos()} closes {self.open[-1:]}")
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "style" and re.search(r"url\(|@import|https?:", data):
            fail("the style names another place")
        if self.open and self.open[-1] == "script" and re.search(r"fetch|XMLHttp|import|https?:", data):
            fail("the script names another place")
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def main():
    content = pathlib.Path(sys.argv[1]).read_bytes()
    text = content.decode("utf-8")
    if not text.startswith("<!DOCTYPE html>"):
        fail("no document type")
    page = Page()
    page.feed(text)
    page.close()
    if page.open:
        fail(f"never closed: {page.open}")
    if page.links - page.ids:
        fail(f"links lead nowhere: {sorted(page.links - page.ids)[:5]}")
    print(json.dumps({"bytes": len(content), "tags": page.tags, "text": " ".join(" ".join(page.text).split())}))


if __name__ == "__main__":
    main()
