from dataclasses import FrozenInstanceError, replace

import pytest

from feeds import make_feed


def test_it_is_as_long_as_its_images_and_does_not_change():
    feed = make_feed(5)
    assert len(feed) == 5
    with pytest.raises(FrozenInstanceError):
        feed.uncacheable_reason = "never"
    assert replace(feed, uncacheable_reason="anew").uncacheable_reason == "anew"
