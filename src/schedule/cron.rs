//! Cron patterns: how `croner` reads them, on `jiff`'s calendar.

use std::cmp::Ordering;

use croner::errors::CronError;
use croner::{CivilDate, CivilDateTime, CivilTime, Cron, CronDateTime, Resolution, Weekday};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};

/// Whether this is a pattern, and why not.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    pattern.parse::<Cron>().map(drop).map_err(|error| error.to_string())
}

/// The first time after `after` that the pattern names, in that time zone; `None` if it names none.
pub(super) fn next(pattern: &str, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let cron: Cron = pattern.parse().ok()?;
    let found = cron.find_next_occurrence(&Moment(after.to_zoned(zone.clone())), false).ok()?;
    Some(found.0.timestamp())
}

/// A moment as croner looks at it. A time that a clock leaves out or shows twice is told apart by
/// `jiff`; what a pattern makes of it is croner's (a fixed time runs once on such a day, just after
/// the gap or in the first of the two hours; a pattern with steps follows the clock).
#[derive(Debug, Clone)]
struct Moment(Zoned);

impl CronDateTime for Moment {
    fn to_civil(&self) -> CivilDateTime {
        let time = self.0.datetime();
        let part = |part: i8| u32::from(part.unsigned_abs());
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(time.year().into(), part(time.month()), part(time.day())),
            CivilTime::from_parts_unchecked(part(time.hour()), part(time.minute()), part(time.second())),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        Weekday::from_days_from_sunday(self.0.weekday().to_sunday_zero_offset().unsigned_abs().into())
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let ambiguous = self.0.time_zone().to_ambiguous_zoned(civil_time(civil)?);
        let time = |zoned: Result<Zoned, jiff::Error>| zoned.map(Self).map_err(|_| CronError::InvalidTime);
        Ok(match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => Resolution::Single(time(ambiguous.unambiguous())?),
            AmbiguousOffset::Fold { .. } => {
                Resolution::Ambiguous(time(ambiguous.clone().earlier())?, time(ambiguous.later())?)
            }
            AmbiguousOffset::Gap { .. } => Resolution::Gap,
        })
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0.checked_add(SignedDuration::from_secs(seconds)).ok().map(Self)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.timestamp().cmp(&other.0.timestamp())
    }
}

fn civil_time(civil: CivilDateTime) -> Result<DateTime, CronError> {
    let part = |part: u32| i8::try_from(part).map_err(|_| CronError::InvalidTime);
    let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
    let (month, day) = (part(civil.month())?, part(civil.day())?);
    let (hour, minute, second) = (part(civil.hour())?, part(civil.minute())?, part(civil.second())?);
    DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| CronError::InvalidDate)
}
