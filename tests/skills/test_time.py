"""The clock."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from omni import Retry

Use = Callable[..., Any]


def test_now_here_and_elsewhere(use: Use) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d \(.+\), \w+day", use("time.now"))
    tokyo = use("time.now", zone="Asia/Tokyo")
    assert re.search(r"\+09:00 \(Asia/Tokyo\), ", tokyo)
    assert abs(datetime.fromisoformat(tokyo.partition(" (")[0]).timestamp() - datetime.now().timestamp()) < 60


def test_convert(use: Use) -> None:
    summer = use("time.convert", time="2030-07-01T14:00", zone="America/New_York", to="Europe/Berlin")
    assert summer == "2030-07-01 20:00:00+02:00 (Europe/Berlin), Monday"
    assert use("time.convert", time="2030-01-01T00:00Z", to="Asia/Kolkata").startswith("2030-01-01 05:30:00+05:30")
    assert " 09:30:00+00:00 (UTC)" in use("time.convert", time="09:30", zone="UTC", to="UTC")


def test_what_is_no_time_and_no_zone(use: Use) -> None:
    with pytest.raises(Retry, match="is no time"):
        use("time.convert", time="tomorrow", to="UTC")
    with pytest.raises(Retry, match="did you mean `Europe/Berlin`"):
        use("time.now", zone="berlin")
    with pytest.raises(Retry, match="did you mean `America/New_York`"):
        use("time.now", zone="New York")
    with pytest.raises(Retry, match="no time zone"):
        use("time.now", zone="../../etc/passwd")
    with pytest.raises(Retry, match="edge of the calendar"):
        use("time.convert", time="0001-01-01T00:00", zone="UTC", to="America/New_York")
