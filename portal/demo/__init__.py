"""The demo: two accounts, one with *AI Training Data* on, from photos to cutouts, lake, withdrawal and purge.

It uses the doors that people use: the portal's own forms over HTTP, the Prefect flows, the stores of the settings.
"""
