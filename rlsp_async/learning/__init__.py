"""The learner: batches of verified rollouts in, new weights out.

In the order in which a batch meets them:

    learner.py      trains step after step, publishes, saves; answers repeats
    step_order.py   how the service calls it: steps in their order, until something fails
    stage.py        what a stage has of its own: algorithm, optimizers, critic, reference, the weights it starts from
    rows.py         a batch of messages as arrays
    reward.py       rewards from the parts of verdicts, and their metrics
    update.py       epochs, minibatches and micro-batches: from rewards to gradients
    ranks.py        one of the processes of a learner: what it holds, and what it exchanges with the others
    follower.py     the processes of ranks 1 to N - 1: how they start, and what they obey
    pack.py         sequences end to end in one row, without padding (pure)
    policy.py       the model: log-probs, entropy and values of a packed row
    lora.py         adapters: what is trained in the place of all weights, and its sum with them
    head.py         from hidden states to logits, as the model's own forward pass does it
    attention.py    attention over a packed row
    fidelity.py     does the learner compute the model that the checkpoint is? looked at once, when a model is loaded
    optim.py        from gradients to steps: AdamW and Muon, schedule, clipping; the average of a policy
    publish.py      the probe of published weights; the model as a Hugging Face directory
    outbox.py       what is written beside training: two threads for versions with their reports, and for files
    checkpoint.py   checkpoints, complete or absent
    export.py       the model of a checkpoint as a Hugging Face directory (`rlsp export-model`)
    fence.py        which start of the learner may write the files of a run
"""
