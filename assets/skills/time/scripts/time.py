"""The clock."""

from datetime import datetime, tzinfo
from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

from omni import Retry, tool


@tool(
    read_only=True,
    open_world=False,
    examples=["what time is it?", "what is the date today?", "what time is it in Tokyo now?"],
)
def now(zone: str = "") -> str:
    """Current date and time."""
    return _shown(datetime.now(_zone(zone)))


@tool(
    read_only=True,
    idempotent=True,
    open_world=False,
    examples=["convert 14:00 from New York to Berlin time", "what is 9 am London time in Sydney?"],
)
def convert(time: str, to: str, zone: str = "") -> str:
    """Convert an ISO time, from zone if it has no offset."""
    moment = _moment(time.strip(), _zone(zone))
    try:
        if moment.tzinfo is None:
            source = _zone(zone)
            moment = moment.replace(tzinfo=source) if source else moment.astimezone()
        return _shown(moment.astimezone(_zone(to)))
    except (OverflowError, ValueError):
        raise Retry(f"`{time}` is at the edge of the calendar") from None


def _moment(text: str, zone: tzinfo | None) -> datetime:
    # A time of day alone is one of today.
    for form in (text, f"{datetime.now(zone).date().isoformat()}T{text}"):
        try:
            return datetime.fromisoformat(form)
        except ValueError:
            continue
    raise Retry(f"`{text}` is no time; write it as 2030-12-31T14:00, or 14:00 for today")


def _zone(name: str) -> tzinfo | None:
    """Find a zone; `None` is the one of this machine."""
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        known = sorted(available_timezones())
        folded = {zone.casefold(): zone for zone in known}
        cities = {zone.rpartition("/")[2].casefold(): zone for zone in known if "/" in zone}
        asked = name.strip().replace(" ", "_").casefold()
        close = get_close_matches(asked, [*cities, *folded], 1, 0.7)
        hint = f"; did you mean `{cities.get(close[0]) or folded[close[0]]}`?" if close else "; for one: Europe/Berlin"
        raise Retry(f"there is no time zone `{name}`{hint}") from None


def _shown(moment: datetime) -> str:
    moment = moment if moment.tzinfo else moment.astimezone()
    name = getattr(moment.tzinfo, "key", None) or moment.tzname()
    return f"{moment.isoformat(' ', 'seconds')} ({name}), {_DAYS[moment.weekday()]}"


_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
