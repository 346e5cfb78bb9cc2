"""Docker and Compose: the engine API, processes, registries, throwaway containers, and the world of a procedure.

The door is `engine.Engine`. The door of `docker`, `httpx` and `subprocess`; nothing here knows of CHAP.
"""
