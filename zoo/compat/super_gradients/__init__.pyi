from .parameters import Line as Line
from .recipe import translate_recipe as translate_recipe
from .translation import Translation as Translation
from .translation import training_params as training_params
from .translation import translate as translate
