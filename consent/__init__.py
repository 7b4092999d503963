"""Who allowed what: ledger (append-only, hash-chained), policy (pure), gate (Arrow filter), button.

Others use `ledger` (read, withdraw, decline, verify), `gate` (`gate`, `confirm`), `grants`, `policy`, `notice`,
`consent_receipt` and `suppression` (what a restored backup must not forget). Only `portal.web.account` may use
`button`; nobody but `button`, `ledger` and `suppression` may use `append`.
"""
