"""The policy's truth table as a page of the docs, worked out by asking the policy itself.

`python -m consent.truth_table` writes docs/consent-policy.md; a test fails while that file is not what this makes.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from consent.policy import Facts, LedgerUnreadable, Reason, decide
from schemas.consent import Grant
from schemas.ids import AccountId, GrantId
from schemas.industries import Industry

PAGE = Path(__file__).parents[1] / "docs" / "consent-policy.md"

_RECEIVED = datetime(2026, 1, 10, tzinfo=UTC)
_DAY = timedelta(days=1)
_ID = GrantId("g" + "0" * 32)
_FACTS = Facts(received_at=_RECEIVED, industry="automotive", grant_id=_ID)
_GRANT = Grant(
    grant_id=_ID,
    account_id=AccountId("a" + "0" * 32),
    industry=Industry.AUTOMOTIVE,
    granted_at=_RECEIVED - _DAY,
    withdrawn_at=None,
    notice_version="1",
)
_NOW = _RECEIVED + timedelta(hours=1)


def _grant(**changed: object) -> Grant:
    return _GRANT.model_copy(update=changed)


CASES: tuple[tuple[str, Facts, Grant | LedgerUnreadable | None, datetime, datetime | None], ...] = (
    ("A grant for this industry, given before receipt, not withdrawn", _FACTS, _GRANT, _NOW, None),
    ("The same, given at the very moment of receipt", _FACTS, _grant(granted_at=_RECEIVED), _NOW, None),
    ("The same, and the text asks again since an earlier day", _FACTS, _GRANT, _NOW, _RECEIVED - 2 * _DAY),
    ("The time of receipt is missing", replace(_FACTS, received_at=None), _GRANT, _NOW, None),
    ("The batch has no industry tag", replace(_FACTS, industry=None), _GRANT, _NOW, None),
    ("The tag is empty", replace(_FACTS, industry=""), _GRANT, _NOW, None),
    ("The tag is unknown", replace(_FACTS, industry="aviation"), _GRANT, _NOW, None),
    ("The tag differs in case", replace(_FACTS, industry="Automotive"), _GRANT, _NOW, None),
    ("No grant was live at receipt; one was given later", replace(_FACTS, grant_id=None), _GRANT, _NOW, None),
    ("The ledger cannot be read, or does not verify", _FACTS, LedgerUnreadable(), _NOW, None),
    ("The ledger knows no such grant", _FACTS, None, _NOW, None),
    ("The ledger answers with another grant", replace(_FACTS, grant_id="g" + "1" * 32), _GRANT, _NOW, None),
    ("The grant is for another industry", _FACTS, _grant(industry=Industry.STUDIO), _NOW, None),
    ("The grant was withdrawn before now", _FACTS, _grant(withdrawn_at=_RECEIVED), _NOW, None),
    ("The grant was withdrawn, says the ledger, in the future", _FACTS, _grant(withdrawn_at=_NOW + _DAY), _NOW, None),
    ("The grant is younger than the batch", _FACTS, _grant(granted_at=_RECEIVED + _DAY / 24), _NOW, None),
    ("The text has changed so much since the grant that we ask again", _FACTS, _GRANT, _NOW, _RECEIVED),
    ("The clock stands before the receipt", _FACTS, _GRANT, _RECEIVED - timedelta(seconds=1), None),
    ("The clock stands before the grant", _FACTS, _GRANT, _RECEIVED - 2 * _DAY, None),
)
"""What is the case, and what the policy is asked."""


def page() -> str:
    """The page as it must be."""
    lines = [
        "# The consent policy",
        "",
        "Generated from `consent/policy.py` by `python -m consent.truth_table`; do not edit.",
        "",
        "> An output is a candidate for training only if a grant for its batch's industry was live when the batch",
        "> was *received* and that same grant is *still* live when the candidate is written. No grant, no tag,",
        "> unknown tag, any doubt: no.",
        "",
        "## What the policy answers",
        "",
        "| when | candidate? | reason |",
        "|---|---|---|",
    ]
    for words, facts, grant, now, reconsent_from in CASES:
        decision = decide(facts, grant, now, reconsent_from)
        lines.append(f"| {words} | {'**yes**' if decision.admitted else 'no'} | {_code(decision.reason)} |")
    lines += ["", "## Reasons", "", "The first that applies, in this order.", "", "| reason | in words |", "|---|---|"]
    lines += [f"| {_code(reason)} | {reason.sentence} |" for reason in Reason]
    return "\n".join(lines) + "\n"


def _code(reason: Reason | None) -> str:
    return "" if reason is None else f"`{reason.value}`"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
