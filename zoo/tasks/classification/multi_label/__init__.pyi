from .labels import MULTI as MULTI
from .task import TASK as TASK
