"""How phases are executed: eagerly or as CUDA graphs, what is copied to the host, what was prepared and when."""
