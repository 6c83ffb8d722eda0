//! When something is to be done: once, again and again, or as a calendar says. No clock: what time
//! it is, is an argument.

mod cron;

use std::fmt;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use serde::{Deserialize, Serialize};

/// When something is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Schedule {
    /// Once.
    Once {
        /// At this time.
        at: Timestamp,
    },
    /// Every so many seconds, whatever a clock on the wall does.
    Every {
        /// Seconds from one time to the next.
        seconds: i64,
        /// What they are counted from; a whole second.
        from: Timestamp,
    },
    /// Whenever a cron pattern says so.
    Cron {
        /// The pattern, with five fields, or six with seconds in front, or a name like `@daily`.
        pattern: String,
        /// The time zone it is meant in, by its IANA name.
        zone: String,
    },
}

/// Why words are no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// They cannot be understood.
    #[error(
        "`{0}` is no time to do something; write `now`, `in 20m`, `at 18:00`, `at 2026-12-24 18:00`, `every 2h`, \
         `every day at 8:00`, `every monday at 9:30` or a cron pattern, as in `0 8 * * mon-fri`"
    )]
    Words(String),
    /// It looks like a cron pattern.
    #[error("`{pattern}` is no cron pattern: {reason}")]
    Pattern {
        /// What was written.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such time zone.
    #[error("there is no time zone `{0}`; write its IANA name, as in `Europe/Berlin`, or `UTC`")]
    Zone(String),
    /// It never comes.
    #[error("`{0}` never comes; give a time that is still ahead")]
    Never(String),
}

/// Days as they may be called, and as cron numbers them.
const DAYS: [(&str, &str); 10] = [
    ("day", "*"),
    ("weekday", "1-5"),
    ("weekend", "0,6"),
    ("sunday", "0"),
    ("monday", "1"),
    ("tuesday", "2"),
    ("wednesday", "3"),
    ("thursday", "4"),
    ("friday", "5"),
    ("saturday", "6"),
];

impl Schedule {
    /// Reads what a person or a model wrote. Times without a zone are meant in `zone`.
    pub fn parse(text: &str, zone: &str, now: Timestamp) -> Result<Self, Error> {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let now = whole(now);
        let tz = time_zone(zone)?;
        let schedule = match words.split_once(' ').unwrap_or((words.as_str(), "")) {
            ("now", "") => return Ok(Self::Once { at: now }),
            ("in", rest) => {
                span(rest).and_then(|span| now.checked_add(span).ok()).map(|at| Self::Once { at })
            }
            ("at", rest) => moment(rest, &tz, now).map(|at| Self::Once { at }),
            ("every", rest) => every(rest, zone, now),
            _ => {
                let is_pattern = words.starts_with('@') || (5..=7).contains(&words.split(' ').count());
                if !is_pattern {
                    return Err(Error::Words(words));
                }
                cron::check(&words).map_err(|reason| Error::Pattern { pattern: words.clone(), reason })?;
                Some(Self::Cron { pattern: words.clone(), zone: zone.to_owned() })
            }
        };
        let schedule = schedule.ok_or_else(|| Error::Words(words.clone()))?;
        match schedule.next(now) {
            Some(_) => Ok(schedule),
            None => Err(Error::Never(words)),
        }
    }

    /// The first time after `after`; `None` if there is none any more.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Once { at } => Some(*at).filter(|at| *at > after),
            Self::Every { seconds, from } => {
                let (step, since) = ((*seconds).max(1), after.as_second() - from.as_second());
                let count = since.div_euclid(step).max(-1) + 1;
                from.checked_add(SignedDuration::from_secs(step.checked_mul(count)?)).ok()
            }
            Self::Cron { pattern, zone } => cron::next(pattern, &time_zone(zone).ok()?, after),
        }
    }

    /// The first time that it is to be done; for one that was just made.
    pub fn first(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Once { at } => Some(*at),
            other => other.next(now),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once { at } => write!(f, "at {at:.0}"),
            Self::Every { seconds, .. } => write!(f, "every {:#}", SignedDuration::from_secs(*seconds)),
            Self::Cron { pattern, zone } => write!(f, "{pattern} in {zone}"),
        }
    }
}

/// The second that a time is in: schedules know nothing shorter.
pub fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_millisecond().div_euclid(1000)).unwrap_or(time)
}

/// The time zone of this name.
pub fn time_zone(name: &str) -> Result<TimeZone, Error> {
    TimeZone::get(name).map_err(|_| Error::Zone(name.to_owned()))
}

/// The name of the zone that this machine is in; UTC where it does not say.
pub fn local_zone() -> String {
    TimeZone::system().iana_name().unwrap_or("UTC").to_owned()
}

/// A time that has to pass, of a second or more. A day has 24 hours in it.
fn span(text: &str) -> Option<SignedDuration> {
    let span: Span = text.parse().ok()?;
    let span = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Some(span).filter(|span| *span >= SignedDuration::from_secs(1))
}

/// A time of the day, which is the next one, or a moment.
fn moment(text: &str, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(whole(at));
    }
    if let Some(time) = time_of_day(text) {
        let today = now.to_zoned(zone.clone()).date();
        let at = |date: jiff::civil::Date| date.to_datetime(time).to_zoned(zone.clone()).ok();
        let (today, tomorrow) = (at(today)?, at(today.tomorrow().ok()?)?);
        return Some(if today.timestamp() > now { today } else { tomorrow }.timestamp());
    }
    let (date, time) = text.split_once([' ', 'T'])?;
    let date: jiff::civil::Date = date.parse().ok()?;
    Some(date.to_datetime(time_of_day(time)?).to_zoned(zone.clone()).ok()?.timestamp())
}

/// `8:00`, `18:30` or `18:30:15`.
fn time_of_day(text: &str) -> Option<Time> {
    let mut parts = text.split(':').map(|part| part.parse::<i8>().ok().filter(|_| part.len() <= 2));
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = match parts.next() {
        Some(second) => second?,
        None => 0,
    };
    parts.next().is_none().then(|| Time::new(hour, minute, second, 0).ok()).flatten()
}

/// `2h`, or a day and a time of it.
fn every(text: &str, zone: &str, now: Timestamp) -> Option<Schedule> {
    if let Some(span) = span(text) {
        return Some(Schedule::Every { seconds: span.as_secs(), from: now });
    }
    let (days, time) = text.split_once(" at ").map_or((text, "0:00"), |(days, time)| (days, time));
    let number = |day: &str| {
        let day = day.trim().to_ascii_lowercase();
        DAYS.iter()
            .find(|(name, _)| day == *name || day.strip_suffix('s') == Some(name))
            .map(|(_, days)| *days)
    };
    let days: Option<Vec<_>> = days.split([',']).map(number).collect();
    let time = time_of_day(time)?;
    let seconds = if time.second() == 0 { String::new() } else { format!("{} ", time.second()) };
    let pattern = format!("{seconds}{} {} * * {}", time.minute(), time.hour(), days?.join(","));
    Some(Schedule::Cron { pattern, zone: zone.to_owned() })
}
