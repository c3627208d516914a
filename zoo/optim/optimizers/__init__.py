"""Optimizers that torch and timm do not have, or compute otherwise.

Owns classes that repeat the arithmetic of other frameworks. Never knows a plan, a model or a run.
Add one: a file here with a class derived from `torch.optim.Optimizer`; it is found by its folder.
"""
