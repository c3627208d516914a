from .base import Logger as Logger
from .base import Loggers as Loggers
from .base import RunFacts as RunFacts
from .base import RunResult as RunResult
from .base import find_loggers as find_loggers
from .plots import Plots as Plots
from .report import Report as Report
