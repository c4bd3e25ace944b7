"""Networks of stacked isometric blocks, coarser to finer labels: partitions, training, attacks per level."""
