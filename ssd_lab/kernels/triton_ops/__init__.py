"""The operations of `kernels.interface` in Triton: one file a kernel, `triton_kernels` puts them behind the interface.

Importing a module of this package imports triton; nothing outside it does.
"""
