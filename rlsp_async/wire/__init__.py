"""Messages over ZeroMQ: one ROUTER at the hub (`router.py`), one DEALER at each worker (`link.py`).

Reading order: codec (bytes), liveness, leases and busy (pure state), keys and sockets (options), session (one
connection), loading (weights), link (a worker's life), router (the hub's end), schema (proto/). zmq is imported here
and nowhere else.
"""
