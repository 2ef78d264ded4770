"""How the weights of a version travel from the learner to the samplers, and how a sampler knows that they arrived.

transport.py   the Protocol of a transport (publish, fetch, prune), and which transport a reference names
sums.py        sums of tensors: a plan of what was published, compared with what arrived or what an engine holds
snapshot.py    one version as the bytes of a safetensors file: copied once, read by everybody else
file.py        the transport of `file://`: safetensors files in a directory
channel.py     the Protocol of a channel between the learner and one sampler; the loops that send and receive a version
group_channel.py  what channels over a process group of torch have in common
gloo.py        the channel of kind "gloo": TCP between hosts
nccl.py        the channel of kind "nccl": from card to card
kinds.py       which kinds there are, and which one a learner and a sampler take
serve.py       the learner's side: samplers are invited, and sent what they ask for
receive.py     the side of an engine: a thread that receives into a staging
place.py       where a run's directory lies: chosen, judged, marked as the run's own, removed
leftovers.py   what runs that are over left in shared memory
probe.py       a fixed sequence whose log-probs show that an engine computes with the published weights

A transport is one module that satisfies `transport.WeightTransport`, and a line for its scheme in `transport_for`.
"""
