"""The commands of `streamtrain`: their arguments, and nothing else.

`main` has the parser and the commands of training and evaluation; `catalog` those of lightcones,
`runs` those that take finished runs, `maps` those that read or write maps, `bench` the benchmarks.
What a command does is imported when it runs, so that `--help` answers at once.
"""
