"""What streamtrain needs of the computer: files, memory, processes, signals, the terminal.

Nothing here knows of halos or maps. Start with `files`: how a file is read with a sentence for
whatever is wrong with it, and how one is written whole or not at all. `workers` has the cores and
the processes that share work, `memory` what is free, both by the limits of `cgroups`; `interrupt`
the signals, `progress` the line that says how long something takes.
"""
