"""What becomes of a batch, a night, the lake and what is due, from end to end: the Prefect flows, and what they do.

`process_batch`, `cleanup`, `reconcile`, `compact` and `nights` hold the flows; all else works without Prefect. Only ids
are parameters: what a flow works with is in `flows.parts`. Call `flows.engine.prepare` before importing a flow.
"""
