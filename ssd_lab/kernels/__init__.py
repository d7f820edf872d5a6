"""What a forward and a round need besides matrix products: once in torch, once in Triton."""
