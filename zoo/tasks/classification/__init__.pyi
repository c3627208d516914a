from .data import open_data as open_data
from .task import TASK as TASK
