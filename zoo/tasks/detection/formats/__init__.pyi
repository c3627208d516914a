from .find import NoBoxesError as NoBoxesError
