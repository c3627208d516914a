"""What a user sets once for a whole process: `zoo.config.yolo_nas_repo = "org/name"`."""

import os
from dataclasses import dataclass


@dataclass
class Config:
    """Settings of this process; an environment variable that is set comes first.

    Attributes:
        yolo_nas_repo: Repository on the Hub, `org/name` or `org/name@revision`, that `pretrained=True` asks first for
            the weights of YOLO-NAS. Environment variable: `ZOO_YOLO_NAS_REPO`.
    """

    yolo_nas_repo: str | None = None


config = Config()


def find_setting(name: str) -> str | None:
    """Return what the environment variable `ZOO_<NAME>` or else the field of `config` says; None if neither does."""
    value = os.environ.get(f"ZOO_{name.upper()}") or getattr(config, name)
    return value or None
