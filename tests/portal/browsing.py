"""A browser without JavaScript, for tests: it opens pages, fills in the forms that it finds and sends them."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from starlette.testclient import TestClient


@dataclass
class FoundForm:
    """A form on a page. `fields`: what it would send untouched. `offered`: boxes that are not ticked."""

    action: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    offered: list[tuple[str, str]] = field(default_factory=list)
    buttons: dict[str, str] = field(default_factory=dict)


class Forms(HTMLParser):
    """Collects the forms of a page and the words of its buttons."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: list[FoundForm] = []
        self.words = ""
        self._button: str | None = None
        self._is_in_form = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self.forms.append(FoundForm(given.get("action") or ""))
            self._is_in_form = True
        elif tag == "input" and self._is_in_form:
            pair = (given["name"] or "", given.get("value") or "")
            is_left_out = given.get("type") == "checkbox" and "checked" not in given
            (self.forms[-1].offered if is_left_out else self.forms[-1].fields).append(pair)
        elif tag == "button" and self._is_in_form:
            self._button = given.get("formaction") or self.forms[-1].action

    def handle_endtag(self, tag: str) -> None:
        if tag == "button":
            self._button = None
        elif tag == "form":
            self._is_in_form = False

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._button is not None and data.strip():
            self.forms[-1].buttons[data.strip()] = self._button


class Browser:
    """One person's browser with its cookies."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.html = ""
        self.status = 0
        self.at = self.query = ""

    def open(self, path: str) -> Browser:
        """Go to a page, following redirects."""
        return self._show(self.client.get(path))

    @property
    def forms(self) -> list[FoundForm]:
        return Forms(self.html).forms

    @property
    def words(self) -> str:
        """What can be read on the page, spaces joined."""
        return " ".join(Forms(self.html).words.split())

    def press(self, button: str, tick: tuple[str, ...] = (), nth: int = 0) -> Browser:
        """Press the nth button of that name after ticking boxes by value; send its form as a browser would."""
        form = [each for each in self.forms if button in each.buttons][nth]
        ticked = [pair for pair in form.offered if pair[1] in tick]
        assert len(ticked) == len(tick), "a box that is not on the page cannot be ticked"
        return self.send(form.buttons[button], form.fields + ticked)

    def send(self, action: str, pairs: list[tuple[str, str]], headers: dict[str, str] | None = None) -> Browser:
        """Post fields, following redirects."""
        data: dict[str, list[str]] = {}
        for name, value in pairs:
            data.setdefault(name, []).append(value)
        sent = {"sec-fetch-site": "same-origin", **(headers or {})}
        return self._show(self.client.post(action, data=data, headers=sent))

    def _show(self, answer) -> Browser:
        self.html, self.status, self.at = answer.text, answer.status_code, answer.url.path
        self.query = answer.url.query.decode()
        return self
