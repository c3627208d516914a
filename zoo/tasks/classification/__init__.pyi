from .data import open_data as open_data
from .ranking import Ranked as Ranked
from .ranking import rank_classes as rank_classes
from .split_table import SplitTable as SplitTable
from .split_table import draw_split_table as draw_split_table
from .task import TASK as TASK
