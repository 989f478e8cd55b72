"""The commands of `streamtrain`: their arguments, and nothing else.

`main` has the parser and the commands that train; `catalog` those of lightcones, `evaluate`
those of test sets, `runs` those that take finished runs, `maps` those that read or write maps,
`bench` the benchmarks; `common` has what they share. What a command does is imported when it
runs, so that `--help` answers at once.
"""
