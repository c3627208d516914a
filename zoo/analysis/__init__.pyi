from .embedding import Embedding as Embedding
from .embedding import embed_splits as embed_splits
from .search_result import Search as Search
from .search_trials import search as search
from .space import DEFAULT_SPACE as DEFAULT_SPACE
