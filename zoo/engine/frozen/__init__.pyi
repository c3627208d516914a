from .code_digest import UnreadableCodeError as UnreadableCodeError
from .code_digest import digest_code as digest_code
from .folding import fold_norms as fold_norms
from .keys import ABOUT as ABOUT
from .keys import features_folder as features_folder
from .keys import read_about as read_about
from .policy import backbone_trains_reason as backbone_trains_reason
