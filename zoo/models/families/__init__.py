"""Families of models, one file or folder each.

Owns the networks and the names, sizes and weights of each. Never imports another family; what several share begins
with `_`.
Add a family: a file here whose name begins the names of its models; it is found by its folder.
"""
