"""The packages of the wheel are the folders that are there; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["zoo", "zoo.*"]), "zoo.presets", "zoo.tools"])
