"""The Parquet lake of training candidates, one folder per industry and grant.

Others write with `write` and `admission`, take back with `erase`, merge with `compact`, read with `reading` and
`training`, copy with `pull` and `verify`, and look with `stats` and `audit`.
The lake knows no ledger: who calls brings the grants.
"""
