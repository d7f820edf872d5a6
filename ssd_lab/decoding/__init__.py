"""Pure maths on tensors: acceptance, sampling, random numbers, trees. Knows no model, device or engine."""
