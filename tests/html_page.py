"""A page as a browser reads it."""

from html.parser import HTMLParser

ALONE = {"meta", "img", "br"}


class Page(HTMLParser):
    """What a browser makes of a page: elements that are closed in order, their attributes, and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.loads, self.text = [], set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in ALONE:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
