"""Runs next to one another: the command `compare`.

Start with `compare_runs`: the table, of runs as `runs` reads them from their folders;
`runs_figures` draws their histories, errors and predictions.
"""
