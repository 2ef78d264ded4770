"""Messages between the hub and its workers over ZeroMQ: one ROUTER socket at the hub, one DEALER at each worker.

codec.py      messages <-> msgpack bytes; a bound on every part of a message
contract.py   the schema and the golden vectors of proto/, for other languages
keyring.py    keys on disk: the hub's, the workers', the list of allowed keys
gate.py       which messages the hub gets to see: key, pace, greeting, role
auth.py       CURVE on the sockets, and the hub's authenticator
sockets.py    the two sockets and their options
router.py     the hub's end
address.py    RUN/hub.json: where the hub listens
session.py    one connection of a worker: socket, outbox, reader, writer
jobs.py       a worker's leases, from Work to Ack
loading.py    new weights at a worker
relayed.py    what a worker says to another one through the hub
link.py       a worker's life: hello, heartbeats, reconnect, drain
knock.py      before that: is a hub there, and does its run go on?

zmq is imported here and nowhere else in the package (chaos/proxy.py apart, which damages the wire on purpose).
"""
