from .data import open_data as open_data
from .plots import draw_curves as draw_curves
from .plots import draw_rates as draw_rates
from .task import TASK as TASK
