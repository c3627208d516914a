"""The licences that bind a model: what they allow, in words and in what is checked.

The words sum up the deed or the text behind each link; the text itself is what counts. A licence that is not known here
is treated with care twice: it is not taken to allow commercial use, and a card says that its terms are unknown. It may
be pushed: only a licence known to forbid that stops it, for its user knows the terms and answers for them.
"""

import os
from dataclasses import dataclass
from typing import NamedTuple

from zoo.errors import LicenceError


class Terms(NamedTuple):
    """What a licence asks for.

    Attributes:
        name: What it is called.
        words: What it allows, in a sentence without its full stop.
        link: Where its text is; empty if it is not known.
        on_hub: Whether the Hub knows it by its identifier.
        may_pass_on: Whether changed copies may be given to others.
        is_commercial: Whether commercial use is allowed, without conditions on one's own code.
    """

    name: str
    words: str
    link: str
    on_hub: bool = True
    may_pass_on: bool = True
    is_commercial: bool = False


def _free(name: str, words: str, link: str, *, on_hub: bool = True) -> Terms:
    """Return the terms of a licence that allows commercial use."""
    return Terms(name, words, link, on_hub=on_hub, is_commercial=True)


_FREE = "use, modification and redistribution allowed, also commercially"
_UNBOUND = f"{_FREE}, without conditions"
_NOTICE = f"{_FREE}; include the licence text and copyright notices"
_CREDIT = "credit the authors and state changes"
_CC = "https://creativecommons.org/licenses"
_OPEN = "https://opensource.org/license"
_TERMS = {
    "0bsd": _free("BSD Zero Clause License", _UNBOUND, f"{_OPEN}/0bsd", on_hub=False),
    "apache-2.0": _free("Apache License 2.0", _NOTICE, "https://www.apache.org/licenses/LICENSE-2.0"),
    "bsd-2-clause": _free("BSD 2-Clause License", _NOTICE, f"{_OPEN}/bsd-2-clause"),
    "bsd-3-clause": _free("BSD 3-Clause License", _NOTICE, f"{_OPEN}/bsd-3-clause"),
    "bsd-3-clause-clear": _free("BSD 3-Clause Clear License", _NOTICE, "https://spdx.org/licenses/BSD-3-Clause-Clear"),
    "bsl-1.0": _free("Boost Software License 1.0", _NOTICE, f"{_OPEN}/bsl-1-0"),
    "cc-by-3.0": _free("CC BY 3.0", f"{_FREE}; {_CREDIT}", f"{_CC}/by/3.0/"),
    "cc-by-4.0": _free("CC BY 4.0", f"{_FREE}; {_CREDIT}", f"{_CC}/by/4.0/"),
    "cc0-1.0": _free("CC0 1.0", _UNBOUND, "https://creativecommons.org/publicdomain/zero/1.0/"),
    "isc": _free("ISC License", _NOTICE, f"{_OPEN}/isc-license-txt"),
    "mit": _free("MIT License", _NOTICE, f"{_OPEN}/mit"),
    "mit-0": _free("MIT No Attribution", _UNBOUND, f"{_OPEN}/mit-0", on_hub=False),
    "unlicense": _free("The Unlicense", _UNBOUND, f"{_OPEN}/unlicense"),
    "zlib": _free("zlib License", _NOTICE, f"{_OPEN}/zlib"),
    "cc-by-sa-4.0": Terms("CC BY-SA 4.0", f"{_FREE}, under the same licence; {_CREDIT}", f"{_CC}/by-sa/4.0/"),
    "cc-by-nc-4.0": Terms(
        "CC BY-NC 4.0",
        f"use, modification and redistribution allowed, non-commercial only; {_CREDIT}",
        f"{_CC}/by-nc/4.0/",
    ),
    "cc-by-nc-sa-4.0": Terms(
        "CC BY-NC-SA 4.0",
        f"use, modification and redistribution under the same licence allowed, non-commercial only; {_CREDIT}",
        f"{_CC}/by-nc-sa/4.0/",
    ),
    "cc-by-nd-4.0": Terms(
        "CC BY-ND 4.0", "no redistribution of modified versions", f"{_CC}/by-nd/4.0/", may_pass_on=False
    ),
    "cc-by-nc-nd-4.0": Terms(
        "CC BY-NC-ND 4.0", "no commercial use, and no redistribution of modified versions", f"{_CC}/by-nc-nd/4.0/",
        may_pass_on=False,
    ),
    "gpl-3.0": Terms("GNU GPL 3.0", f"{_FREE}, under the same licence", "https://www.gnu.org/licenses/gpl-3.0.html"),
    "agpl-3.0": Terms(
        "GNU AGPL 3.0",
        f"{_FREE}, under the same licence, which also covers network services",
        "https://www.gnu.org/licenses/agpl-3.0.html",
    ),
    "licenseref-yolo-nas-non-commercial": Terms(
        "licence of the YOLO-NAS weights (Deci.AI)",
        "no commercial or production use, and no redistribution of the weights or of models fine-tuned from them",
        "https://github.com/Deci-AI/super-gradients/blob/master/LICENSE.YOLONAS.md",
        on_hub=False,
        may_pass_on=False,
    ),
}  # fmt: skip


def find_terms(licence: str) -> Terms:
    """Return what a licence asks for; one that is not known here has terms that say so, and may be passed on.

    Args:
        licence: SPDX identifier in any case.
    """
    return _TERMS.get(licence.strip().lower()) or Terms(licence, "terms unknown to zoo", "", on_hub=False)


def is_commercial(licence: str | None) -> bool:
    """Whether a licence is known to allow commercial use, without conditions on one's own code.

    Args:
        licence: SPDX identifier in any case; anything else, and None, is not known to.
    """
    return licence is not None and find_terms(licence).is_commercial


@dataclass(frozen=True)
class Licence:
    """Licences that bind a model: of its code, and of the weights it was loaded from or derived from (SPDX ids)."""

    code: str
    weights: str | None = None

    @property
    def commercial(self) -> bool:
        """Whether the weights are known to allow commercial use; a model without loaded weights is free."""
        return self.weights is None or is_commercial(self.weights)


def check_commercial(name: str, licence: str | None, commercial: bool | None = None) -> None:
    """Raise if commercial use was asked for, and the weights are not known to allow it.

    Args:
        name: The model, named in the error.
        licence: Of its weights, SPDX identifier; None: unknown.
        commercial: Whether it was asked for; None asks the environment variable `ZOO_COMMERCIAL_ONLY`.

    Raises:
        LicenceError: The text says what to do.
    """
    only = os.environ.get("ZOO_COMMERCIAL_ONLY", "") not in ("", "0") if commercial is None else commercial
    if only and not is_commercial(licence):
        raise LicenceError(
            f"the weights of {name} have the licence {licence or 'unknown'}, which is not known to allow commercial "
            "use, as required by commercial=True or ZOO_COMMERCIAL_ONLY. Choose a model from "
            "zoo.list_models(commercial=True), or use random weights (--no-pretrained, pretrained=False)."
        )
