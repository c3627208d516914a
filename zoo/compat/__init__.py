"""Translates what other systems wrote into presets.

Owns translations only: parameters in, preset and report out. Never runs anything.
Add a system: a folder here.
"""
