"""What an adapter is: the rules for its files. Reads files, nothing else."""
