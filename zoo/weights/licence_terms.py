"""What the licences of weights allow in words, by their SPDX identifiers: for cards, and for what may be passed on.

The words sum up the deed or the text behind each link; the text itself is what counts.
"""

from typing import NamedTuple


class Terms(NamedTuple):
    """What a licence asks for.

    Attributes:
        name: What it is called.
        words: What it allows, in a sentence without its full stop.
        link: Where its text is; empty if it is not known.
        on_hub: Whether the Hub knows it by its identifier.
        may_pass_on: Whether changed copies may be given to others.
    """

    name: str
    words: str
    link: str
    on_hub: bool = True
    may_pass_on: bool = True


_FREE = "use, change and pass on, also commercially"
_NOTICE = f"{_FREE}; its text and the notices of its authors go along"
_CREDIT = "name the authors and what was changed"
_CC = "https://creativecommons.org/licenses"
_TERMS = {
    "apache-2.0": Terms("Apache License 2.0", _NOTICE, "https://www.apache.org/licenses/LICENSE-2.0"),
    "mit": Terms("MIT License", _NOTICE, "https://opensource.org/license/mit"),
    "bsd-2-clause": Terms("BSD 2-Clause License", _NOTICE, "https://opensource.org/license/bsd-2-clause"),
    "bsd-3-clause": Terms("BSD 3-Clause License", _NOTICE, "https://opensource.org/license/bsd-3-clause"),
    "isc": Terms("ISC License", _NOTICE, "https://opensource.org/license/isc-license-txt"),
    "cc0-1.0": Terms("CC0 1.0", f"{_FREE}, without conditions", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "cc-by-4.0": Terms("CC BY 4.0", f"{_FREE}; {_CREDIT}", f"{_CC}/by/4.0/"),
    "cc-by-sa-4.0": Terms("CC BY-SA 4.0", f"{_FREE}, under the same licence; {_CREDIT}", f"{_CC}/by-sa/4.0/"),
    "cc-by-nc-4.0": Terms(
        "CC BY-NC 4.0", f"use, change and pass on, but not commercially; {_CREDIT}", f"{_CC}/by-nc/4.0/"
    ),
    "cc-by-nc-sa-4.0": Terms(
        "CC BY-NC-SA 4.0",
        f"use, change and pass on under the same licence, but not commercially; {_CREDIT}",
        f"{_CC}/by-nc-sa/4.0/",
    ),
    "cc-by-nd-4.0": Terms("CC BY-ND 4.0", "changed copies are not passed on", f"{_CC}/by-nd/4.0/", may_pass_on=False),
    "cc-by-nc-nd-4.0": Terms(
        "CC BY-NC-ND 4.0", "no commercial use, and changed copies are not passed on", f"{_CC}/by-nc-nd/4.0/",
        may_pass_on=False,
    ),
    "gpl-3.0": Terms("GNU GPL 3.0", f"{_FREE}, under the same licence", "https://www.gnu.org/licenses/gpl-3.0.html"),
    "agpl-3.0": Terms(
        "GNU AGPL 3.0",
        f"{_FREE}, under the same licence, which also binds services over a network",
        "https://www.gnu.org/licenses/agpl-3.0.html",
    ),
    "licenseref-yolo-nas-non-commercial": Terms(
        "licence of the YOLO-NAS weights (Deci.AI)",
        "no commercial or production use, and neither the weights nor models fine-tuned from them are passed on",
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
    return _TERMS.get(licence.strip().lower()) or Terms(licence, "its terms are not known here", "", on_hub=False)
