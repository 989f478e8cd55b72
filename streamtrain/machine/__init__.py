"""What streamtrain needs of the computer: files, memory, processes, signals, the terminal.

Nothing here knows of halos or maps. Start with `files`: how a file is read with a sentence for
whatever is wrong with it, and how one is written whole or not at all.
"""
