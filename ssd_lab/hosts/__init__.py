"""The processes that `torchrun` started on several hosts: how they find each other, and where each rank and draft
works.
"""
