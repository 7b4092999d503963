"""The Parquet lake of training candidates, one folder per industry and grant.

Others use `write` (`CandidateFacts`, `write_candidates`), `admission` (`admit`, `admitted_items`, `admitted_files`),
`erase` (`erase_grant`, `reconcile`), `query` (`Query`) and `pull` (`pull`).
The lake knows no ledger: who calls brings the grants.
"""
