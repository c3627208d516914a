from ._datasets import read_box_datasets as read_box_datasets
from ._find import NoBoxesError as NoBoxesError
from ._find import list_formats as list_formats
from ._find import read_box_folder as read_box_folder
from ._format import BoxFormat as BoxFormat
from ._split_traces import UNREAD_SPLITS as UNREAD_SPLITS
