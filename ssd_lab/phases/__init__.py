"""What a device computes in a round, as functions of tensors alone: draft, grow trees, verify."""
