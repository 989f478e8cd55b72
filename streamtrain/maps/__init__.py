"""Maps in files: those of users and of other programs, and samples for other programs."""
