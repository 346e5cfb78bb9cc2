"""Docker and Compose: the engine API, processes, throwaway containers, and the world of a procedure.

Start at `engine.Engine`. Only this folder imports `docker`, `httpx` and `subprocess`; nothing here knows of CHAP.
"""
