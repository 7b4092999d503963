"""A person at the portal: opens its pages over HTTP, fills in the forms that it finds there and sends them.

It sends what a browser would send and nothing that is not on the page, so that the demo cannot grant by a back door.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx

from schemas.errors import BgbatchError


@dataclass
class _Form:
    action: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    boxes: set[str] = field(default_factory=set)
    buttons: dict[str, str] = field(default_factory=dict)


class _Forms(HTMLParser):
    """The forms of a page: what they hold, what could be ticked, which buttons send them where."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[_Form] = []
        self._sends_to: str | None = None
        self._words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(_Form(given.get("action", "")))
        elif tag == "input" and self.found and given.get("type") == "checkbox":
            self.found[-1].boxes.add(given["value"])
        elif tag == "input" and self.found and "name" in given:
            self.found[-1].fields.append((given["name"], given.get("value", "")))
        elif tag == "button" and self.found:
            self._sends_to, self._words = given.get("formaction", self.found[-1].action), ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "button" and self._sends_to is not None:
            self.found[-1].buttons[" ".join(self._words.split())] = self._sends_to
            self._sends_to = None

    def handle_data(self, data: str) -> None:
        if self._sends_to is not None:
            self._words += data


class Visitor:
    """One person with a browser of their own."""

    def __init__(self, portal: str) -> None:
        self._client = httpx.Client(base_url=portal, follow_redirects=True, timeout=30)
        self._html = ""

    def open(self, path: str) -> None:
        """Go to a page."""
        self._show(self._client.get(path))

    def press(self, button: str, tick: tuple[str, ...] = ()) -> None:
        """Tick boxes, press the first button whose words start so, and send its form."""
        for form in _Forms(self._html).found:
            words = next((words for words in form.buttons if words.startswith(button)), None)
            if words is None:
                continue
            if not form.boxes.issuperset(tick):
                raise BgbatchError("The page does not offer what the demo wants to tick.")
            pairs = form.fields + [("industry", value) for value in tick]
            data: dict[str, list[str]] = {}
            for name, value in pairs:
                data.setdefault(name, []).append(value)
            self._show(self._client.post(form.buttons[words], data=data, headers={"sec-fetch-site": "same-origin"}))
            return
        raise BgbatchError(f"The page has no button {button!r}.")

    def close(self) -> None:
        """Leave."""
        self._client.close()

    def _show(self, answer: httpx.Response) -> None:
        if answer.is_error:
            raise BgbatchError(f"The portal answered the demo with {answer.status_code}.")
        self._html = answer.text
