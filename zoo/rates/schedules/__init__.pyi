from .base import Curve as Curve
from .curves import CURVES as CURVES
from .parse import Clock as Clock
from .parse import Plateau as Plateau
from .parse import list_schedules as list_schedules
from .parse import register_schedule as register_schedule
from .parse import to_plain as to_plain
