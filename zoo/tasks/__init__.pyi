from .base import Task as Task
from .base import open_data as open_data
from .base import task_of as task_of
