"""Docker and Compose: the engine's API, processes in containers, throwaway containers, and the world of a procedure.

Start at `engine.Engine`. Only this folder imports `docker`; nothing here knows of CHAP.
"""
