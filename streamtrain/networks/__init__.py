"""The networks: normalised input, a body, a head.

Start with `network`. The bodies are `means`, `cnn`, `compact`, `resnet` and `summaries`; `heads`,
`joint` and `flow` say what a network predicts and what its loss is (`intervals`: the probability of
a number of halos). How many of what, filters or bins of k, is in `settings`; where bins of k lie,
in `streamtrain.spectra`; what is done to T first, asinh or log, is an operator
(`operators.transforms`).
"""
