"""A small real ingester beside LightRAG's: a process of its own that writes doc status, in JSON files or in Postgres.

It can be killed, and its writes are seen by whoever reads the stores. Put on PYTHONPATH, `sitecustomize` here makes
it stand for `hybridrag.adapters.ingester` in every Python process that is started so.
"""
