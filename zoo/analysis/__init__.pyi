from .embedding import Embedding as Embedding
from .embedding import embed_splits as embed_splits
