"""The gallery's page: all of a family is on it, nothing is loaded, and no text of a task is read as HTML."""

from dataclasses import dataclass
from html.parser import HTMLParser
from typing import ClassVar

import pytest

import rlpt.tasks  # noqa: F401  (registers)
from rlpt import registry
from rlpt.report.gallery import gallery_page, write_gallery
from rlpt.tasks.base import Task
from rlpt.tasks.catalogue import Entry, find
from rlpt.tasks.profile import profile

HOSTILE = "<script>alert(1)</script>&\"'\x00\u202e<img src=https://example.org/x.png onerror=alert(1)>"
VOID = {"meta", "input", "line", "polyline", "br"}
LOADING = {"src", "srcset", "action", "data", "poster", "background", "style-src", "xlink:href"}


@dataclass(frozen=True)
class Hostile(Task):
    """Its docstring closes </style></p> and opens <script>alert(2)</script> and `<b>code</b>`.

    <iframe src="https://example.org"></iframe>
    """

    name: ClassVar[str] = HOSTILE
    alphabet: ClassVar[str] = HOSTILE
    thought_alphabet: ClassVar[str] = HOSTILE

    choice: str = "<script>alert(3)</script>"

    def answer_limit(self, level):
        return len(HOSTILE)

    def solution(self, problem):
        return f"{HOSTILE} {HOSTILE}"

    def generate(self, rng, level):
        return f"{HOSTILE} {rng.random()}", HOSTILE, {}

    def grade(self, problem, answer):
        return float(answer == problem.answer)


class Page(HTMLParser):
    """Reads a page: tags opened and closed in order, attributes, ids, and the text outside of style and script."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        while self.open[-1] != tag and self.open[-1] in ("li", "p"):
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def values(self, name):
        return [value for _, attribute, value in self.attributes if attribute == name]


def page_of(*names, count=3):
    families = [(find(name), profile(find(name).create(), count)) for name in names]
    return gallery_page(families)


def first_of_kind(kind):
    return next(name for name in registry.names("task") if registry.lookup("task", name).kind == kind)


def test_card_shows_what_a_family_is():
    page = Page(page_of("countdown", "sort"))
    assert page.open == []
    assert page.tags.count("article") == 2
    assert page.tags.count("svg") == 2
    for text in ("Countdown: reach a target", "Right is any expression", "several right answers", "one right answer"):
        assert text in page.text
    assert all(f"level {level}" in page.text for level in (0, 3, 6, 9))
    assert "problems/s" in page.text
    assert "EXTRA_EDGES" not in page.text
    assert "LENGTHS" in page.text
    assert page.text.count("<|prompt|>") == 8, "the document of each example"


def test_contents_lead_to_every_card():
    page = Page(page_of("addition", "graph_path", "sort"))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    links = page.values("href")
    assert {"#addition", "#graph-path", "#sort", "#field-lists", "#field-graphs"} <= set(links)
    assert all(link[1:] in ids for link in links)


def test_games_show_values_and_environments_their_episodes():
    page = Page(page_of(first_of_kind("game"), first_of_kind("environment")))
    assert "best" in page.values("class")
    assert "legal moves" in page.text
    assert page.values("class").count("turn") >= 4
    assert "score 1.00, over" in page.text


def test_page_loads_nothing():
    html = page_of("reverse", first_of_kind("game"), first_of_kind("environment"))
    page = Page(html)
    assert not {name for _, name, _ in page.attributes} & LOADING
    assert not set(page.tags) & {"link", "img", "iframe", "object", "embed", "base", "video", "audio"}
    assert all(value.startswith("#") for value in page.values("href"))
    assert not any(word in html for word in ("http:", "https:", "@import", "url(", "fetch(", "XMLHttpRequest"))


def test_hostile_text_is_only_text(tmp_path):
    entry = Entry(HOSTILE, "task", "native", '"><script>alert(4)</script>', Hostile)
    reason = Entry("<u>x</u>", "task", "reasoning_gym", "reasoning_gym", unusable="<script>alert(5)</script>")
    path = write_gallery([(entry, profile(entry.create(), 2)), (reason, [])], tmp_path / "page.html")
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert page.tags.count("script") == 1
    assert page.tags.count("style") == 1
    assert not set(page.tags) & {"img", "iframe", "b" * 2, "u"}
    assert not any(name.startswith("on") or name in LOADING for _, name, _ in page.attributes)
    assert "<script>alert(1)</script>" in page.text
    assert "<script>alert(5)</script>" in page.text
    assert r"\x00\u202e<img" in page.text
    assert "<b>code</b>" in page.text
    assert "\x00" not in html


def test_what_cannot_be_used_is_listed_with_its_reason():
    entry = Entry("zebra", "task", "reasoning_gym", "reasoning_gym", unusable="runs the answer")
    missing = Entry("chess", "game", "open_spiel", "games", unavailable="install rlpt[games]")
    page = Page(gallery_page([(find("sort"), []), (entry, []), (missing, [])]))
    assert page.tags.count("article") == 1
    assert page.text.count("runs the answer") == 1
    assert "install rlpt[games]" in page.text
    assert page.tags.count("svg") == 0, "nothing was measured"


@pytest.mark.parametrize("count", [1, 4])
def test_levels_shown_are_spread_over_those_there_are(count):
    @dataclass(frozen=True)
    class Short(Hostile):
        """Few levels."""

        max_level: ClassVar[int] = count - 1

    entry = Entry("short", "task", "native", "lists", Short)
    page = Page(gallery_page([(entry, profile(entry.create(), 1))]))
    assert page.tags.count("h4") == count
