from .base import DEFAULT_TASK as DEFAULT_TASK
from .base import CardFacts as CardFacts
from .base import Evaluator as Evaluator
from .base import Task as Task
from .base import open_data as open_data
from .base import task_names as task_names
from .base import task_of as task_of
from .options import find_options as find_options
