"""When the exchange's day ends: what is open then is looked at before. Pure."""

from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

# Lists of orders and commands are of one session and are emptied then (docs/exchange.md); daylight saving is the zone's.
ZONE = ZoneInfo("America/New_York")
RESET = time(17)
# Time enough for a few reads that fail, and for reads that wait for a budget by the second or the minute.
AHEAD = timedelta(minutes=2)


def last_look(now: datetime) -> datetime:
    """The next moment at which everything open must be read: shortly before the next reset."""
    here = now.astimezone(ZONE)
    today = datetime.combine(here.date(), RESET, ZONE)
    if today - AHEAD <= here:  # two times of one zone are compared by the wall, as the reset is
        today = datetime.combine(here.date() + timedelta(days=1), RESET, ZONE)
    return (today - AHEAD).astimezone(now.tzinfo)


def last_reset(now: datetime) -> datetime:
    """When the session of `now` began: the exchange's lists have nothing from before."""
    here = now.astimezone(ZONE)
    today = datetime.combine(here.date(), RESET, ZONE)
    if today > here:
        today = datetime.combine(here.date() - timedelta(days=1), RESET, ZONE)
    return today.astimezone(now.tzinfo)
