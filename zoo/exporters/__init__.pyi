from ._export import Export as Export
from ._export import export as export
from ._find import find_exporter as find_exporter
from ._find import list_exporters as list_exporters
from ._open import is_exported as is_exported
from ._open import open_export as open_export
from .hub import push as push
