"""The Prefect flows, and nothing that could live without Prefect.

`flows.process_batch`, `flows.cleanup` and `flows.reconcile` each hold one flow of that name. Only ids are parameters:
what a flow works with is in `flows.parts`. Call `flows.engine.prepare` before importing a flow.
"""
