"""Every source on its own stream: the blocks in which the generators of one source are those of the process."""
