"""The data of a round: sequences and their blocks, rows on the device, proposals and trees, what runs a model."""
